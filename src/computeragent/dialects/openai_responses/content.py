"""The content parts of OpenAI Responses: what a message or a tool's output holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from computeragent.dialects.data_urls import split_data_url, url_of
from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.model import Media, Opaque, Part, Text
from computeragent.errors import ValidationError

SCREENSHOT = "computer_screenshot"
REFUSAL = "refusal"


def parse_content(value: Any, path: str) -> tuple[Part, ...]:
    """Content: a string, a list of parts, or nothing; an empty string is nothing."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (Text(value),)
    if not isinstance(value, list):
        raise ValidationError(f"{path}: must be a string or a list of content parts")
    return tuple(parse_part(item, f"{path}.{n}") for n, item in enumerate(cast("list[Any]", value)))


def parse_part(value: Any, path: str = "content") -> Part:
    """One content part; a part of a kind not known here is kept as `Opaque`."""
    part = Fields(value, path)
    kind = part.string("type")
    match kind:
        case "input_text" | "output_text" | "text":
            return Text(part.string("text"), _without_empty(part.rest()))
        case "refusal":
            return Text(part.string("refusal"), {"type": REFUSAL, **part.rest()})
        case "input_image" | "computer_screenshot":
            return parse_image(kind, part)
        case "input_file":
            return _parse_file(part)
        case "input_audio":
            sound = part.object("input_audio")
            if sound is None:
                raise ValidationError(f"{part.at('input_audio')}: field required")
            media_type = f"audio/{sound.string('format')}"
            return Media(kind="audio", media_type=media_type, data=sound.string("data"), extra=part.rest())
        case _:
            return Opaque(kind, part.whole())


def parse_image(kind: str, part: Fields) -> Media:
    """An image, or the screenshot that answers a computer call."""
    url, file_id = part.optional_string("image_url"), part.optional_string("file_id")
    if url is None and file_id is None:
        raise ValidationError(f"{part.at('image_url')}: field required")
    media_type, data = split_data_url(url or "")
    extra = part.rest()
    if extra.get("detail") == "auto":
        del extra["detail"]
    if kind == SCREENSHOT:
        extra["type"] = kind
    return Media(
        kind="image",
        media_type=media_type,
        data=data,
        url=url if data is None else None,
        file_id=file_id if url is None else None,
        extra=extra,
    )


def _parse_file(part: Fields) -> Media:
    text = part.optional_string("file_data")
    media_type, data = split_data_url(text or "")
    return Media(
        kind="document",
        media_type=media_type,
        data=text if data is None else data,  # some clients send the bare base64
        file_id=part.optional_string("file_id"),
        url=part.optional_string("file_url"),
        title=part.optional_string("filename"),
        extra=part.rest(),
    )


def _without_empty(extra: dict[str, Any]) -> dict[str, Any]:
    """What an output text always has, and says nothing while it is empty, is left out."""
    return {name: value for name, value in extra.items() if name not in {"annotations", "logprobs"} or value}


def build_content(parts: Iterable[Part], *, own: bool, output: bool = False) -> list[dict[str, Any]]:
    """Content parts: of the model's answer (`output`), or of what it is told."""
    return [block for part in parts if (block := build_part(part, own=own, output=output)) is not None]


def build_part(part: Part, *, own: bool, output: bool = False) -> dict[str, Any] | None:
    """One content part, or None for what this wire has no part for."""
    match part:
        case Text():
            return _build_text(part, own=own, output=output)
        case Media(kind="document", text=str(text)):
            return {"type": "input_text", "text": f"{part.title}\n\n{text}" if part.title else text}
        case Media(kind="image"):
            extra = _media_extra(part, own=own)
            return {"type": "input_image", "detail": "auto", **image_source(part), **extra}
        case Media(kind="document"):
            data = None if part.data is None else url_of(part, "application/pdf")
            place = absent_if_none(file_data=data, file_id=part.file_id, file_url=part.url, filename=part.title)
            return {"type": "input_file", **place, **_media_extra(part, own=own)}
        case Media(kind="audio"):
            sound = {"data": part.data or "", "format": (part.media_type or "audio/wav").rpartition("/")[2]}
            return {"type": "input_audio", "input_audio": sound, **_media_extra(part, own=own)}
        case Media():
            raise ValidationError(f"OpenAI Responses cannot carry {part.kind}")
        case Opaque():
            return dict(part.data) if own else None
        case _:
            return None


def _build_text(part: Text, *, own: bool, output: bool) -> dict[str, Any]:
    extra = {name: value for name, value in part.extra.items() if name != "message"} if own else {}
    if extra.get("type") == REFUSAL:
        return {"refusal": part.text, **extra}
    if output:
        return {"type": "output_text", "text": part.text, "annotations": [], **extra}
    return {"type": "input_text", "text": part.text, **extra}


def _media_extra(part: Media, *, own: bool) -> dict[str, Any]:
    return {name: value for name, value in part.extra.items() if name != "type"} if own else {}


def image_source(part: Media) -> dict[str, Any]:
    """Where an image is."""
    return {"file_id": part.file_id} if part.file_id is not None else {"image_url": url_of(part, "image/png")}


def build_text_or_content(parts: tuple[Part, ...], *, own: bool, output: bool = False) -> str | list[dict[str, Any]]:
    """Content as a plain string where it is one text and nothing else, else a list."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text) and not (own and parts[0].extra):
        return parts[0].text
    return build_content(parts, own=own, output=output)
