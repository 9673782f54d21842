"""The neutral model: what every model wire says, in one shape that belongs to none of them.

A `ModelRequest` is messages made of parts, tools and settings; a `ModelResponse` is parts, a stop reason and usage.
Whatever a wire says beyond that is kept in `extra`, in that wire's own spelling: the `dialect` field of the request
or response names the spelling, and a builder of another dialect leaves every `extra` out.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

Role = Literal["user", "assistant", "system"]
MediaKind = Literal["image", "document", "audio", "video"]
ToolMode = Literal["auto", "required", "none", "tool"]
ErrorKind = Literal[
    "invalid_request",
    "authentication",
    "billing",
    "permission",
    "not_found",
    "too_large",
    "rate_limit",
    "timeout",
    "overloaded",
    "server",
    "incomplete",
]

STOP_REASONS = ("end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "pause_turn")
"""The stop reasons that every dialect understands; any other string is one wire's own and travels as it is."""


class Text(Struct, frozen=True, tag_field="type", tag="text", omit_defaults=True):
    """Written text."""

    text: str
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class Media(Struct, frozen=True, kw_only=True, tag_field="type", tag="media", omit_defaults=True):
    """An image, document, sound or film.

    Exactly one of `data` (base64), `url`, `file_id` (a file kept by the provider) and `text` (a plain-text document)
    is set. `media_type` is the MIME type where the wire names one; `title` is a document's title or file name.
    """

    kind: MediaKind
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    text: str | None = None
    title: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class Thinking(Struct, frozen=True, tag_field="type", tag="thinking", omit_defaults=True):
    """The model's reasoning.

    `signature` is the provider's proof or encrypted form, to be sent back unchanged.
    A `redacted` block has no readable text: the signature is all there is.
    """

    text: str
    signature: str | None = None
    redacted: bool = False
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class ToolCall(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_call", omit_defaults=True):
    """The model asks for a tool.

    `malformed` holds the arguments as the model wrote them when they are not a JSON object; `input` is then empty.
    `signature` is what some providers attach to a call and want back.
    """

    id: str
    name: str
    input: dict[str, Any] = field(default_factory=dict[str, Any])
    malformed: str | None = None
    signature: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class ToolResult(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_result", omit_defaults=True):
    """What a tool answered; `call_id` is the `ToolCall.id` it answers. Lives in user messages."""

    call_id: str
    content: tuple[Part, ...] = ()
    is_error: bool = False
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The text parts of the result, joined by newlines."""
        return text_of(self.content)


class Opaque(Struct, frozen=True, tag_field="type", tag="opaque"):
    """A block that only one dialect knows (a server-side tool, a tool reference), kept whole.

    `kind` is the wire's name for it and `data` the complete wire object.
    """

    kind: str
    data: dict[str, Any]


Part = Text | Media | Thinking | ToolCall | ToolResult | Opaque


class Message(Struct, frozen=True, omit_defaults=True):
    """One message of the conversation. A `system` message is an instruction in the midst of it."""

    role: Role
    content: tuple[Part, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The text parts, joined by newlines; media, thinking, calls and results are not text."""
        return text_of(self.content)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the message asks for, in order."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results that the message brings, in order."""
        return tuple(part for part in self.content if isinstance(part, ToolResult))


class Tool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the model may call.

    `kind` is `function`, or the wire's type of a tool that the provider defines itself (`web_search_20250305`);
    such a tool has no schema here and keeps its settings in `extra`.
    """

    name: str
    description: str | None = None
    input_schema: dict[str, Any] = field(default_factory=dict[str, Any])
    strict: bool | None = None
    kind: str = "function"
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    """Whether the model may (`auto`), must (`required`) or must not (`none`) call a tool, or which one (`tool`)."""

    mode: ToolMode
    name: str | None = None


class ThinkingConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the model reasons first: always (`enabled`, with a token budget), as it sees fit, or not at all."""

    mode: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class OutputFormat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer must be JSON: of this schema, or any JSON object where `schema` is None."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class ModelRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to a model. None means that the caller did not say, and the provider's default holds.

    `max_tokens` bounds the answer; `effort` is the wire's word (`low`, `medium`, `high`, ...); `user` identifies the
    end user to the provider; `stream_usage` asks for usage at the end of a stream; `dialect` names the wire whose
    spelling every `extra` is in.
    """

    model: str
    messages: tuple[Message, ...] = ()
    system: tuple[Part, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    thinking: ThinkingConfig | None = None
    effort: str | None = None
    output_format: OutputFormat | None = None
    user: str | None = None
    stream: bool = False
    stream_usage: bool = True
    dialect: str = ""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def system_text(self) -> str:
        """The system prompt's text parts, joined by newlines."""
        return text_of(self.system)


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token counts of one response.

    `input_tokens` leaves out what was read from or written to the prompt cache (as Anthropic counts);
    `reasoning_tokens` is the part of `output_tokens` that was spent on thinking.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def total_input_tokens(self) -> int:
        """All input, cached or not (as OpenAI counts)."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def merge(self, later: Usage) -> Usage:
        """This usage brought up to date by a later report of the same response: counts only ever grow."""
        return Usage(
            input_tokens=max(self.input_tokens, later.input_tokens),
            output_tokens=max(self.output_tokens, later.output_tokens),
            cache_read_tokens=max(self.cache_read_tokens, later.cache_read_tokens),
            cache_write_tokens=max(self.cache_write_tokens, later.cache_write_tokens),
            reasoning_tokens=max(self.reasoning_tokens, later.reasoning_tokens),
            extra={**self.extra, **later.extra},
        )


class ModelResponse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One complete answer. `stop_reason` is one of `STOP_REASONS`, or a wire's own word; None while unknown."""

    id: str
    model: str
    content: tuple[Part, ...] = ()
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage = field(default_factory=Usage)
    dialect: str = ""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """The text parts, joined by newlines."""
        return text_of(self.content)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks for, in order."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))


class ModelError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A failure that a model server reports.

    `status` is the HTTP status (None inside a stream); `type` and `code` are the wire's own words where it had any;
    `retry_after` is in seconds. `incomplete` means that a stream broke off.
    """

    kind: ErrorKind
    message: str
    status: int | None = None
    type: str | None = None
    code: str | None = None
    retry_after: float | None = None
    request_id: str | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in {"rate_limit", "timeout", "overloaded", "server", "incomplete"}


def text_of(parts: tuple[Part, ...]) -> str:
    """The text of the `Text` parts, joined by newlines."""
    return "\n".join(part.text for part in parts if isinstance(part, Text))
