"""How a turn's events look at the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from computeragent.cli.render import TurnView, footer
from computeragent.wire.events import CaPermissionDecision, CaSessionEnded, SdkMessage, raw_payload
from computeragent.wire.usage import UsageRollup


def shown(*events: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    view = TurnView(console)
    for event in events:
        view.show(message(event) if isinstance(event, dict) else event)
    view.close_line()
    return console.file.getvalue()


def message(payload: Any) -> SdkMessage:
    return SdkMessage(session_id="s", raw=raw_payload(payload), ends_turn=False, turn_index=0)


def delta(text: str, **more: Any) -> dict[str, Any]:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "event": event, **more}


START, STOP = ({"type": "stream_event", "event": {"type": kind}} for kind in ("message_start", "content_block_stop"))


def assistant(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"content": list(blocks)}, **more}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def call(tool: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"id-{tool}", "name": tool, "input": given}


def result(tool: str, content: Any, *, is_error: bool = False) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": f"id-{tool}", "content": content, "is_error": is_error}
    return {"type": "user", "message": {"content": [block]}}


def test_text_is_put_out_as_it_streams_and_not_again_when_it_is_whole() -> None:
    pieces = ["Hel", "lo,  ", "wor", "ld.\n\n\ttab ", " ", "end"]
    events = [START, *(delta(piece) for piece in pieces), STOP, assistant(text("".join(pieces)))]
    assert shown(*events) == "".join(pieces) + "\n"


def test_a_long_piece_keeps_its_spaces_and_is_not_broken() -> None:
    long = "word " * 40
    assert shown(START, delta(long), delta("end"), STOP) == f"{long}end\n"


def test_text_that_was_not_streamed_is_shown_when_it_comes() -> None:
    assert shown(assistant(text("one [b] :smile:")), assistant(text("two"))) == "one [b] :smile:\ntwo\n"


def test_a_call_is_one_line_and_so_is_its_outcome() -> None:
    lines = shown(
        assistant(call("Bash", command="ls \\\n  -la"), call("Grep", pattern="x")),
        result("Bash", "a\nb\n" + "c" * 200),
        result("Grep", [text("no"), text("match")], is_error=True),
    ).splitlines()
    assert lines[0] == r"● Bash  ls \ \n -la"  # a line break separates commands: it has to be seen
    assert lines[1] == '● Grep  {"pattern":"x"}'
    assert lines[2].startswith("  ✓ a b ccc")
    assert len(lines[2]) <= 80
    assert lines[3].startswith("  ✗ no match  ")
    assert len(lines) == 4


def test_sub_agents_speak_to_their_caller_not_to_the_terminal() -> None:
    assert shown(delta("hidden", parent_tool_use_id="p"), assistant(text("hidden"), parent_tool_use_id="p")) == ""


def test_a_denied_call_is_said_once() -> None:
    denied = CaPermissionDecision(
        session_id="s", call_id="id-Bash", decision="deny", reason="no", tool_name="Bash", turn_index=0
    )
    with_result = shown(assistant(call("Bash", command="x")), denied, result("Bash", "no", is_error=True))
    assert with_result.count("no") == 1
    assert shown(denied) == "✗ Bash denied: no\n"  # a call that is not shown, such as a sub-agent's


@pytest.mark.parametrize(("reason", "line"), [("cancelled", "ended: cancelled\n"), ("complete", ""), ("error", "")])
def test_the_end_is_said_where_it_is_not_the_usual_one(reason: Any, line: str) -> None:
    assert shown(CaSessionEnded(session_id="s", reason=reason)) == line


def test_retries_of_the_api_are_said() -> None:
    retry = {"type": "system", "subtype": "api_retry", "error_status": 529}
    assert shown(retry) == "the model's API failed (529), trying again\n"


@pytest.mark.parametrize("payload", ["text", 3, None, {}, {"type": "assistant"}, {"type": "user", "message": []}])
def test_what_other_engines_send_does_no_harm(payload: Any) -> None:
    assert shown(message(payload)) == ""


def test_the_footer_says_when_the_cost_is_not_known() -> None:
    assert footer(UsageRollup(), 1234, "sess_1") == "cost unknown · 0 tokens · 1.2 s · sess_1"
