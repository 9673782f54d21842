"""AWS event-stream framing (`application/vnd.amazon.eventstream`), both directions, after the Smithy specification.

A message is: total length, header length, CRC32 of those eight bytes; headers; payload; CRC32 of all before it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from msgspec import Struct

from computeragent.errors import ValidationError

_PRELUDE = struct.Struct(">III")
_STRING = 7
# Header types other than strings are skipped: what follows the type byte, in bytes (None: a two-byte length first).
_SIZES: dict[int, int | None] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: None, 7: None, 8: 8, 9: 16}


class EventMessage(Struct, frozen=True):
    """One message: its string headers (`:event-type`, `:message-type`, ...) and its payload."""

    headers: dict[str, str]
    payload: bytes


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message with string headers."""
    encoded = b"".join(_encode_header(name, value) for name, value in headers.items())
    lengths = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _encode_header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + bytes([_STRING]) + struct.pack(">H", len(text)) + text


class EventStreamDecoder:
    """Incremental decoder: feed bytes, get messages. `max_message` bounds one message in bytes.

    Raises `ValidationError` for a wrong checksum, a wrong length or a message past the bound.
    """

    def __init__(self, max_message: int = 16 * 1024 * 1024) -> None:
        self._buffer = bytearray()
        self._max = max_message

    def feed(self, chunk: bytes) -> Iterator[EventMessage]:
        """Yield each message that `chunk` completes."""
        self._buffer += chunk
        while len(self._buffer) >= _PRELUDE.size:
            total, headers_size, checksum = _PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != checksum:
                raise ValidationError("event stream: wrong checksum of a message's lengths")
            if total > self._max or headers_size + 16 > total:
                raise ValidationError(f"event stream: impossible message length {total}")
            if len(self._buffer) < total:
                return
            message = bytes(self._buffer[:total])
            del self._buffer[:total]
            yield _decode(message, headers_size)


def _decode(message: bytes, headers_size: int) -> EventMessage:
    if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
        raise ValidationError("event stream: wrong checksum of a message")
    start = _PRELUDE.size
    return EventMessage(_decode_headers(message[start : start + headers_size]), message[start + headers_size : -4])


def _decode_headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            size = _SIZES[kind]
            if size is None:
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
            if kind == _STRING:
                headers[name] = data[at : at + size].decode()
            at += size
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValidationError(f"event stream: unreadable headers: {error}") from error
    return headers
