"""Where captured content goes: attributes of spans, log records, or both."""

from __future__ import annotations

from typing import Any

from opentelemetry._logs import Logger as OtelLogger
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context

from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.content import Json
from computeragent.telemetry.sinks.otel.capture import attribute, fit_messages
from computeragent.telemetry.sinks.otel.settings import Plan


class ContentWriter:
    """Writes what was said, each value cut to the plan's length. `logger` is None where log records go nowhere."""

    def __init__(self, plan: Plan, logger: OtelLogger | None) -> None:
        self._limit = plan.max_attribute_length
        self._on_spans = plan.captures("attributes")
        self._logger = logger if plan.captures("events") else None
        self._finish_reason = plan.profile.finish_reason_in_messages

    def call(self, span: Span, inputs: list[Json], parts: list[Json], reason: str, attributes: Json, at: int) -> None:
        """What a model call was told, and what it replied."""
        if not (inputs or parts) or not span.is_recording():
            return
        told: Json = {}
        if inputs:
            told[content.GEN_AI_INPUT_MESSAGES] = fit_messages(inputs, self._limit)
        if parts:
            reply: Json = {"role": "assistant", "parts": parts}
            if self._finish_reason:
                reply["finish_reason"] = reason
            told[content.GEN_AI_OUTPUT_MESSAGES] = fit_messages([reply], self._limit)
        self._set(span, told)
        if self._logger is not None:
            record = LogRecord(
                timestamp=at,
                observed_timestamp=at,
                context=set_span_in_context(span, Context()),
                severity_number=SeverityNumber.INFO,
                event_name=content.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS,
                attributes={**attributes, **told},
            )
            self._logger.emit(record)

    def turn(self, span: Span, instructions: str | None, prompt: str, reply: Any) -> None:
        """What a turn began and ended with."""
        if not self._on_spans or not span.is_recording():
            return
        told: Json = {}
        if instructions:
            told[content.GEN_AI_SYSTEM_INSTRUCTIONS] = fit_messages([content.text_part(instructions)], self._limit)
        asked = [{"role": "user", "parts": [content.text_part(prompt)]}]
        told[content.GEN_AI_INPUT_MESSAGES] = fit_messages(asked, self._limit)
        if isinstance(reply, str) and reply:
            answer: Json = {"role": "assistant", "parts": [content.text_part(reply)]}
            if self._finish_reason:
                answer["finish_reason"] = "stop"
            told[content.GEN_AI_OUTPUT_MESSAGES] = fit_messages([answer], self._limit)
        self._set(span, told)

    def tool(self, span: Span, name: str, value: Any) -> None:
        """What a tool was given, or what it answered."""
        if self._on_spans and value is not None and span.is_recording():
            span.set_attribute(name, attribute(value, self._limit))

    def _set(self, span: Span, told: Json) -> None:
        if self._on_spans:
            for name, value in told.items():
                span.set_attribute(name, attribute(value, self._limit))
