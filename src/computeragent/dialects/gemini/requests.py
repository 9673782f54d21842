"""Requests of Gemini. The model and whether the answer is streamed stand in the path, not in the body."""

from __future__ import annotations

from typing import Any

from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.gemini.content import NAME, Calls, PartBuilder, parse_part
from computeragent.dialects.gemini.settings import build_settings, is_older, parse_settings
from computeragent.dialects.gemini.spelling import inner, read, several
from computeragent.dialects.gemini.tools import build_tool_config, build_tools, parse_tool_config, parse_tools
from computeragent.dialects.model import Message, ModelRequest, Part, Role
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError

UNSIGNED = "skip_thought_signature_validator"
"""The signature that the provider documents for calls that Gemini did not make itself."""

_ROLES: dict[str, Role] = {"user": "user", "function": "user", "tool": "user", "model": "assistant"}


def parse_request(body: Body, *, model: str | None = None, stream: bool = False) -> ModelRequest:
    """Read the body of `generateContent`; `model` and `stream` come from the path. Raises `ValidationError`."""
    fields = read(read_body(body).whole())
    named = fields.optional_string("model")
    choice, config_rest = parse_tool_config(fields)
    settings = parse_settings(fields)
    calls = Calls()
    leftovers = {"toolConfig": config_rest, "generationConfig": settings.rest}
    return ModelRequest(
        model=_model(model if model is not None else named),
        system=_parse_system(fields, calls),
        messages=tuple(_parse_content(item, path, calls) for path, item in several(fields, "contents")),
        tools=parse_tools(fields),
        tool_choice=choice,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=settings.seed,
        stop_sequences=settings.stop_sequences,
        thinking=settings.thinking,
        effort=settings.effort,
        output_format=settings.output_format,
        stream=stream,
        dialect=NAME,
        # Last: `rest` is what no line above has taken.
        extra={**fields.rest(), **{name: rest for name, rest in leftovers.items() if rest}},
    )


def _model(name: str | None) -> str:
    if not name:
        raise ValidationError("model: field required")
    return name.removeprefix("models/")


def _parse_system(body: Fields, calls: Calls) -> tuple[Part, ...]:
    if isinstance(body.whole().get("systemInstruction"), str):
        return parse_parts(Fields({"parts": [{"text": body.take("systemInstruction")}]}), calls)
    fields = inner(body, "systemInstruction")
    return () if fields is None else parse_parts(fields, calls)


def _parse_content(value: Any, path: str, calls: Calls) -> Message:
    fields = read(value, path)
    role = fields.optional_string("role") or "user"
    if role not in _ROLES:
        raise ValidationError(f"{fields.at('role')}: must be user or model, not {role!r}")
    return Message(_ROLES[role], parse_parts(fields, calls), fields.rest())


def parse_parts(content: Fields, calls: Calls) -> tuple[Part, ...]:
    """The parts of one content."""
    return tuple(parse_part(item, path, calls) for path, item in several(content, "parts"))


def build_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `generateContent`; the model belongs into the path.

    Of another dialect's request, thinking and provider-defined tools are left out. The first call of an answer that
    has no signature gets `UNSIGNED`, where the model is one that asks for signatures. Raises `ValidationError` for a
    file that is known by its id alone.
    """
    own = request.dialect == NAME
    older = is_older(request.model)
    # Before 3 only the models for computer use take media inside of a function's answer.
    builder = PartBuilder(own=own, nests=not older or "computer-use" in request.model)
    signs = request.model.startswith("gemini-") and not older
    body: dict[str, Any] = {**request.extra} if own else {}
    for read_apart in ("toolConfig", "generationConfig"):
        body.pop(read_apart, None)
    body["contents"] = [
        content for message in request.messages if (content := _build_content(message, builder, own=own, signs=signs))
    ]
    if system := builder.build(request.system):
        body["systemInstruction"] = {"role": "user", "parts": system}
    if tools := build_tools(request.tools, own=own):
        body["tools"] = tools
    if tools or own:
        config = build_tool_config(request.tool_choice, request.extra.get("toolConfig", {}) if own else {})
        body |= {"toolConfig": config} if config else {}
    if settings := build_settings(request, own=own):
        body["generationConfig"] = settings
    return body


def _build_content(message: Message, builder: PartBuilder, *, own: bool, signs: bool) -> dict[str, Any] | None:
    parts = builder.build(message.content)
    if not parts:  # the provider refuses such contents
        return None
    by_model = message.role == "assistant"
    if by_model and signs:
        called = next((part for part in parts if "functionCall" in part), {"thoughtSignature": ""})
        called.setdefault("thoughtSignature", UNSIGNED)
    return {"role": "model" if by_model else "user", "parts": parts, **(message.extra if own else {})}


def request_headers(request: ModelRequest) -> dict[str, str]:
    """This wire has none."""
    del request
    return {}


def parse_token_count_request(body: Body, *, model: str | None = None) -> ModelRequest:
    """Read the body of `countTokens`: contents alone, or a whole request. Raises `ValidationError`."""
    fields = read(read_body(body).whole())
    whole = inner(fields, "generateContentRequest")
    return parse_request((whole or fields).whole(), model=model)


def build_token_count_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `countTokens`."""
    return {"generateContentRequest": {"model": f"models/{request.model}", **build_request(request)}}
