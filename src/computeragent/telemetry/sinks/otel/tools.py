"""Tools: an ``execute_tool`` span for each call, and what policy had to say of it."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, set_span_in_context

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.calls import Calls
from computeragent.telemetry.sinks.otel.capture import add, say
from computeragent.telemetry.sinks.otel.maker import Maker, above, fail, present
from computeragent.telemetry.sinks.otel.turns import Json, Tool, Turn
from computeragent.telemetry.trace_context import span_id_of

MAX_OPEN_TOOLS = 1_000


class Tools:
    """The tool calls of turns."""

    def __init__(self, maker: Maker, calls: Calls) -> None:
        self._maker = maker
        self._calls = calls

    def use(self, turn: Turn, event: TelemetryEvent, at: int) -> None:
        """The model calls a tool."""
        told = event.payload
        call = self._calls.of(turn, event, at)
        call.has_tool_use = True
        call_id, name = str(told.get("tool_use_id") or event.event_id), str(told.get("tool_name") or "tool")
        server, parent = bool(told.get("server")), told.get("parent_tool_use_id")
        attributes = present(
            {
                names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
                **turn.common,
                names.GEN_AI_TOOL_NAME: name,
                names.GEN_AI_TOOL_TYPE: "extension" if server else "function",
                names.GEN_AI_TOOL_CALL_ID: told.get("tool_use_id"),
            }
        )
        span_id = span_id_of(event.event_id, names.EXECUTE_TOOL)
        span = self._maker.start(
            f"{names.EXECUTE_TOOL} {name}", SpanKind.INTERNAL, attributes, at, above(turn, parent), span_id
        )
        if len(turn.tools) >= MAX_OPEN_TOOLS:
            self.close(turn, next(iter(turn.tools)), at, None)
        if len(turn.contexts) >= MAX_OPEN_TOOLS:
            del turn.contexts[next(iter(turn.contexts))]
        context = turn.contexts[call_id] = set_span_in_context(span, Context())
        turn.tools[call_id] = tool = Tool(name, at, span, context)
        for when, decision in turn.decisions.pop(call_id, ()):
            _decide(tool, decision, when)
        if self._maker.writer is not None:
            arguments = told.get("tool_input")
            add(call.parts, content.tool_call(told.get("tool_use_id"), name, arguments, server=server))
            self._maker.writer.tool(span, names.GEN_AI_TOOL_CALL_ARGUMENTS, arguments)

    def result(self, turn: Turn, event: TelemetryEvent, at: int) -> None:
        """A tool has answered."""
        told = event.payload
        call_id, parent = str(told.get("tool_use_id") or ""), told.get("parent_tool_use_id")
        thread = turn.thread(parent, at)
        call = thread.call
        if told.get("server"):  # it ran within the call
            if self._maker.writer is not None and call is not None:
                add(call.parts, content.tool_response(call_id, told.get("content"), server=True))
        else:
            if call is not None and call.message_id is None:  # nothing else tells where it ends
                self._calls.close(turn, thread, parent)
            thread.asked_at = at
            if self._maker.writer is not None:
                say(thread.pending, "tool", content.tool_response(call_id, told.get("content")))
        inner = turn.threads.pop(call_id, None)
        if inner is not None:
            self._calls.close(turn, inner, call_id)
        self.close(turn, call_id, at, told)

    def close(self, turn: Turn, call_id: str, at: int, result: Json | None) -> None:
        """End a tool's span, with its result if there is one."""
        tool = turn.tools.pop(call_id, None)
        if tool is None:
            return
        turn.tool_calls += 1
        error = None
        if result is not None and result.get("is_error"):
            error = "permission_denied" if tool.denied else "tool_execution_error"
        if self._maker.writer is not None and result is not None:
            self._maker.writer.tool(tool.span, names.GEN_AI_TOOL_CALL_RESULT, result.get("content"))
        fail(tool.span, error)
        end = max(at, tool.start)
        tool.span.end(end)
        if self._maker.recorder is not None:
            self._maker.recorder.tool((end - tool.start) / 1e9, tool.name, {names.ERROR_TYPE: error} if error else {})

    def decided(self, turn: Turn, call_id: str | None, tool_name: str | None, decision: Json, at: int) -> None:
        """A call was judged: on its tool's span, by id or else by name, and on the turn's when there is none."""
        tool = turn.tools.get(call_id) if call_id else None
        if tool is None and call_id and call_id not in turn.contexts:
            if len(turn.decisions) < MAX_OPEN_TOOLS:  # it was judged before it was told of
                turn.decisions.setdefault(call_id, []).append((at, decision))
            return
        if tool is None and not call_id:
            tool = next((each for each in reversed(turn.tools.values()) if each.name == tool_name), None)
        if tool is None:
            _note(turn.span, decision, at)
        else:
            _decide(tool, decision, at)


def _decide(tool: Tool, decision: Json, at: int) -> None:
    tool.denied = decision.get(names.POLICY_DECISION) == "deny"
    _note(tool.span, decision, at)


def _note(span: Any, decision: Json, at: int) -> None:
    span.set_attributes({key: value for key, value in decision.items() if key != names.POLICY_TOOL_NAME})
    span.add_event("policy_decision", decision, timestamp=at)
