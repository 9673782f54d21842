"""The three ways in which PeerJS puts a value on a data channel: `binary` (BinaryPack, any size), `json`, `raw`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Protocol, cast

import msgspec

from computeragent.errors import PeerMessageError, ValidationError
from computeragent.p2p.binarypack import pack, unpack
from computeragent.p2p.chunks import Joiner, pieces
from computeragent.wire.encoding import from_json, to_json

MAX_FRAME = 262_144  # bytes: what WebRTC stacks take in one message; `json` and `raw` cannot be split


class Signal(Enum):
    """What a frame may be instead of a message."""

    INCOMPLETE = "a piece of a message"
    CLOSE = "the other side has sent everything and closes"


class Serialization(Protocol):
    """One side of one connection. What comes in is anybody's bytes: `PeerMessageError` when they are malformed."""

    def frames(self, value: Any) -> Iterator[bytes | str]:
        """What goes over the channel for a value; `PeerMessageError` for one that cannot."""
        ...

    def read(self, frame: bytes | str) -> Any:
        """The value that a frame completes, or a `Signal`."""
        ...


class Binary:
    """BinaryPack; what is larger than 16,300 bytes goes in pieces. The default of PeerJS."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._joiner = Joiner(limit)
        self._sent = 0

    def frames(self, value: Any) -> Iterator[bytes | str]:
        """One packet, or the pieces of a large message."""
        packed = pack(value)
        if len(packed) > self._limit:
            raise PeerMessageError(f"a message of {len(packed)} bytes is larger than {self._limit}")
        self._sent += 1
        return pieces(packed, self._sent)

    def read(self, frame: bytes | str) -> Any:
        """Text is not BinaryPack."""
        if isinstance(frame, str):
            raise PeerMessageError("a peer sent text over a binary connection")
        value = unpack(frame)
        if not _is_internal(value):
            return value
        if _is_close(value):
            return Signal.CLOSE
        whole = self._joiner.add(value)
        if whole is None:
            return Signal.INCOMPLETE
        value = unpack(whole)
        if _is_internal(value):
            raise PeerMessageError("the pieces of a message are a piece themselves")
        return value


class Json:
    """JSON in UTF-8 bytes, up to 256 KB. The JavaScript client refuses to send 16,300 bytes or more of it."""

    def frames(self, value: Any) -> Iterator[bytes | str]:
        """One frame."""
        try:
            encoded = to_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise PeerMessageError(f"a message is not JSON: {error}") from error
        return iter((_within(encoded),))

    def read(self, frame: bytes | str) -> Any:
        """Text frames are taken, too."""
        try:
            value = from_json(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise PeerMessageError(f"a peer sent what is not JSON: {error}") from error
        return Signal.CLOSE if _is_internal(value) and _is_close(value) else value


class Raw:
    """Text and bytes as they are, up to 256 KB."""

    def frames(self, value: Any) -> Iterator[bytes | str]:
        """One frame."""
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        elif isinstance(value, (bytearray, memoryview)):
            value = bytes(cast("bytes", value))
        elif not isinstance(value, bytes):
            raise PeerMessageError(f"a raw connection takes text or bytes, not {type(value).__name__}")
        return iter((_within(value),))

    def read(self, frame: bytes | str) -> Any:
        """The frame."""
        return frame


NAMES = ("binary", "binary-utf8", "json", "raw")  # as PeerJS knows them; the second is the first


def serialization(name: str, limit: int) -> Serialization:
    """The serialization of a name, for messages of up to `limit` bytes. Raises `ValidationError` for another name."""
    match name:
        case "binary" | "binary-utf8" | "default":
            return Binary(limit)
        case "json":
            return Json()
        case "raw":
            return Raw()
        case _:
            raise ValidationError(f"there is no serialization {name[:40]!r}", hint="Use binary, json or raw.")


def _within(frame: bytes | str) -> bytes | str:
    size = len(frame.encode()) if isinstance(frame, str) else len(frame)
    if size > MAX_FRAME:
        raise PeerMessageError(
            f"a message of {size} bytes is larger than the {MAX_FRAME} that a connection of this serialization takes",
            hint='Connect with serialization="binary", which sends large messages in pieces.',
        )
    return frame


def _is_internal(value: Any) -> bool:
    return isinstance(value, dict) and bool(cast("dict[str, Any]", value).get("__peerData"))


def _is_close(value: dict[str, Any]) -> bool:
    data = value["__peerData"]
    return isinstance(data, dict) and cast("dict[str, Any]", data).get("type") == "close"
