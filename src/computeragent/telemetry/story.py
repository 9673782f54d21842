"""The story of one session: turns what was seen into telemetry events, in order, with exactly one end.

Payloads (absent rather than null where upstream does not say):

- ``session_started``: model, system_prompt, permission_mode, allowed_tools, disallowed_tools, max_turns, cwd, add_dirs,
  prompt; of the harness also harness_mode, engine, agent_version, agent_sha, source_url, source_subdir.
- ``turn_started``: prompt, model, turn_index, trace_id, span_id; where a trace was joined also parent_span_id (all in
  hex) and sampled; engine, agent_version, agent_sha as above.
- ``user_message``: text, parent_tool_use_id, origin.
- ``assistant_message``: model, text, thinking, block_count, stop_reason, has_tool_use, message_id, usage, error,
  parent_tool_use_id. One per block: those of one model call share ``message_id``.
- ``tool_use``: tool_use_id, tool_name, tool_input, server, message_id, parent_tool_use_id.
- ``tool_result``: tool_use_id, tool_name, is_error, content, server, parent_tool_use_id.
- ``system_message``: subtype, data.
- ``response_first_token``: message_id, model, time_to_first_token_ms.
- ``usage_snapshot``, one at the end of each turn: model, usage (of the turn), total_cost_usd (of the session), cost_usd
  (of the turn), cost_source (``engine``, ``estimate`` with price_table, or ``unknown``), is_error, subtype, result,
  model_usage, permission_denials, turn_index and upstream's other result fields.
- ``policy_decision``: engine, decided_by, decision, reason, latency_ms, tool_name, tool_use_id, tool_input,
  principal_id, rule, code (of a fault).
- ``session_ended``: is_error, subtype, result, num_turns, total_cost_usd, duration_ms, usage (of the session),
  upstream_session_id, error_type, error_message, permission_denials. The subtype is that of the last result, or
  ``no_result``; ``cancelled`` when the caller left before it; ``error``, or the harness's error code; a guard's
  ``budget_exceeded`` or ``content_blocked``; ``process_lost``.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from computeragent.errors import GuardrailError
from computeragent.telemetry.bounds import prune
from computeragent.telemetry.event import EventKind, TelemetryEvent
from computeragent.telemetry.prices import TOKEN_KEYS, estimate, price_table
from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.seen import Assistant, Block, Delta, Result, Seen, System, User
from computeragent.telemetry.trace_context import Parent, ids_of

Json = dict[str, Any]

_OPEN_TOOLS = 1_000
_FACTS = ("engine", "agent_version", "agent_sha")  # told with each turn: whoever reads a later one needs no earlier


class Story:
    """One session as it is told. Used by one thread at a time; `at` is in nanoseconds since the epoch."""

    def __init__(
        self,
        session_id: str,
        *,
        agent_name: str | None = None,
        agent_id: str | None = None,
        agent_description: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.agent_id = agent_id
        self.agent_description = agent_description
        self.ended = False
        self.turns = 0
        self.model: str | None = None
        self._started_at = 0
        self._opening: Json | None = None
        self._facts: Json = {}
        self._early: list[TelemetryEvent] = []
        self._turn_open = False
        self._asked_at = 0  # when the model was asked last: the turn's start, or the last tool result
        self._waiting = True  # for the first token of a reply
        self._message_id: str | None = None
        self._call_model: str | None = None
        self._tools: dict[str, str] = {}
        self._last_text = ""
        self._usage: Json = {}
        self._cost: float | None = None
        self._cost_known = True
        self._result: Result | None = None
        self._denials: list[Any] = []
        self._prompts: deque[str | None] = deque()  # said while a turn was under way
        self._ended_at = 0  # when the last turn ended
        self._parent: Parent | None = None

    # ── What happens ──

    @property
    def cost_usd(self) -> float | None:
        """What the session has cost so far, None when nothing is known of it."""
        return self._cost if self._cost_known else None

    def start(self, at: int, payload: Json) -> None:
        """The session begins. It is told with its first prompt, which belongs to it, or whatever else comes first."""
        self._started_at = at
        self._opening = payload
        self._facts = {name: payload[name] for name in _FACTS if payload.get(name) is not None}
        self.model = payload.get("model")

    def prompt(
        self, at: int, text: str | None, *, event_id: str | None = None, parent: Parent | None = None
    ) -> list[TelemetryEvent]:
        """The user says something: a turn begins with it, or once the turn under way has ended and another one shows.

        (An engine may also take what is said in mid-turn into that turn: then there is no other one.)
        `event_id` is that of ``turn_started``; `parent` is the caller's span, which this turn and later ones join. The
        first prompt is told as that of ``session_started``, later ones as ``user_message``.
        """
        self._parent = parent or self._parent
        if self._opening is not None:
            return [*self._opened(text), *self._turn(at, text, event_id)]
        events = [] if text is None else [self._event("user_message", at, {"text": text})]
        if self._turn_open:
            self._prompts.append(text)
            return events
        self._prompts.clear()
        return [*self._turn(at, text, event_id), *events]

    def _opened(self, prompt: str | None = None) -> list[TelemetryEvent]:
        """The session's start, where it was not told yet."""
        payload, self._opening = self._opening, None
        if payload is None:
            return []
        early, self._early = self._early, []
        return [self._event("session_started", self._started_at, payload | _present(prompt=prompt)), *early]

    def _turn(self, at: int, text: str | None, event_id: str | None = None) -> list[TelemetryEvent]:
        event_id = event_id or uuid.uuid4().hex
        trace_id, span_id = ids_of(event_id)
        parent = self._parent
        payload = _present(
            prompt=text,
            model=self.model,
            turn_index=self.turns,
            trace_id=parent.trace_id if parent else trace_id,
            span_id=span_id,
            parent_span_id=parent.span_id if parent else None,
            sampled=parent.sampled if parent else None,
            **self._facts,
        )
        self.turns += 1
        self._turn_open = True
        self._asked(at)
        event = self._event("turn_started", at, payload)
        event.event_id = event_id
        return [event]

    def read(self, at: int, seen: Seen, raw: object = None) -> list[TelemetryEvent]:
        """A message passes by."""
        turn = self._next_turn(seen)
        match seen:
            case Assistant():
                events = self._assistant(at, seen)
            case User():
                events = self._user(at, seen)
            case System():
                events = [self._event("system_message", at, {"subtype": seen.subtype, "data": seen.data})]
                if self._opening is not None:  # what an engine says of itself before anybody has said anything
                    self._early += events
                    return []
            case Delta():
                events = self._delta(at, seen)
            case Result():
                events = self._turn_result(at, seen)
        for event in events:
            event.raw = raw
        return [*self._opened(), *turn, *events]

    def _next_turn(self, seen: Seen) -> list[TelemetryEvent]:
        """The turn of what was said during the last one, where this message shows that there is one."""
        if self._turn_open or not self._prompts or (isinstance(seen, System) and seen.subtype != "init"):
            return []
        return self._turn(self._ended_at, self._prompts.popleft())

    def decision(self, at: int, payload: Json) -> list[TelemetryEvent]:
        """A tool call was judged."""
        return [*self._opened(), self._event("policy_decision", at, payload)]

    def end(
        self,
        at: int,
        *,
        error: BaseException | None = None,
        cancelled: bool = False,
        stopped: Trip | None = None,
        failure: Trip | None = None,
    ) -> list[TelemetryEvent]:
        """The session is over: once.

        A result that ended the last turn says how it went, also where the caller left after it (`cancelled`).
        `error` is what was raised, `stopped` a guard's verdict, which the last turn may have ended before; `failure` is
        what the run is known to have ended with.
        """
        if self.ended:
            return []
        self.ended = True
        result = None if self._turn_open else self._result
        payload: Json = {
            "is_error": False,
            "subtype": "cancelled" if cancelled and self._turn_open else "no_result",
            "result": self._last_text,
            "num_turns": self.turns,
            "total_cost_usd": self.cost_usd,
            "duration_ms": round((at - self._started_at) / 1e6, 3) if self._started_at else 0.0,
            "usage": self._usage,
        }
        if result is not None:
            payload |= _present(
                is_error=result.is_error,
                subtype=result.subtype,
                result=self._last_text if result.result is None else result.result,
                num_turns=result.fields.get("num_turns"),
                duration_api_ms=result.fields.get("duration_api_ms"),
                errors=result.fields.get("errors"),
            )
        if stopped is not None and (result is None or result.is_error or isinstance(error, GuardrailError)):
            failure = stopped
        if failure is not None:
            payload |= _failure(failure.kind, failure.kind, failure.reason)
        elif error is not None:
            subtype = result.subtype if result is not None and result.is_error else "error"
            payload |= _failure(subtype, type(error).__name__, _said(error))
        if self._result is not None and self._result.session_id not in {None, self.session_id}:
            payload["upstream_session_id"] = self._result.session_id
        if self._denials:
            payload["permission_denials"] = self._denials
        return [*self._opened(), self._event("session_ended", at, payload)]

    # ── One kind of message each ──

    def _assistant(self, at: int, seen: Assistant) -> list[TelemetryEvent]:
        if seen.model and not seen.parent:
            self.model = self.model or seen.model
        events = [
            self._event("tool_use", at, self._tool_use(block, seen))
            for block in seen.blocks
            if block.kind == "tool_use"
        ]
        has_tool_use = bool(events)
        events += [self._tool_result(at, block, seen.parent) for block in seen.blocks if block.kind == "tool_result"]
        text = "".join(block.text for block in seen.blocks if block.kind == "text")
        if text and not seen.parent:
            self._last_text = text
        payload = _present(
            model=seen.model,
            text=text,
            thinking="".join(block.text for block in seen.blocks if block.kind == "thinking") or None,
            block_count=len(seen.blocks),
            stop_reason=seen.stop_reason,
            has_tool_use=has_tool_use,
            message_id=seen.message_id,
            usage=tokens(seen.usage) if seen.usage else None,
            error=seen.error,
            parent_tool_use_id=seen.parent,
        )
        if any(block.server for block in seen.blocks):
            self._asked(at)
        return [*events, self._event("assistant_message", at, payload)]

    def _tool_use(self, block: Block, seen: Assistant) -> Json:
        self._tools[block.id] = block.name
        if len(self._tools) > _OPEN_TOOLS:
            del self._tools[next(iter(self._tools))]
        return _present(
            tool_use_id=block.id,
            tool_name=block.name,
            tool_input=block.input,
            server=block.server or None,
            message_id=seen.message_id,
            parent_tool_use_id=seen.parent,
        )

    def _tool_result(self, at: int, block: Block, parent: str | None) -> TelemetryEvent:
        payload = _present(
            tool_use_id=block.id,
            tool_name=self._tools.pop(block.id, None),
            is_error=block.is_error,
            content=block.content,
            server=block.server or None,
            parent_tool_use_id=parent,
        )
        return self._event("tool_result", at, payload)

    def _user(self, at: int, seen: User) -> list[TelemetryEvent]:
        events = [self._tool_result(at, block, seen.parent) for block in seen.blocks if block.kind == "tool_result"]
        texts = [block.text for block in seen.blocks if block.kind == "text"]
        if texts:
            payload = _present(text="".join(texts), parent_tool_use_id=seen.parent, origin=seen.origin)
            events.append(self._event("user_message", at, payload))
        self._asked(at)
        return events

    def _asked(self, at: int) -> None:
        self._asked_at = at
        self._waiting = True

    def _delta(self, at: int, seen: Delta) -> list[TelemetryEvent]:
        if seen.parent:
            return []
        if seen.message_id:
            self._message_id, self._call_model = seen.message_id, seen.model
        if not seen.first or not self._waiting:
            return []
        self._waiting = False
        payload = _present(
            message_id=self._message_id,
            model=self._call_model or self.model,
            time_to_first_token_ms=round((at - self._asked_at) / 1e6, 3) if self._asked_at else None,
        )
        return [self._event("response_first_token", at, payload)]

    def _turn_result(self, at: int, seen: Result) -> list[TelemetryEvent]:
        usage = tokens(seen.usage)
        for key, count in usage.items():
            self._usage[key] = self._usage.get(key, 0) + count
        cost = self._costs(seen, usage, at)
        self._denials += seen.permission_denials
        self._result = seen
        turn = max(0, self.turns - 1)
        self._turn_open = False
        self._ended_at = at
        self._asked(at)
        payload = _present(
            model=self.model,
            usage=usage,
            total_cost_usd=self.cost_usd,
            **cost,
            subtype=seen.subtype,
            is_error=seen.is_error,
            result=seen.result,
            model_usage=seen.model_usage,
            permission_denials=seen.permission_denials or None,
            turn_index=turn,
            upstream_session_id=seen.session_id if seen.session_id != self.session_id else None,
        )
        rest = {key: value for key, value in seen.fields.items() if value is not None}
        return [self._event("usage_snapshot", at, payload | rest)]

    def _costs(self, seen: Result, usage: Json, at: int) -> Json:
        """The turn's cost: what the engine's running total grew by, else an estimate, else said to be unknown."""
        total = seen.total_cost_usd
        if total is not None:
            before = self._cost or 0.0
            turn = total - before if total >= before else total  # it began anew: a resumed run
            self._cost = before + turn
            return {"cost_usd": turn, "cost_source": "engine"}
        guess = estimate(self.model, usage, _utc(at)) if usage else None
        if guess is None:
            self._cost_known = False
            return {"cost_source": "unknown"}
        self._cost = (self._cost or 0.0) + guess
        return {"cost_usd": guess, "cost_source": "estimate", "price_table": price_table()}

    def _event(self, kind: EventKind, at: int, payload: Json) -> TelemetryEvent:
        return TelemetryEvent(
            kind=kind,
            session_id=self.session_id,
            timestamp=_utc(at),
            agent_name=self.agent_name,
            agent_id=self.agent_id,
            agent_description=self.agent_description,
            payload=prune(payload),
        )


def tokens(usage: Mapping[str, Any] | None) -> Json:
    """The four token counts of a usage object, those that it has."""
    return {key: usage[key] for key in TOKEN_KEYS if isinstance(usage.get(key), int)} if usage else {}


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return ""


def _failure(subtype: str, kind: str, message: str) -> Json:
    return {"is_error": True, "subtype": subtype, "error_type": kind, "error_message": message}


def _present(**fields: Any) -> Json:
    return {key: value for key, value in fields.items() if value is not None}


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1e9, UTC)
