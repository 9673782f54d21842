"""Sessions as the drop-in and the harness tell them, at fixed times and with fixed ids."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from computeragent.telemetry.event import TelemetryEvent, encode
from computeragent.telemetry.seen import Assistant, Block, Delta, Result, Seen, User
from computeragent.telemetry.sinks.otel import OtelSink
from computeragent.telemetry.spool import Spooled
from computeragent.telemetry.story import Story

BEGIN = 1_760_000_000_000_000_000
MODEL = "claude-sonnet-4-5"
SERVED = "claude-sonnet-4-5-20250929"


class Teller:
    """Tells a session second by second. Event ids are counted, so that two tellings are the same."""

    def __init__(self, session: str = "ca_session", **opening: Any) -> None:
        self.story = Story(session, agent_name="reviewer", agent_id="agt_7", agent_description="reviews code")
        self.events: list[TelemetryEvent] = []
        self._ids = (f"{session}-{number}" for number in itertools.count())
        self.story.start(BEGIN, {"model": MODEL, "system_prompt": "Be brief.", **opening})

    def at(self, seconds: float) -> int:
        return BEGIN + round(seconds * 1e9)

    def keep(self, events: Sequence[TelemetryEvent]) -> Teller:
        for event in events:
            event.event_id = next(self._ids)
            if event.kind == "turn_started" and "parent_span_id" not in event.payload:
                del event.payload["trace_id"], event.payload["span_id"]  # to be derived from the id that it has now
        self.events += events
        return self

    def prompt(self, seconds: float, text: str = "What is in here?", **more: Any) -> Teller:
        return self.keep(self.story.prompt(self.at(seconds), text, **more))

    def see(self, seconds: float, seen: Seen) -> Teller:
        return self.keep(self.story.read(self.at(seconds), seen))

    def first_token(self, seconds: float, message: str) -> Teller:
        self.see(seconds, Delta(message_id=message, model=SERVED))
        return self.see(seconds, Delta(first=True))

    def reply(self, seconds: float, message: str | None, *blocks: Block, **more: Any) -> Teller:
        usage = more.pop("usage", {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 100})
        told = Assistant(list(blocks), model=SERVED, message_id=message, usage=usage, **more)
        return self.see(seconds, told)

    def calls(self, seconds: float, message: str | None, tool: str, call_id: str, **more: Any) -> Teller:
        given = more.pop("input", {"command": "ls"})
        server = more.pop("server", False)
        return self.reply(
            seconds, message, Block("tool_use", id=call_id, name=tool, input=given, server=server), **more
        )

    def says(self, seconds: float, message: str | None, text: str, **more: Any) -> Teller:
        return self.reply(seconds, message, Block("text", text=text), **more)

    def answers(
        self, seconds: float, call_id: str, content: Any = "a.py", *, error: bool = False, **more: Any
    ) -> Teller:
        return self.see(seconds, User([Block("tool_result", id=call_id, content=content, is_error=error)], **more))

    def judged(self, seconds: float, **payload: Any) -> Teller:
        told = {"engine": "opa", "decision": "allow", "reason": "read only", "latency_ms": 1.5, **payload}
        return self.keep(self.story.decision(self.at(seconds), told))

    def result(self, seconds: float, cost: float | None = 0.02, subtype: str = "success", **more: Any) -> Teller:
        usage = more.pop(
            "usage",
            {"input_tokens": 20, "output_tokens": 42, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 7},
        )
        told = Result(
            subtype,
            more.pop("is_error", subtype != "success"),
            total_cost_usd=cost,
            usage=usage,
            result=more.pop("result", "One file."),
            fields=more,
        )
        return self.see(seconds, told)

    def end(self, seconds: float, **more: Any) -> Teller:
        return self.keep(self.story.end(self.at(seconds), **more))

    def batch(self, spool: str = "spool", first: int = 1) -> list[Spooled]:
        """What was told, as it comes from a spool."""
        return [Spooled(spool, first + number, 0.0, encode(event)) for number, event in enumerate(self.events)]


def one_turn(session: str = "ca_session", **opening: Any) -> Teller:
    """A turn with two model calls and a tool between them."""
    return (
        Teller(session, **opening)
        .prompt(0.0)
        .first_token(0.5, "msg_1")
        .calls(1.0, "msg_1", "Bash", "toolu_1")
        .judged(1.1, tool_use_id="toolu_1", tool_name="Bash")
        .answers(2.0, "toolu_1")
        .first_token(2.4, "msg_2")
        .reply(3.0, "msg_2", Block("thinking", text="One file, then."), Block("text", text="One file."))
        .result(3.5)
        .end(4.0)
    )


def everything() -> Teller:
    """Two turns: sub-agent, server tool, failed and denied tools, a failure at the end."""
    return (
        Teller("ca_everything", engine="claude-agent-sdk", agent_version="1.2.0", agent_sha="c0ffee")
        .prompt(0.0, "Review it.")
        .first_token(0.25, "msg_1")
        .calls(0.5, "msg_1", "Task", "toolu_task", input={"prompt": "Read the tests."})
        .see(0.6, User([Block("text", text="Read the tests.")], parent="toolu_task"))
        .calls(1.0, "msg_sub_1", "Read", "toolu_read", input={"path": "t.py"}, parent="toolu_task")
        .answers(1.5, "toolu_read", "assert True", parent="toolu_task")
        .says(2.0, "msg_sub_2", "They pass.", parent="toolu_task")
        .answers(2.5, "toolu_task", "They pass.")
        .calls(3.0, "msg_2", "web_search", "srvtoolu_1", input={"query": "pytest"}, server=True)
        .reply(3.2, "msg_2", Block("tool_result", id="srvtoolu_1", content=[{"title": "docs"}], server=True))
        .calls(3.4, "msg_2", "Bash", "toolu_bash")
        .judged(3.5, tool_use_id="toolu_bash", tool_name="Bash", decision="deny", reason="no shell")
        .answers(3.6, "toolu_bash", "denied", error=True)
        .says(4.0, "msg_3", "All good.", stop_reason="end_turn", usage={"input_tokens": 12, "output_tokens": 30})
        .result(4.5, 0.5)
        .prompt(10.0, "Again.")
        .calls(11.0, "msg_4", "Bash", "toolu_2")
        .answers(11.5, "toolu_2", "exit 1", error=True)
        .says(12.0, "msg_5", "It fails.")
        .result(12.5, 0.75, "error_max_turns", errors=["too many turns"], usage={"input_tokens": 5, "output_tokens": 6})
        .end(13.0)
    )


def deliver(sink: OtelSink, teller: Teller) -> Spooled | None:
    """Deliver all that was told in one batch, and close."""
    try:
        return sink.deliver(teller.batch(teller.story.session_id))
    finally:
        sink.close()
