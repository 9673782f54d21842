"""Images and files as OpenAI's wires carry them: one URL, which holds the bytes themselves or says where they are."""

from __future__ import annotations

import re

from computeragent.dialects.model import Media
from computeragent.errors import ValidationError

_DATA_URL = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)


def split_data_url(url: str) -> tuple[str | None, str | None]:
    """The media type and the base64 text of a data URL; (None, None) for any other URL."""
    match = _DATA_URL.fullmatch(url)
    return (match[1] or None, match[2]) if match else (None, None)


def url_of(part: Media, fallback: str) -> str:
    """The URL of an image or file; `fallback` is the media type where none is known.

    Raises `ValidationError` for one that the provider keeps under an id.
    """
    if part.data is not None:
        return f"data:{part.media_type or fallback};base64,{part.data}"
    if part.url is None:
        raise ValidationError(f"this wire cannot carry an {part.kind} by file id")
    return part.url
