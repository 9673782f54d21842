"""Large BinaryPack messages in pieces: PeerJS sends no more than 16,300 bytes at once, and the order may be any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from computeragent.errors import PeerMessageError
from computeragent.p2p.binarypack import pack

CHUNK = 16_300  # bytes of data in a piece
MAX_PARTIAL = 16  # messages of one peer of which some pieces are still missing
MAX_WAIT = 60.0  # seconds from one piece of a message to its next


def pieces(packed: bytes, number: int) -> Iterator[bytes]:
    """The packets that carry a packed message: itself, or its pieces under a number unique to the connection."""
    if len(packed) <= CHUNK:
        yield packed
        return
    total = -(-len(packed) // CHUNK)
    for n in range(total):
        data = packed[n * CHUNK : (n + 1) * CHUNK]
        yield pack({"__peerData": number, "n": n, "total": total, "data": data})


class Joiner:
    """Puts pieces together again, in whatever order they come.

    Holds `limit` bytes at most, over all messages that are not complete, and gives up a message of which nothing has
    come for a minute: both raise `PeerMessageError`, as does a piece that cannot be right.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._partial: dict[int, _Partial] = {}
        self._size = 0

    def add(self, piece: dict[str, Any]) -> bytes | None:
        """Take a piece; the packed message, once it is complete."""
        number, n, total, data = (piece.get(key) for key in ("__peerData", "n", "total", "data"))
        if not (_is_count(number) and _is_count(n) and _is_count(total) and isinstance(data, bytes) and data):
            raise PeerMessageError("a piece of a message is malformed")
        number, n, total = cast("int", number), cast("int", n), cast("int", total)
        self._require_all_alive()
        partial = self._partial.get(number)
        if partial is None:
            if len(self._partial) >= MAX_PARTIAL:
                raise PeerMessageError(f"more than {MAX_PARTIAL} messages of a peer are incomplete")
            if total * CHUNK > self._limit + CHUNK:
                raise PeerMessageError(f"a message of a peer is larger than {self._limit} bytes")
            partial = self._partial[number] = _Partial(total, self._clock())
        if total != partial.total or n >= total or n in partial.pieces:
            raise PeerMessageError("a piece of a message does not fit the others")
        self._size += len(data)
        if self._size > self._limit:
            raise PeerMessageError(f"incomplete messages of a peer are larger than {self._limit} bytes")
        partial.pieces[n] = data
        partial.heard = self._clock()
        if len(partial.pieces) < total:
            return None
        del self._partial[number]
        whole = b"".join(partial.pieces[n] for n in range(total))
        self._size -= len(whole)
        return whole

    def _require_all_alive(self) -> None:
        if any(self._clock() - partial.heard > MAX_WAIT for partial in self._partial.values()):
            raise PeerMessageError("the rest of a message of a peer never came")


class _Partial:
    def __init__(self, total: int, heard: float) -> None:
        self.total = total
        self.heard = heard
        self.pieces: dict[int, bytes] = {}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
