"""Spans of events: a trace for each turn, ``invoke_agent`` above the model calls and tools that happened in it.

Spans are started and ended after the fact, with the times of the events, on the tracer that is given. Those that have
nothing below them are made when they end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.capture import add, say
from computeragent.telemetry.sinks.otel.contents import ContentWriter
from computeragent.telemetry.sinks.otel.metrics import Recorder, TokenCount
from computeragent.telemetry.sinks.otel.names import Profile
from computeragent.telemetry.sinks.otel.providers import DerivedIds
from computeragent.telemetry.sinks.otel.turns import Call, Json, Place, Session, Thread, Tool, Turn, nanoseconds
from computeragent.telemetry.spool import Spooled
from computeragent.telemetry.trace_context import span_id_of

MAX_OPEN_TOOLS = 1_000
_MAX_DESCRIPTION = 1_000


class SpanBuilder:
    """Follows sessions, and makes spans, measurements and content records of what happens in them.

    `ids` gives our own spans the ids that follow from the events; None leaves ids to the tracer. Used by one thread at
    a time.
    """

    def __init__(
        self,
        profile: Profile,
        tracer: Tracer,
        *,
        ids: DerivedIds | None,
        recorder: Recorder | None,
        writer: ContentWriter | None,
        max_sessions: int = names.MAX_TRACKED_SESSIONS,
    ) -> None:
        self._profile = profile
        self._tracer = tracer
        self._ids = ids
        self._recorder = recorder
        self._writer = writer
        self._max_sessions = max_sessions
        self._sessions: dict[str, Session] = {}
        self._open: dict[str, Session] = {}  # those in a turn
        self._unmeasured: list[dict[str, Spooled]] = []  # where turns began whose measurements are not collected yet
        self._handlers: dict[str, Callable[[Session, TelemetryEvent, int], None]] = {
            "turn_started": self._turn_started,
            "user_message": self._user_message,
            "assistant_message": self._assistant_message,
            "system_message": self._system_message,
            "tool_use": self._tool_use,
            "tool_result": self._tool_result,
            "response_first_token": self._first_token,
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
            session.system_prompt = event.payload.get("system_prompt") if self._writer is not None else None
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
        if self._writer is not None and isinstance(prompt, str):
            turn.prompt = prompt
            say(turn.thread(None, at).pending, "user", content.text_part(prompt))

    def _turn(self, session: Session, event: TelemetryEvent, at: int) -> Turn:
        """The open turn; without one, what happens starts one: the engine went on by itself."""
        return session.turn or self._open_turn(session, event, at)

    def _open_turn(self, session: Session, event: TelemetryEvent, at: int) -> Turn:
        place = Place.of(event)
        provider = names.provider(session.engine, session.model)
        common = _present(
            {
                names.GEN_AI_CONVERSATION_ID: session.id,
                names.GEN_AI_AGENT_NAME: session.agent_name,
                self._own(names.GEN_AI_AGENT_ID, names.COMPUTERAGENT_AGENT_ID): session.agent_id,
                self._own(names.GEN_AI_AGENT_VERSION, names.COMPUTERAGENT_AGENT_VERSION): session.version
                or session.sha,
            }
        )
        dimensions = _present({names.GEN_AI_PROVIDER_NAME: provider, names.GEN_AI_REQUEST_MODEL: session.model})
        attributes = _present(
            {
                names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
                names.GEN_AI_PROVIDER_NAME: provider if self._profile.hosted else None,
                **common,
                names.GEN_AI_AGENT_DESCRIPTION: session.description,
                names.GEN_AI_REQUEST_MODEL: session.model,
                names.COMPUTERAGENT_ENGINE_NAME: session.engine,
                names.COMPUTERAGENT_AGENT_SHA: session.sha,
                names.COMPUTERAGENT_TURN_INDEX: event.payload.get("turn_index"),
            }
        )
        name = f"{names.INVOKE_AGENT} {session.agent_name or 'agent'}"
        span = self._start(name, SpanKind.INTERNAL, attributes, at, _above(place), place.span_id, place.trace_id)
        turn = Turn(place, at, span, set_span_in_context(span, Context()), common, dimensions, last=at)
        turn.threads[None] = Thread(asked_at=at)
        session.turn = turn
        self._open[session.id] = session
        return turn

    def _own(self, released: str, ours: str) -> str:
        return released if self._profile.hosted else ours

    def _usage_snapshot(self, session: Session, event: TelemetryEvent, at: int) -> None:
        self._turn(session, event, at)
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
            self._close_call(turn, thread, parent)
        for call_id in list(turn.tools):
            self._close_tool(turn, call_id, at, None)
        for decisions in turn.decisions.values():
            for when, decision in decisions:
                turn.span.add_event("policy_decision", decision, timestamp=when)
        tokens = TokenCount.of(result.get("usage") or {}) if result is not None else None
        cost = result.get("cost_usd") if result is not None else None
        turn.span.set_attributes(self._totals(tokens, cost, result or {}))
        if self._writer is not None and turn.prompt is not None:
            reply = (result or {}).get("result")
            self._writer.turn(turn.span, session.system_prompt, turn.prompt, reply)
        _fail(turn.span, error, description)
        end = max(at, turn.start)
        turn.span.end(end)
        if self._recorder is not None:
            dimensions = turn.dimensions | ({names.ERROR_TYPE: error} if error else {})
            calls = (turn.calls, turn.tool_calls)
            self._recorder.turn((end - turn.start) / 1e9, tokens, cost, calls, session.agent_name, dimensions)
            if turn.marks:
                self._unmeasured.append(turn.marks)
        session.turn = None
        self._open.pop(session.id, None)

    def _totals(self, tokens: TokenCount | None, cost: float | None, result: Json) -> Json:
        found: Json = {}
        if tokens is not None:
            found = self._usage(tokens, cache=self._profile.hosted)
            found[names.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens.output
        if cost is not None:
            found[names.COMPUTERAGENT_USAGE_COST_USD] = cost
        source = result.get("cost_source")
        if source is not None:
            found[names.COMPUTERAGENT_USAGE_COST_SOURCE] = source
        if result.get("price_table") is not None:
            found[names.COMPUTERAGENT_USAGE_PRICE_TABLE] = result["price_table"]
        return found

    def _usage(self, tokens: TokenCount, *, cache: bool = True) -> Json:
        found: Json = {names.GEN_AI_USAGE_INPUT_TOKENS: tokens.input}
        if cache:
            found |= _present(
                {
                    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: tokens.cache_read,
                    self._profile.cache_write: tokens.cache_write,
                }
            )
        return found

    # ── Model calls ──

    def _call(self, turn: Turn, event: TelemetryEvent, at: int) -> Call:
        """The model call that an event is of; one that was before it in its thread ends."""
        parent, message_id = event.payload.get("parent_tool_use_id"), event.payload.get("message_id")
        thread = turn.thread(parent, at)
        call = thread.call
        if call is not None and None not in {message_id, call.message_id} and message_id != call.message_id:
            self._close_call(turn, thread, parent)
            thread.asked_at = max(thread.asked_at, call.end)
            call = None
        if call is None:
            call = thread.call = Call(event.event_id, min(thread.asked_at, at), at, inputs=thread.pending)
            thread.pending = []
        call.message_id = call.message_id or message_id
        call.model = event.payload.get("model") or call.model
        call.end = max(call.end, at)
        return call

    def _first_token(self, session: Session, event: TelemetryEvent, at: int) -> None:
        call = self._call(self._turn(session, event, at), event, at)
        waited = event.payload.get("time_to_first_token_ms")
        call.first_chunk = waited / 1000 if isinstance(waited, (int, float)) else None

    def _assistant_message(self, session: Session, event: TelemetryEvent, at: int) -> None:
        turn, told = self._turn(session, event, at), event.payload
        call = self._call(turn, event, at)
        call.stop_reason = told.get("stop_reason") or call.stop_reason
        call.has_tool_use = call.has_tool_use or bool(told.get("has_tool_use"))
        call.error = told.get("error") or call.error
        call.usage |= told.get("usage") or {}
        if self._writer is not None:
            if told.get("thinking"):
                add(call.parts, content.reasoning_part(told["thinking"]))
            if told.get("text"):
                add(call.parts, content.text_part(told["text"]))

    def _close_call(self, turn: Turn, thread: Thread, parent: str | None) -> None:
        call, thread.call = thread.call, None
        if call is None:
            return
        turn.calls += 1
        requested = turn.dimensions.get(names.GEN_AI_REQUEST_MODEL) if parent is None else None
        model = requested or call.model
        reason = content.map_finish_reason(call.stop_reason, call.has_tool_use)
        dimensions = _present(
            {
                names.GEN_AI_PROVIDER_NAME: turn.dimensions[names.GEN_AI_PROVIDER_NAME],
                names.GEN_AI_REQUEST_MODEL: model,
                names.GEN_AI_RESPONSE_MODEL: call.model,
            }
        )
        attributes = _present(
            {
                names.GEN_AI_OPERATION_NAME: names.CHAT,
                **turn.common,
                **dimensions,
                names.GEN_AI_RESPONSE_ID: call.message_id,
                names.GEN_AI_RESPONSE_FINISH_REASONS: [reason],
                names.GEN_AI_REQUEST_STREAM: True if call.first_chunk is not None else None,
                names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: call.first_chunk,
            }
        )
        tokens = TokenCount.of(call.usage)
        if tokens is not None:
            attributes |= self._usage(tokens)
            if call.stop_reason:  # before a reply has ended, what is said of its length is a placeholder
                attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens.output
        above = turn.context if parent is None else turn.contexts.get(parent, turn.context)
        name = f"{names.CHAT} {model}" if model else names.CHAT
        span = self._start(name, SpanKind.CLIENT, attributes, call.start, above, span_id_of(call.event_id, names.CHAT))
        if self._writer is not None:
            self._writer.call(span, call.inputs, call.parts, reason, attributes, call.end)
        _fail(span, call.error, None)
        span.end(call.end)
        if self._recorder is not None:
            if call.error:
                dimensions[names.ERROR_TYPE] = call.error
            self._recorder.chat((call.end - call.start) / 1e9, call.first_chunk, dimensions)

    # ── Tools ──

    def _tool_use(self, session: Session, event: TelemetryEvent, at: int) -> None:
        turn, told = self._turn(session, event, at), event.payload
        call = self._call(turn, event, at)
        call.has_tool_use = True
        call_id, name = str(told.get("tool_use_id") or event.event_id), str(told.get("tool_name") or "tool")
        server, parent = bool(told.get("server")), told.get("parent_tool_use_id")
        attributes = _present(
            {
                names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
                **turn.common,
                names.GEN_AI_TOOL_NAME: name,
                names.GEN_AI_TOOL_TYPE: "extension" if server else "function",
                names.GEN_AI_TOOL_CALL_ID: told.get("tool_use_id"),
            }
        )
        above = turn.context if parent is None else turn.contexts.get(parent, turn.context)
        span_id = span_id_of(event.event_id, names.EXECUTE_TOOL)
        span = self._start(f"{names.EXECUTE_TOOL} {name}", SpanKind.INTERNAL, attributes, at, above, span_id)
        if len(turn.tools) >= MAX_OPEN_TOOLS:
            self._close_tool(turn, next(iter(turn.tools)), at, None)
        if len(turn.contexts) >= MAX_OPEN_TOOLS:
            del turn.contexts[next(iter(turn.contexts))]
        context = turn.contexts[call_id] = set_span_in_context(span, Context())
        turn.tools[call_id] = tool = Tool(name, at, span, context)
        for when, decision in turn.decisions.pop(call_id, ()):
            _decide(tool, decision, when)
        if self._writer is not None:
            arguments = told.get("tool_input")
            add(call.parts, content.tool_call(told.get("tool_use_id"), name, arguments, server=server))
            self._writer.tool(span, names.GEN_AI_TOOL_CALL_ARGUMENTS, arguments)

    def _tool_result(self, session: Session, event: TelemetryEvent, at: int) -> None:
        turn = session.turn
        if turn is None:
            return
        told = event.payload
        call_id, parent = str(told.get("tool_use_id") or ""), told.get("parent_tool_use_id")
        thread = turn.thread(parent, at)
        call = thread.call
        if told.get("server"):  # it ran within the call
            if self._writer is not None and call is not None:
                add(call.parts, content.tool_response(call_id, told.get("content"), server=True))
        else:
            if call is not None and call.message_id is None:  # nothing else tells where it ends
                self._close_call(turn, thread, parent)
            thread.asked_at = at
            if self._writer is not None:
                say(thread.pending, "tool", content.tool_response(call_id, told.get("content")))
        inner = turn.threads.pop(call_id, None)
        if inner is not None:
            self._close_call(turn, inner, call_id)
        self._close_tool(turn, call_id, at, told)

    def _close_tool(self, turn: Turn, call_id: str, at: int, result: Json | None) -> None:
        tool = turn.tools.pop(call_id, None)
        if tool is None:
            return
        turn.tool_calls += 1
        error = None
        if result is not None and result.get("is_error"):
            error = "permission_denied" if tool.denied else "tool_execution_error"
        if self._writer is not None and result is not None:
            self._writer.tool(tool.span, names.GEN_AI_TOOL_CALL_RESULT, result.get("content"))
        _fail(tool.span, error, None)
        end = max(at, tool.start)
        tool.span.end(end)
        if self._recorder is not None:
            self._recorder.tool((end - tool.start) / 1e9, tool.name, {names.ERROR_TYPE: error} if error else {})

    def _policy_decision(self, session: Session, event: TelemetryEvent, at: int) -> None:
        told = event.payload
        decision = _present(
            {
                names.POLICY_DECISION: told.get("decision"),
                names.POLICY_REASON: told.get("reason"),
                names.POLICY_ENGINE: told.get("engine"),
                names.POLICY_LATENCY_MS: told.get("latency_ms"),
            }
        )
        named = decision | _present({names.POLICY_TOOL_NAME: told.get("tool_name")})
        turn = session.turn
        if turn is None:
            attributes = {names.GEN_AI_CONVERSATION_ID: session.id, **named}
            name = f"policy_decision {told.get('tool_name') or ''}".strip()
            place = Place.of(event)
            self._start(name, SpanKind.INTERNAL, attributes, at, Context(), place.span_id, place.trace_id).end(at)
            return
        call_id = told.get("tool_use_id")
        tool = turn.tools.get(call_id) if call_id else None
        if tool is None and call_id and call_id not in turn.contexts:
            if len(turn.decisions) < MAX_OPEN_TOOLS:  # it was judged before it was told of
                turn.decisions.setdefault(call_id, []).append((at, named))
            return
        if tool is None and not call_id:
            tool = next((each for each in reversed(turn.tools.values()) if each.name == told.get("tool_name")), None)
        if tool is None:
            turn.span.set_attributes(decision)
            turn.span.add_event("policy_decision", named, timestamp=at)
        else:
            _decide(tool, named, at)

    # ── What else is said ──

    def _user_message(self, session: Session, event: TelemetryEvent, at: int) -> None:
        turn, told = session.turn, event.payload
        if turn is None:
            return
        thread = turn.thread(told.get("parent_tool_use_id"), at)
        text = told.get("text")
        thread.asked_at = at
        if self._writer is not None and isinstance(text, str) and text != turn.prompt:
            say(thread.pending, "user", content.text_part(text))

    def _system_message(self, session: Session, event: TelemetryEvent, at: int) -> None:
        data = event.payload.get("data")
        if event.payload.get("subtype") == "init" and isinstance(data, dict):
            session.model = session.model or data.get("model")  # pyright: ignore[reportUnknownMemberType]

    def _start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Json,
        at: int,
        above: Context,
        span_id: str,
        trace_id: str | None = None,
    ) -> Any:
        if self._ids is not None:
            self._ids.span_id = int(span_id, 16)
            if trace_id is not None:
                self._ids.trace_id = int(trace_id, 16)
        return self._tracer.start_span(name, above, kind, attributes, start_time=at)


def _above(place: Place) -> Context:
    """The context of a root span: that of the caller's span, else an empty one, never whatever is current here."""
    if place.parent_span_id is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    caller = SpanContext(int(place.trace_id, 16), int(place.parent_span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _decide(tool: Tool, decision: Json, at: int) -> None:
    tool.denied = decision.get(names.POLICY_DECISION) == "deny"
    tool.span.set_attributes({key: value for key, value in decision.items() if key != names.POLICY_TOOL_NAME})
    tool.span.add_event("policy_decision", decision, timestamp=at)


def _fail(span: Any, error: str | None, description: str | None) -> None:
    if error:
        span.set_attribute(names.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR, description[:_MAX_DESCRIPTION] if description else None))


def _description(told: Json) -> str | None:
    errors: list[Any] = told.get("errors") or []
    return "; ".join(map(str, errors)) or None


def _present(fields: Json) -> Json:
    return {key: value for key, value in fields.items() if value is not None}
