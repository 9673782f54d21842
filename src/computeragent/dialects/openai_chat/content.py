"""Messages and content parts of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from computeragent.dialects.data_urls import split_data_url, url_of
from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.model import Media, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult, text_of
from computeragent.dialects.streams import arguments_text, with_arguments
from computeragent.errors import ValidationError

NAME = "openai_chat"


def parse_content(value: Any, path: str) -> tuple[Part, ...]:
    """Content: a string, a list of parts, or nothing; an empty string is nothing."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (Text(value),)
    if not isinstance(value, list):
        raise ValidationError(f"{path}: must be a string or a list of content parts")
    return tuple(_parse_part(item, f"{path}.{n}") for n, item in enumerate(cast("list[Any]", value)))


def _parse_part(value: Any, path: str) -> Part:
    part = Fields(value, path)
    kind = part.string("type")
    inner = part.object(kind) if kind in {"image_url", "input_audio", "file"} else None
    match kind:
        case "text":
            return Text(part.string("text"), part.rest())
        case "refusal":
            return Text(part.string("refusal"), part.rest())
        case "image_url" if inner is not None:
            url = inner.string("url")
            rest = {**part.rest(), **absent_if_none(detail=inner.optional_string("detail"))}
            media_type, data = split_data_url(url)
            return Media(
                kind="image", media_type=media_type, data=data, url=None if data is not None else url, extra=rest
            )
        case "input_audio" if inner is not None:
            media_type = f"audio/{inner.string('format')}"
            return Media(kind="audio", media_type=media_type, data=inner.string("data"), extra=part.rest())
        case "file" if inner is not None:
            media_type, data = split_data_url(inner.optional_string("file_data") or "")
            file_id, title = inner.optional_string("file_id"), inner.optional_string("filename")
            return Media(
                kind="document", media_type=media_type, data=data, file_id=file_id, title=title, extra=part.rest()
            )
        case _:
            return Opaque(kind, part.whole())


def parse_assistant(fields: Fields) -> tuple[Part, ...]:
    """The parts of an assistant message, of a request or a response: reasoning, text, tool calls."""
    parts: list[Part] = []
    reasoning = fields.optional_string("reasoning_content") or fields.optional_string("reasoning")
    if reasoning:
        parts.append(Thinking(reasoning))
    parts.extend(parse_content(fields.take("content"), fields.at("content")))
    if refusal := fields.optional_string("refusal"):
        parts.append(Text(refusal))
    parts.extend(_parse_tool_call(item, path) for path, item in fields.items("tool_calls"))
    return tuple(parts)


def _parse_tool_call(value: Any, path: str) -> Part:
    call = Fields(value, path)
    kind = call.optional_string("type") or "function"
    function = call.object("function")
    if kind != "function" or function is None:
        return Opaque(kind, call.whole())
    named = ToolCall(id=call.string("id"), name=function.string("name"), extra=call.rest())
    return with_arguments(named, function.optional_string("arguments") or "")


def parse_tool_message(fields: Fields) -> ToolResult:
    """A message of the role `tool`, without its role."""
    content = parse_content(fields.take("content"), fields.at("content"))
    return ToolResult(call_id=fields.string("tool_call_id"), content=content, extra=fields.rest())


def build_messages(message: Message, *, own: bool) -> Iterator[dict[str, Any]]:
    """The wire messages of one message: each tool result becomes one of its own."""
    extra = message.extra if own else {}
    if message.role == "assistant":
        yield {"role": "assistant", **build_assistant(message.content, own=own), **extra}
        return
    rest: list[Part] = []
    for part in message.content:
        if isinstance(part, ToolResult):
            text, media = _split_result(part)
            yield {"role": "tool", "tool_call_id": part.call_id, "content": text, **(part.extra if own else {})}
            rest.extend(media)  # this wire's tool messages hold text alone
        else:
            rest.append(part)
    if rest or not message.content:
        yield {"role": message.role, "content": build_content(rest, own=own), **extra}


def _split_result(result: ToolResult) -> tuple[str, list[Part]]:
    return text_of(result.content), [part for part in result.content if isinstance(part, Media)]


def build_assistant(parts: tuple[Part, ...], *, own: bool) -> dict[str, Any]:
    """The fields of an assistant message, of a request or a response, without its role."""
    calls = [_build_tool_call(part, own=own) for part in parts if isinstance(part, ToolCall)]
    if own:
        calls += [part.data for part in parts if isinstance(part, Opaque)]
    texts = [part for part in parts if isinstance(part, Text)]
    built: dict[str, Any] = {"content": build_content(texts, own=own) if texts else None}
    thinking = "".join(part.text for part in parts if isinstance(part, Thinking))
    if thinking and own:
        built["reasoning_content"] = thinking
    if calls:
        built["tool_calls"] = calls
    return built


def _build_tool_call(call: ToolCall, *, own: bool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": call.id, "type": "function", "function": function, **(call.extra if own else {})}


def build_content(parts: Iterable[Part], *, own: bool) -> str | list[dict[str, Any]]:
    """Content: a plain string where it is one text, since not every server takes a list."""
    built = [block for part in parts if (block := _build_part(part, own=own)) is not None]
    if not built:
        return ""
    only = built[0] if len(built) == 1 else {}
    return only["text"] if set(only) == {"type", "text"} else built


def _build_part(part: Part, *, own: bool) -> dict[str, Any] | None:
    extra: dict[str, Any] = part.extra if own and not isinstance(part, Opaque) else {}
    match part:
        case Text():
            return {"type": "text", "text": part.text, **extra}
        case Media(kind="document", text=str(text)):
            return {"type": "text", "text": f"{part.title}\n\n{text}" if part.title else text}
        case Media(kind="image"):
            detail = absent_if_none(detail=extra.get("detail"))
            return {"type": "image_url", "image_url": {"url": url_of(part, "image/png"), **detail}}
        case Media(kind="audio"):
            sound = {"data": part.data or "", "format": (part.media_type or "audio/wav").rpartition("/")[2]}
            return {"type": "input_audio", "input_audio": sound, **extra}
        case Media(kind="document"):
            return {"type": "file", "file": _build_file(part), **extra}
        case Media():
            raise ValidationError(f"OpenAI Chat Completions cannot carry {part.kind}")
        case Opaque():
            return dict(part.data) if own else None
        case _:
            return None


def _build_file(part: Media) -> dict[str, Any]:
    if part.url is not None:
        raise ValidationError("OpenAI Chat Completions cannot carry a document by URL")
    data = None if part.data is None else url_of(part, "application/pdf")
    return absent_if_none(file_data=data, file_id=part.file_id, filename=part.title)
