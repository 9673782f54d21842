"""Spans of events: a trace for each turn, ``invoke_agent`` above the model calls and tools that happened in it.

Spans are started and ended after the fact, with the times of the events, on the tracer that is given. Those that have
nothing below them are made when they end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.calls import Calls
from computeragent.telemetry.sinks.otel.capture import say
from computeragent.telemetry.sinks.otel.maker import Maker, fail, present
from computeragent.telemetry.sinks.otel.metrics import TokenCount
from computeragent.telemetry.sinks.otel.tools import Tools
from computeragent.telemetry.sinks.otel.turns import Json, Place, Session, Thread, Turn, nanoseconds
from computeragent.telemetry.spool import Spooled

Handler = Callable[[Session, TelemetryEvent, int], None]


class SpanBuilder:
    """Follows sessions, and makes spans, measurements and content records of what happens in them.

    Used by one thread at a time.
    """

    def __init__(self, maker: Maker, *, max_sessions: int = names.MAX_TRACKED_SESSIONS) -> None:
        self._maker = maker
        self._calls = Calls(maker)
        self._tools = Tools(maker, self._calls)
        self._max_sessions = max_sessions
        self._sessions: dict[str, Session] = {}
        self._open: dict[str, Session] = {}  # those in a turn
        self._unmeasured: list[dict[str, Spooled]] = []  # where turns began whose measurements are not collected yet
        self._handlers: dict[str, Handler] = {
            "turn_started": self._turn_started,
            "user_message": self._user_message,
            "assistant_message": self._within(self._calls.message),
            "system_message": self._system_message,
            "tool_use": self._within(self._tools.use),
            "tool_result": self._tool_result,
            "response_first_token": self._within(self._calls.first_token),
            "usage_snapshot": self._usage_snapshot,
            "policy_decision": self._policy_decision,
            "session_ended": self._session_ended,
        }

    @property
    def idle(self) -> bool:
        """Whether no turn is open."""
        return not self._open

    def needed(self, spool: str) -> Spooled | None:
        """The oldest event of a spool that is needed to tell again what is not out: open turns, and measurements."""
        marks = [session.turn.marks for session in self._open.values() if session.turn is not None]
        found = [each[spool] for each in (*marks, *self._unmeasured) if spool in each]
        return min(found, key=lambda mark: mark.position, default=None)

    def measured(self) -> None:
        """All measurements have been collected."""
        self._unmeasured.clear()

    def feed(self, event: TelemetryEvent, spooled: Spooled | None = None) -> None:
        """Take in the next event."""
        session = self._session(event)
        session.learn(event)
        at = nanoseconds(event.timestamp)
        if event.kind == "session_started":
            session.started = spooled
            session.system_prompt = event.payload.get("system_prompt") if self._maker.writer is not None else None
            return
        handler = self._handlers.get(event.kind)
        if handler is None:
            return
        handler(session, event, at)
        turn = session.turn
        if turn is not None:
            turn.last = max(turn.last, at)
            turn.mark(spooled)
            if event.kind == "turn_started" and session.started is not None:
                if spooled is not None and session.started.spool == spooled.spool:
                    turn.marks[spooled.spool] = session.started
                session.started = None

    def end_all(self) -> None:
        """End what is open, when its last event was."""
        for session in list(self._open.values()):
            if session.turn is not None:
                self._close_turn(session, session.turn.last)
        self._sessions.clear()

    def _session(self, event: TelemetryEvent) -> Session:
        session = self._sessions.get(event.session_id)
        if session is None:
            if len(self._sessions) >= self._max_sessions:
                self._forget(next(iter(self._sessions)))
            session = self._sessions[event.session_id] = Session(event.session_id)
        return session

    def _forget(self, session_id: str) -> None:
        session = self._sessions.pop(session_id)
        if session.turn is not None:
            self._close_turn(session, session.turn.last)

    # ── Turns ──

    def _turn_started(self, session: Session, event: TelemetryEvent, at: int) -> None:
        if session.turn is not None:
            self._close_turn(session, at)
        turn = self._open_turn(session, event, at)
        prompt = event.payload.get("prompt")
        if self._maker.writer is not None and isinstance(prompt, str):
            turn.prompt = prompt
            say(turn.thread(None, at).pending, "user", content.text_part(prompt))

    def _within(self, handle: Callable[[Turn, TelemetryEvent, int], None]) -> Handler:
        """Have something handled in the open turn; without one it starts one: the engine went on by itself."""

        def handler(session: Session, event: TelemetryEvent, at: int) -> None:
            handle(session.turn or self._open_turn(session, event, at), event, at)

        return handler

    def _open_turn(self, session: Session, event: TelemetryEvent, at: int) -> Turn:
        place = Place.of(event)
        provider = names.provider(session.engine, session.model)
        common = present(
            {
                names.GEN_AI_CONVERSATION_ID: session.id,
                names.GEN_AI_AGENT_NAME: session.agent_name,
                self._own(names.GEN_AI_AGENT_ID, names.COMPUTERAGENT_AGENT_ID): session.agent_id,
                self._own(names.GEN_AI_AGENT_VERSION, names.COMPUTERAGENT_AGENT_VERSION): session.version
                or session.sha,
            }
        )
        dimensions = present({names.GEN_AI_PROVIDER_NAME: provider, names.GEN_AI_REQUEST_MODEL: session.model})
        attributes = present(
            {
                names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
                names.GEN_AI_PROVIDER_NAME: provider if self._maker.profile.hosted else None,
                **common,
                names.GEN_AI_AGENT_DESCRIPTION: session.description,
                names.GEN_AI_REQUEST_MODEL: session.model,
                names.COMPUTERAGENT_ENGINE_NAME: session.engine,
                names.COMPUTERAGENT_AGENT_SHA: session.sha,
                names.COMPUTERAGENT_TURN_INDEX: event.payload.get("turn_index"),
            }
        )
        name = f"{names.INVOKE_AGENT} {session.agent_name or 'agent'}"
        span = self._maker.start(name, SpanKind.INTERNAL, attributes, at, _above(place), place.span_id, place.trace_id)
        turn = Turn(place, at, span, set_span_in_context(span, Context()), common, dimensions, last=at)
        turn.threads[None] = Thread(asked_at=at)
        session.turn = turn
        self._open[session.id] = session
        return turn

    def _own(self, released: str, ours: str) -> str:
        return released if self._maker.profile.hosted else ours

    def _usage_snapshot(self, session: Session, event: TelemetryEvent, at: int) -> None:
        if session.turn is None:
            self._open_turn(session, event, at)
        told = event.payload
        error = None
        if told.get("is_error"):
            subtype = str(told.get("subtype") or "error")
            status = told.get("api_error_status")
            error = str(status or "error") if subtype == "success" else subtype
        self._close_turn(session, at, result=told, error=error, description=_description(told))

    def _session_ended(self, session: Session, event: TelemetryEvent, at: int) -> None:
        if session.turn is not None:
            told = event.payload
            error = str(told.get("error_type") or told.get("subtype") or "error") if told.get("is_error") else None
            self._close_turn(session, at, error=error, description=told.get("error_message"))
        self._sessions.pop(session.id, None)

    def _close_turn(
        self,
        session: Session,
        at: int,
        *,
        result: Json | None = None,
        error: str | None = None,
        description: str | None = None,
    ) -> None:
        turn = session.turn
        if turn is None:
            return
        for parent, thread in turn.threads.items():
            self._calls.close(turn, thread, parent)
        for call_id in list(turn.tools):
            self._tools.close(turn, call_id, at, None)
        for decisions in turn.decisions.values():
            for when, decision in decisions:
                turn.span.add_event("policy_decision", decision, timestamp=when)
        tokens = TokenCount.of(result.get("usage") or {}) if result is not None else None
        cost = result.get("cost_usd") if result is not None else None
        turn.span.set_attributes(self._totals(tokens, cost, result or {}))
        if self._maker.writer is not None and turn.prompt is not None:
            reply = (result or {}).get("result")
            self._maker.writer.turn(turn.span, session.system_prompt, turn.prompt, reply)
        fail(turn.span, error, description)
        end = max(at, turn.start)
        turn.span.end(end)
        if self._maker.recorder is not None:
            dimensions = turn.dimensions | ({names.ERROR_TYPE: error} if error else {})
            calls = (turn.calls, turn.tool_calls)
            self._maker.recorder.turn((end - turn.start) / 1e9, tokens, cost, calls, session.agent_name, dimensions)
            if turn.marks:
                self._unmeasured.append(turn.marks)
        session.turn = None
        self._open.pop(session.id, None)

    def _totals(self, tokens: TokenCount | None, cost: float | None, result: Json) -> Json:
        found: Json = {}
        if tokens is not None:
            found = self._maker.usage(tokens, cache=self._maker.profile.hosted)
            found[names.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens.output
        if cost is not None:
            found[names.COMPUTERAGENT_USAGE_COST_USD] = cost
        source = result.get("cost_source")
        if source is not None:
            found[names.COMPUTERAGENT_USAGE_COST_SOURCE] = source
        if result.get("price_table") is not None:
            found[names.COMPUTERAGENT_USAGE_PRICE_TABLE] = result["price_table"]
        return found

    # ── What else is said ──

    def _tool_result(self, session: Session, event: TelemetryEvent, at: int) -> None:
        if session.turn is not None:  # a tool that outlived its turn has no span to end
            self._tools.result(session.turn, event, at)

    def _policy_decision(self, session: Session, event: TelemetryEvent, at: int) -> None:
        told = event.payload
        decision = present(
            {
                names.POLICY_DECISION: told.get("decision"),
                names.POLICY_REASON: told.get("reason"),
                names.POLICY_ENGINE: told.get("engine"),
                names.POLICY_LATENCY_MS: told.get("latency_ms"),
                names.POLICY_TOOL_NAME: told.get("tool_name"),
                names.POLICY_RULE: told.get("rule"),
                names.POLICY_PRINCIPAL: told.get("principal_id"),
                names.POLICY_CODE: told.get("code"),
                names.POLICY_DECIDED_BY: told.get("decided_by"),
            }
        )
        if session.turn is not None:
            self._tools.decided(session.turn, told.get("tool_use_id"), told.get("tool_name"), decision, at)
            return
        attributes = {names.GEN_AI_CONVERSATION_ID: session.id, **decision}
        name, place = f"policy_decision {told.get('tool_name') or ''}".strip(), Place.of(event)
        self._maker.start(name, SpanKind.INTERNAL, attributes, at, Context(), place.span_id, place.trace_id).end(at)

    def _user_message(self, session: Session, event: TelemetryEvent, at: int) -> None:
        turn, told = session.turn, event.payload
        if turn is None:
            return
        thread = turn.thread(told.get("parent_tool_use_id"), at)
        text = told.get("text")
        thread.asked_at = at
        if self._maker.writer is not None and isinstance(text, str) and text != turn.prompt:
            say(thread.pending, "user", content.text_part(text))

    def _system_message(self, session: Session, event: TelemetryEvent, at: int) -> None:
        data: Json | None = event.payload.get("data")
        if session.model is not None or event.payload.get("subtype") != "init" or not isinstance(data, dict):
            return
        session.model = data.get("model")  # the CLI's default, which nobody had to name
        if session.turn is not None and session.model is not None:
            session.turn.dimensions[names.GEN_AI_REQUEST_MODEL] = session.model
            session.turn.span.set_attribute(names.GEN_AI_REQUEST_MODEL, session.model)


def _above(place: Place) -> Context:
    """The context of a root span: that of the caller's span, else an empty one, never whatever is current here."""
    if place.parent_span_id is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    caller = SpanContext(int(place.trace_id, 16), int(place.parent_span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _description(told: Json) -> str | None:
    errors: list[Any] = told.get("errors") or []
    return "; ".join(map(str, errors)) or None
