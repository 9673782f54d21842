"""Model calls: a ``chat`` span for each, whichever messages it came in."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.capture import add
from computeragent.telemetry.sinks.otel.maker import Maker, above, fail, present
from computeragent.telemetry.sinks.otel.metrics import TokenCount
from computeragent.telemetry.sinks.otel.turns import Call, Thread, Turn
from computeragent.telemetry.trace_context import span_id_of


class Calls:
    """The model calls of turns. The messages of one call share a ``message_id``."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def of(self, turn: Turn, event: TelemetryEvent, at: int) -> Call:
        """The model call that an event is of; one that was before it in its thread ends."""
        parent, message_id = event.payload.get("parent_tool_use_id"), event.payload.get("message_id")
        thread = turn.thread(parent, at)
        call = thread.call
        if call is not None and None not in {message_id, call.message_id} and message_id != call.message_id:
            self.close(turn, thread, parent)
            thread.asked_at = max(thread.asked_at, call.end)
            call = None
        if call is None:
            call = thread.call = Call(event.event_id, min(thread.asked_at, at), at, inputs=thread.pending)
            thread.pending = []
        call.message_id = call.message_id or message_id
        call.model = event.payload.get("model") or call.model
        call.end = max(call.end, at)
        return call

    def first_token(self, turn: Turn, event: TelemetryEvent, at: int) -> None:
        """The reply begins."""
        call = self.of(turn, event, at)
        waited = event.payload.get("time_to_first_token_ms")
        call.first_chunk = waited / 1000 if isinstance(waited, (int, float)) else None

    def message(self, turn: Turn, event: TelemetryEvent, at: int) -> None:
        """A piece of the reply is there."""
        call, told = self.of(turn, event, at), event.payload
        call.stop_reason = told.get("stop_reason") or call.stop_reason
        call.has_tool_use = call.has_tool_use or bool(told.get("has_tool_use"))
        call.error = told.get("error") or call.error
        call.usage |= told.get("usage") or {}
        if self._maker.writer is not None:
            if told.get("thinking"):
                add(call.parts, content.reasoning_part(told["thinking"]))
            if told.get("text"):
                add(call.parts, content.text_part(told["text"]))

    def close(self, turn: Turn, thread: Thread, parent: str | None) -> None:
        """End the model call of a thread, if one is under way."""
        call, thread.call = thread.call, None
        if call is None:
            return
        turn.calls += 1
        requested = turn.dimensions.get(names.GEN_AI_REQUEST_MODEL) if parent is None else None
        model = requested or call.model
        reason = content.map_finish_reason(call.stop_reason, call.has_tool_use)
        dimensions = present(
            {
                names.GEN_AI_PROVIDER_NAME: turn.dimensions[names.GEN_AI_PROVIDER_NAME],
                names.GEN_AI_REQUEST_MODEL: model,
                names.GEN_AI_RESPONSE_MODEL: call.model,
            }
        )
        attributes = present(
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
            attributes |= self._maker.usage(tokens)
            if call.stop_reason:  # before a reply has ended, what is said of its length is a placeholder
                attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens.output
        name = f"{names.CHAT} {model}" if model else names.CHAT
        span_id = span_id_of(call.event_id, names.CHAT)
        span = self._maker.start(name, SpanKind.CLIENT, attributes, call.start, above(turn, parent), span_id)
        if self._maker.writer is not None:
            self._maker.writer.call(span, call.inputs, call.parts, reason, attributes, call.end)
        fail(span, call.error)
        span.end(call.end)
        if self._maker.recorder is not None:
            if call.error:
                dimensions[names.ERROR_TYPE] = call.error
            self._maker.recorder.chat((call.end - call.start) / 1e9, call.first_chunk, dimensions)
