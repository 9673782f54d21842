"""BinaryPack, the format of PeerJS's data: MessagePack's idea with other tags, in both directions.

As in JavaScript there is one kind of number: one without a fraction arrives as `int`. ``undefined`` arrives as None.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from typing import Any, cast

from computeragent.errors import PeerMessageError

DEPTH = 100  # of lists and objects in each other
MAX_ITEMS = 1_000_000  # in all lists and objects of a message: each takes far more memory than the byte it came as
_EXACT = 2**53  # whole numbers up to here are exact in JavaScript
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CONSTANTS: dict[int, Any] = {0xC0: None, 0xC1: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_INTEGERS = (  # the first that a number fits into is its form
    (0xCC, 0, 0xFF),
    (0xD0, -0x80, 0x7F),
    (0xCD, 0, 0xFFFF),
    (0xD1, -0x8000, 0x7FFF),
    (0xCE, 0, 0xFFFF_FFFF),
    (0xD2, -(2**31), 2**31 - 1),
    (0xD3, -(2**63), 2**63 - 1),
    (0xCF, 0, 2**64 - 1),
)
# The tag of up to 15 elements, and those with 16 and 32 bits of length.
_MAP, _ARRAY, _BYTES, _STRING = (0x80, 0xDE, 0xDF), (0x90, 0xDC, 0xDD), (0xA0, 0xDA, 0xDB), (0xB0, 0xD8, 0xD9)
_SIZED = {tags[0]: tags[0] for tags in (_MAP, _ARRAY, _BYTES, _STRING)} | {
    tag: tags[0] for tags in (_MAP, _ARRAY, _BYTES, _STRING) for tag in tags[1:]
}
_LONG_SIZES = frozenset((0xD9, 0xDB, 0xDD, 0xDF))


def pack(value: Any) -> bytes:
    """Encode None, booleans, numbers, text, bytes, lists, tuples and mappings with text or whole numbers as keys.

    Lone surrogates become U+FFFD. Raises `PeerMessageError` for any other value, and for one nested too deep.
    """
    parts: list[bytes] = []
    _pack(value, parts, 0)
    return b"".join(parts)


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Decode one value. Raises `PeerMessageError` for bytes that are not exactly one."""
    reader = _Reader(bytes(data))
    value = reader.value(0)
    if reader.left():
        raise PeerMessageError(f"{reader.left()} bytes follow a BinaryPack value")
    return value


def _pack(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > DEPTH:
        raise PeerMessageError(f"a message is nested more than {DEPTH} deep")
    match value:
        case None:
            parts.append(b"\xc0")
        case bool():
            parts.append(b"\xc3" if value else b"\xc2")
        case int():
            parts.append(_integer(value))
        case float():
            # JavaScript's decoder has no zero as a double; its own encoder never sends a whole number as one.
            whole = value.is_integer() and abs(value) < _EXACT
            parts.append(_integer(int(value)) if whole else struct.pack(">Bd", 0xCB, value))
        case str():
            encoded = _LONE_SURROGATE.sub("\ufffd", value).encode()
            parts += (_head(_STRING, len(encoded)), encoded)
        case bytes() | bytearray() | memoryview():
            raw = bytes(cast("bytes", value))
            parts += (_head(_BYTES, len(raw)), raw)
        case list() | tuple():
            items = cast("list[Any]", value)
            parts.append(_head(_ARRAY, len(items)))
            for item in items:
                _pack(item, parts, depth + 1)
        case dict():
            _pack_items(cast("dict[Any, Any]", value).items(), len(cast("dict[Any, Any]", value)), parts, depth)
        case _:
            raise PeerMessageError(
                f"a {type(value).__name__} cannot be sent to a peer",
                hint="Send None, booleans, numbers, text, bytes, lists and dicts of them.",
            )


def _pack_items(items: Iterable[tuple[Any, Any]], count: int, parts: list[bytes], depth: int) -> None:
    parts.append(_head(_MAP, count))
    for key, item in items:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise PeerMessageError(f"a {type(key).__name__} cannot be a key of an object that is sent to a peer")
        _pack(str(key), parts, depth + 1)
        _pack(item, parts, depth + 1)


def _integer(value: int) -> bytes:
    if -0x20 <= value <= 0x7F:
        return struct.pack(">B", value & 0xFF)
    if -_EXACT < value < -(2**31):  # JavaScript's decoder loses the low bits of a negative int64
        return struct.pack(">Bd", 0xCB, value)
    for tag, low, high in _INTEGERS:
        if low <= value <= high:
            return struct.pack(">B", tag) + struct.pack(_NUMBERS[tag], value)
    raise PeerMessageError("a whole number of more than 64 bits cannot be sent to a peer")


def _head(tags: tuple[int, int, int], size: int) -> bytes:
    if size <= 0x0F:
        return struct.pack(">B", tags[0] + size)
    if size <= 0xFFFF:
        return struct.pack(">BH", tags[1], size)
    if size <= 0xFFFF_FFFF:
        return struct.pack(">BI", tags[2], size)
    raise PeerMessageError("a message to a peer is larger than 4 GB")


class _Reader:
    """A place in bytes that may be anything."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._items = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> Any:
        if depth > DEPTH:
            raise PeerMessageError(f"a message is nested more than {DEPTH} deep")
        tag = self._take(1)[0]
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self._number(_NUMBERS[tag])
        if tag < 0xC0:
            return self._sized(tag & 0xF0, tag & 0x0F, depth)
        if tag in _SIZED:
            size = int.from_bytes(self._take(4 if tag in _LONG_SIZES else 2))
            return self._sized(_SIZED[tag], size, depth)
        raise PeerMessageError(f"BinaryPack has no tag 0x{tag:02x}")

    def _take(self, size: int) -> bytes:
        if size > self.left():
            raise PeerMessageError("a BinaryPack message ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, form: str) -> int | float:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        if isinstance(number, float) and math.isfinite(number) and number.is_integer() and abs(number) < _EXACT:
            return int(number)
        return number

    def _sized(self, kind: int, size: int, depth: int) -> Any:
        if kind == _BYTES[0]:
            return self._take(size)
        if kind == _STRING[0]:
            try:
                return self._take(size).decode()
            except UnicodeDecodeError as error:
                raise PeerMessageError("a BinaryPack text is not UTF-8") from error
        if size * (1 if kind == _ARRAY[0] else 2) > self.left():  # before room is made for it
            raise PeerMessageError("a BinaryPack message ends too early")
        self._items += size
        if self._items > MAX_ITEMS:
            raise PeerMessageError(f"a message has more than {MAX_ITEMS} elements")
        if kind == _ARRAY[0]:
            return [self.value(depth + 1) for _ in range(size)]
        return dict(self._item(depth + 1) for _ in range(size))

    def _item(self, depth: int) -> tuple[str, Any]:
        key = self.value(depth)
        if isinstance(key, (bool, float)) or not isinstance(key, (str, int)):
            raise PeerMessageError("a key of a BinaryPack object is neither text nor a whole number")
        return str(key), self.value(depth)
