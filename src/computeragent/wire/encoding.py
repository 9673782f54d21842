"""JSON bytes for the wire: one encoder, and lone surrogates become U+FFFD instead of an error."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# In JSON text: an escaped surrogate that is not half of a pair. The leading group keeps an escaped backslash apart.
_LONE_ESCAPE = re.compile(
    rb"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|"
    rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def to_json(value: Any) -> bytes:
    """Encode `value` as one line of UTF-8 JSON.

    Lone surrogates, which Python strings may hold and UTF-8 may not, become U+FFFD.
    Raises `TypeError` for a value that JSON cannot express.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_scrub(value))


def from_json(data: bytes | bytearray | str) -> Any:
    """Decode JSON text to plain Python values. Raises `msgspec.DecodeError` when it is not JSON."""
    return _decoder.decode(data)


def clean_json(data: bytes) -> bytes:
    r"""JSON text with escaped lone surrogates (``\ud800``) replaced by ``\ufffd``; anything else as it is."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    return _LONE_ESCAPE.sub(_keep_pairs, data)


def one_line(data: bytes) -> bytes:
    """JSON text without line breaks between its tokens. Raises `msgspec.DecodeError` when it is not JSON."""
    if b"\n" in data or b"\r" in data:
        return msgspec.json.format(data, indent=-1)
    msgspec.json.decode(data, type=msgspec.Raw)
    return data


def _keep_pairs(match: re.Match[bytes]) -> bytes:
    if match.group(2) is not None:
        return match.group(0)
    return match.group(3) + rb"\ufffd"


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_scrub(item) for item in cast("list[Any]", value)]
    if isinstance(value, msgspec.Struct):
        return _scrub(msgspec.to_builtins(value))
    return value
