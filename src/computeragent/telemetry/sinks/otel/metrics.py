"""What is counted: tokens, durations, time to the first chunk and cost, once for each call, tool and turn.

The instruments belong to the meter that is given, the sink's own or the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.names import Profile

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens as the conventions count them: `input` includes what was read from and written to a cache."""

    input: int
    output: int
    cache_read: int | None
    cache_write: int | None

    @classmethod
    def of(cls, usage: Mapping[str, Any]) -> TokenCount | None:
        """From Anthropic's usage object, whose `input_tokens` is what came from no cache; None when it says nothing."""
        known = {key: value for key, value in usage.items() if isinstance(value, int)}
        if "input_tokens" not in known and "output_tokens" not in known:
            return None
        read, written = known.get("cache_read_input_tokens"), known.get("cache_creation_input_tokens")
        total = known.get("input_tokens", 0) + (read or 0) + (written or 0)
        return cls(total, known.get("output_tokens", 0), read, written)


class Recorder:
    """Records measurements of one profile through a meter. `dirty` is set by each, for whoever exports them."""

    def __init__(self, meter: Any, profile: Profile) -> None:
        self.dirty = False
        self._profile = profile
        self._meter = meter
        duration = names.OPERATION_DURATION_BUCKETS
        if profile.hosted:
            one = self._histogram(names.METRIC_OPERATION_DURATION, "s", "GenAI operation duration.", duration)
            self._chat = self._agent = self._tool = one
            first = names.METRIC_TIME_TO_FIRST_CHUNK
            self._tokens = self._histogram(
                names.METRIC_TOKEN_USAGE,
                "{token}",
                "Number of input and output tokens used.",
                names.TOKEN_USAGE_BUCKETS,
            )
        else:
            self._chat = self._histogram(names.METRIC_INFERENCE_DURATION, "s", "GenAI inference duration.", duration)
            self._agent = self._histogram(
                names.METRIC_INVOKE_AGENT_DURATION, "s", "GenAI agent invocation duration.", duration
            )
            self._tool = self._histogram(
                names.METRIC_EXECUTE_TOOL_DURATION, "s", "GenAI tool execution duration.", duration
            )
            first = names.METRIC_INFERENCE_TIME_TO_FIRST_CHUNK
            self._counters = [
                (meter.create_counter(name, unit="{token}", description=text), field) for name, field, text in _COUNTERS
            ]
            self._inference_calls = self._histogram(
                names.METRIC_INVOKE_AGENT_INFERENCE_CALLS,
                "{call}",
                "Model calls of an invocation.",
                names.CALLS_BUCKETS,
            )
            self._tool_calls = self._histogram(
                names.METRIC_INVOKE_AGENT_TOOL_CALLS, "{call}", "Tool calls of an invocation.", names.CALLS_BUCKETS
            )
        self._first_chunk = self._histogram(first, "s", "Time to receive the first chunk.", duration)
        self._cost = self._histogram(
            names.METRIC_COST_USD, "{USD}", "What a turn cost, in US dollars.", names.COST_USD_BUCKETS
        )

    def _histogram(self, name: str, unit: str, description: str, buckets: tuple[float, ...]) -> Any:
        return self._meter.create_histogram(
            name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(buckets)
        )

    def chat(self, seconds: float, first_chunk: float | None, attributes: Attributes) -> None:
        """A model call has ended. `attributes` name provider, models and, where it failed, the error."""
        self.dirty = True
        dims = {names.GEN_AI_OPERATION_NAME: names.CHAT, **attributes}
        self._chat.record(seconds, dims)
        if first_chunk is not None:
            self._first_chunk.record(first_chunk, {key: dims[key] for key in dims if key != names.ERROR_TYPE})

    def tool(self, seconds: float, tool: str, attributes: Attributes) -> None:
        """A tool has answered."""
        self.dirty = True
        dims = {names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL, names.GEN_AI_TOOL_NAME: tool}
        error = attributes.get(names.ERROR_TYPE)
        if error is not None:
            dims[names.ERROR_TYPE] = error
        self._tool.record(seconds, dims)

    def turn(
        self,
        seconds: float,
        tokens: TokenCount | None,
        cost: float | None,
        calls: tuple[int, int],
        agent: str | None,
        attributes: Attributes,
    ) -> None:
        """A turn has ended, after `calls` model and tool calls. Tokens and cost are those of the whole turn."""
        self.dirty = True
        dims = {names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT, **attributes}
        plain = {key: value for key, value in attributes.items() if key != names.ERROR_TYPE}
        named = {names.GEN_AI_AGENT_NAME: agent} if agent else {}
        if self._profile.hosted:
            self._agent.record(seconds, dims)
            if tokens is not None:
                usage = {names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT, **plain}
                self._tokens.record(tokens.input, {**usage, names.GEN_AI_TOKEN_TYPE: "input"})
                self._tokens.record(tokens.output, {**usage, names.GEN_AI_TOKEN_TYPE: "output"})
        else:
            error = {key: dims[key] for key in dims if key == names.ERROR_TYPE}
            self._agent.record(seconds, {**named, **error})
            self._inference_calls.record(calls[0], named)
            self._tool_calls.record(calls[1], named)
            if tokens is not None:
                usage = {names.GEN_AI_OPERATION_NAME: names.CHAT, **plain, names.GEN_AI_TOKEN_MODALITY: "unknown"}
                for counter, field in self._counters:
                    count = getattr(tokens, field)
                    if count is not None:
                        counter.add(count, usage)
        if cost is not None:
            self._cost.record(cost, {**plain, **named})


_COUNTERS = (
    (names.METRIC_INFERENCE_INPUT_TOKENS, "input", "Input tokens used, cached ones included."),
    (names.METRIC_INFERENCE_OUTPUT_TOKENS, "output", "Output tokens used."),
    (names.METRIC_INFERENCE_CACHE_READ_TOKENS, "cache_read", "Input tokens read from a cache."),
    (names.METRIC_INFERENCE_CACHE_WRITE_TOKENS, "cache_write", "Input tokens written to a cache."),
)
