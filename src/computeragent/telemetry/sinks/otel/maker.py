"""What all makers of spans share: the tracer and ids, where measurements and content go, how failures are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.contents import ContentWriter
from computeragent.telemetry.sinks.otel.metrics import Recorder, TokenCount
from computeragent.telemetry.sinks.otel.names import Profile
from computeragent.telemetry.sinks.otel.providers import DerivedIds
from computeragent.telemetry.sinks.otel.turns import Json, Turn

_MAX_DESCRIPTION = 1_000


@dataclass(frozen=True, slots=True)
class Maker:
    """Starts spans. `ids` gives our own the ids that follow from the events; None leaves ids to the tracer.

    Without `recorder` nothing is measured, without `writer` no content is kept.
    """

    profile: Profile
    tracer: Tracer
    ids: DerivedIds | None
    recorder: Recorder | None
    writer: ContentWriter | None

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Json,
        at: int,
        above: Context,
        span_id: str,
        trace_id: str | None = None,
    ) -> Any:
        """Start a span below the one in `above`, with its time and, on tracers of our own, its id."""
        if self.ids is not None:
            self.ids.span_id = int(span_id, 16)
            if trace_id is not None:
                self.ids.trace_id = int(trace_id, 16)
        return self.tracer.start_span(name, above, kind, attributes, start_time=at)

    def usage(self, tokens: TokenCount, *, cache: bool = True) -> Json:
        """Input tokens as attributes."""
        found: Json = {names.GEN_AI_USAGE_INPUT_TOKENS: tokens.input}
        if cache:
            found |= present(
                {
                    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: tokens.cache_read,
                    self.profile.cache_write: tokens.cache_write,
                }
            )
        return found


def above(turn: Turn, parent: str | None) -> Context:
    """The span that a call or a tool is below: the turn's, or that of the tool which started the sub-agent."""
    return turn.context if parent is None else turn.contexts.get(parent, turn.context)


def fail(span: Any, error: str | None, description: str | None = None) -> None:
    """Say on a span what it failed with; without an error, nothing."""
    if error:
        span.set_attribute(names.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR, description[:_MAX_DESCRIPTION] if description else None))


def present(fields: Json) -> Json:
    """The fields that have a value."""
    return {key: value for key, value in fields.items() if value is not None}
