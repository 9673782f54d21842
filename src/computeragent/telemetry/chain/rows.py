"""The rows of a chained file, and its head. A row is one line of JSON:

``{"seq": 7, "at": "…", "event": {…}, "prev": "<hash of row 6>", "hash": "<hash of this one>"}``

The hash is the SHA-256 of the line's own bytes up to ``,"hash":``, so that ``prev`` is part of it. In place of an
``event``, rows of the chain's own have an ``audit``, signed: ``began`` (the first row), ``checkpoint`` (every
hundredth) and ``notice`` (what a writer found). The head, beside the file, is the signed place of the last committed
row.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from computeragent.telemetry.chain.key import Key
from computeragent.wire.encoding import to_json

VERSION = 1
CHECKPOINT_EVERY = 100
FIRST_PREV = "0" * 64
_HASH, _SIGNATURE = b',"hash":"', b',"signature":"'
_END = b'"}'
_HEX = 64

T = TypeVar("T")
Noticed = Literal["repaired", "truncated", "rolled_back", "replaced", "head_missing", "head_invalid"]


class Before(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The chain that was at this path before: its last row that is known of."""

    chain: str
    seq: int
    hash: str


class Own(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a row of the chain's own says. `found` and `expected` are bytes of the file."""

    kind: Literal["began", "checkpoint", "notice"]
    key: str
    version: int = 0
    chain: str = ""
    before: Before | None = None
    what: Noticed | Literal[""] = ""
    found: int = 0
    expected: int = 0
    signature: str = ""


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row without its hash; one of `event` and `audit` is there."""

    seq: int
    at: str
    event: Raw = Raw()
    audit: Own | None = None
    prev: str


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to where the file is committed: its last row, its hash, and the bytes of the file."""

    version: int
    key: str
    chain: str
    seq: int
    hash: str
    size: int


_rows = msgspec.json.Decoder(Row)
_heads = msgspec.json.Decoder(Head)


def now() -> str:
    """The time, as rows have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_row(seq: int, at: str, event: bytes, prev: str) -> tuple[bytes, str]:
    """The line of an event (JSON without line breaks), and its hash."""
    return _row(seq, at, b'"event":' + event, prev)


def own_row(seq: int, at: str, own: Own, prev: str, key: Key) -> tuple[bytes, str]:
    """The line of a row of the chain's own, signed, and its hash."""
    signed = msgspec.structs.replace(own, signature=key.sign(*_signed(seq, at, own, prev)))
    return _row(seq, at, b'"audit":' + to_json(signed), prev)


def is_signed(row: Row, key: Key) -> bool:
    """Whether a row of the chain's own is signed with this key."""
    own = row.audit
    return own is not None and key.signed(own.signature, *_signed(row.seq, row.at, own, row.prev))


def split_row(line: bytes) -> tuple[bytes, str]:
    """What of a line is hashed, and the hash that it states. Raises `ValueError` for what is no row."""
    return _split(line, _HASH)


def hash_of(body: bytes) -> str:
    """The hash of what `split_row` gives."""
    return hashlib.sha256(body).hexdigest()


def read_row(body: bytes) -> Row:
    """The row in what `split_row` gives. Raises `ValueError`."""
    row = _decoded(_rows, body)
    if (row.audit is None) == (not bytes(row.event)):
        raise ValueError("a row has an event or an audit")
    return row


def head_line(head: Head, key: Key) -> bytes:
    """The head, signed."""
    body = to_json(head)[:-1]
    return body + _SIGNATURE + key.sign(b"head", body).encode() + _END + b"\n"


def read_head(data: bytes, key: Key | None) -> Head:
    """The head in a file's bytes. Raises `ValueError` for what is none, or is not signed with the key."""
    if not data.endswith(b"\n"):
        raise ValueError("it is cut short")
    body, signature = _split(data[:-1], _SIGNATURE)
    head = _decoded(_heads, body)
    if head.version != VERSION:
        raise ValueError(f"it is of version {head.version}")
    if key is not None and not key.signed(signature, b"head", body):
        raise ValueError("its signature is not of this key" if head.key == key.id else "it is signed with another key")
    return head


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not what it should be: {error}") from None


def _row(seq: int, at: str, content: bytes, prev: str) -> tuple[bytes, str]:
    body = b'{"seq":%d,"at":"%s",%s,"prev":"%s"' % (seq, at.encode(), content, prev.encode())
    hashed = hash_of(body)
    return body + _HASH + hashed.encode() + _END + b"\n", hashed


def _signed(seq: int, at: str, own: Own, prev: str) -> tuple[bytes, ...]:
    unsigned: Any = msgspec.structs.replace(own, signature="")
    return b"row", str(seq).encode(), at.encode(), to_json(unsigned), prev.encode()


def _split(line: bytes, mark: bytes) -> tuple[bytes, str]:
    ending = len(mark) + _HEX + len(_END)
    body, rest = line[:-ending], line[-ending:]
    if not rest.startswith(mark) or not rest.endswith(_END) or not body.startswith(b"{"):
        raise ValueError("it does not end as a row does")
    stated = rest[len(mark) : -len(_END)]
    if not stated.isascii():
        raise ValueError("its hash is no hash")
    return body, stated.decode()
