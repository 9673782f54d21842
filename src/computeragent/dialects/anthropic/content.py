"""The content blocks of Anthropic Messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.model import Media, MediaKind, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from computeragent.dialects.streams import parse_arguments
from computeragent.errors import ValidationError

NAME = "anthropic"


def parse_content(value: Any, path: str) -> tuple[Part, ...]:
    """Content as Anthropic has it in three places: a string, a list of blocks, or nothing."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (Text(value),)
    if not isinstance(value, list):
        raise ValidationError(f"{path}: must be a string or a list of content blocks")
    return tuple(parse_part(item, f"{path}.{n}") for n, item in enumerate(cast("list[Any]", value)))


def parse_part(value: Any, path: str = "content") -> Part:
    """One content block; a block of a kind not known here is kept as `Opaque`."""
    block = Fields(value, path)
    kind = block.string("type")
    match kind:
        case "text":
            return Text(block.string("text"), block.rest())
        case "thinking":
            text = block.optional_string("thinking") or ""
            return Thinking(text, block.optional_string("signature"), False, block.rest())
        case "redacted_thinking":
            return Thinking("", block.optional_string("data"), True, block.rest())
        case "tool_use":
            return _parse_tool_use(block)
        case "tool_result":
            return ToolResult(
                call_id=block.string("tool_use_id"),
                content=parse_content(block.take("content"), block.at("content")),
                is_error=block.boolean("is_error") or False,
                extra=block.rest(),
            )
        case "image" | "document":
            return _parse_media(kind, block)
        case _:
            return Opaque(kind, block.whole())


def _parse_tool_use(block: Fields) -> ToolCall:
    call_id, name, value = block.string("id"), block.string("name"), block.take("input")
    if isinstance(value, str):  # some servers send the unfinished text of a broken call
        parsed = parse_arguments(value)
        malformed = value if parsed is None else None
        return ToolCall(id=call_id, name=name, input=parsed or {}, malformed=malformed, extra=block.rest())
    if value is not None and not isinstance(value, dict):
        raise ValidationError(f"{block.at('input')}: must be an object")
    return ToolCall(id=call_id, name=name, input=cast("dict[str, Any]", value or {}), extra=block.rest())


def _parse_media(kind: MediaKind, block: Fields) -> Part:
    source = block.object("source")
    if source is None:
        raise ValidationError(f"{block.at('source')}: field required")
    shape = source.string("type")
    media_type = source.optional_string("media_type")
    title = block.optional_string("title") if kind == "document" else None
    match shape:
        case "base64":
            data = source.string("data")
            return Media(kind=kind, media_type=media_type, data=data, title=title, extra=block.rest())
        case "url":
            url = source.string("url")
            return Media(kind=kind, media_type=media_type, url=url, title=title, extra=block.rest())
        case "file":
            file_id = source.string("file_id")
            return Media(kind=kind, media_type=media_type, file_id=file_id, title=title, extra=block.rest())
        case "text" if kind == "document":
            text = source.string("data")
            return Media(kind=kind, media_type=media_type, text=text, title=title, extra=block.rest())
        case _:
            return Opaque(kind, block.whole())


def build_content(parts: Iterable[Part], *, own: bool) -> list[dict[str, Any]]:
    """Content blocks; `own` says whether `extra` and opaque blocks are in this dialect's spelling."""
    return [block for part in parts if (block := build_part(part, own=own)) is not None]


def build_part(part: Part, *, own: bool) -> dict[str, Any] | None:
    """One content block, or None for what this dialect cannot take over from another."""
    match part:
        case Text():
            block: dict[str, Any] = {"type": "text", "text": part.text}
        case Thinking(redacted=True):
            block = {"type": "redacted_thinking", "data": part.signature or ""}
        case Thinking():
            block = {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case ToolCall():
            block = {"type": "tool_use", "id": part.id, "name": part.name, "input": part.input}
        case ToolResult():
            block = {"type": "tool_result", "tool_use_id": part.call_id}
            if part.content:
                block["content"] = build_content(part.content, own=own)
            if part.is_error:
                block["is_error"] = True
        case Media():
            block = _build_media(part)
        case Opaque():
            return dict(part.data) if own else None
    return {**block, **part.extra} if own else block


def _build_media(part: Media) -> dict[str, Any]:
    if part.kind not in {"image", "document"}:
        raise ValidationError(f"Anthropic Messages cannot carry {part.kind}")
    if part.data is not None:
        fallback = "image/png" if part.kind == "image" else "application/pdf"
        source = {"type": "base64", "media_type": part.media_type or fallback, "data": part.data}
    elif part.url is not None:
        source = absent_if_none(type="url", url=part.url, media_type=part.media_type)
    elif part.file_id is not None:
        source = absent_if_none(type="file", file_id=part.file_id, media_type=part.media_type)
    else:
        source = {"type": "text", "media_type": part.media_type or "text/plain", "data": part.text or ""}
    return {"type": part.kind, "source": source, **absent_if_none(title=part.title)}
