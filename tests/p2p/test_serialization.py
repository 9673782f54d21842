"""Values as frames of a data channel, and frames of anybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.errors import PeerMessageError, ValidationError
from computeragent.p2p.binarypack import pack, unpack
from computeragent.p2p.chunks import CHUNK, MAX_PARTIAL, MAX_WAIT, Joiner
from computeragent.p2p.serialization import MAX_FRAME, Signal, serialization

LIMIT = 1_000_000


def binary(limit: int = LIMIT) -> Any:
    return serialization("binary", limit)


def read_all(reader: Any, frames: Iterator[bytes] | list[bytes]) -> list[Any]:
    return [value for frame in frames if (value := reader.read(frame)) is not Signal.INCOMPLETE]


def piece(n: int = 0, total: int = 2, data: Any = b"x", number: Any = 1) -> bytes:
    return pack({"__peerData": number, "n": n, "total": total, "data": data})


def test_a_small_message_is_one_frame_and_a_large_one_is_pieces_of_16300_bytes() -> None:
    assert list(binary().frames("x" * 16_000)) == [pack("x" * 16_000)]
    frames = list(binary().frames("x" * 40_000))
    assert [len(unpack(frame)["data"]) for frame in frames] == [CHUNK, CHUNK, 40_003 - 2 * CHUNK]
    assert [(unpack(frame)["n"], unpack(frame)["total"]) for frame in frames] == [(0, 3), (1, 3), (2, 3)]


@given(st.permutations(range(12)))
def test_pieces_of_several_messages_join_in_any_order(order: list[int]) -> None:
    sender, reader = binary(), binary()
    messages = [{"text": letter * 60_000} for letter in "abc"]
    frames = [frame for message in messages for frame in sender.frames(message)]
    assert len(frames) == 12
    joined = read_all(reader, [frames[n] for n in order])
    assert sorted(joined, key=lambda message: message["text"]) == messages


@pytest.mark.parametrize(
    "malformed",
    [
        [piece(n=2)],
        [piece(n=-1)],
        [piece(total=0)],
        [piece(n="0")],  # type: ignore[arg-type]
        [piece(data="text")],
        [piece(data=b"")],
        [piece(number="one")],
        [piece(number=True)],
        [piece(), piece()],
        [piece(), piece(n=1, total=3)],
        [piece(total=10**9)],
        [piece(), piece(n=1, data=b"\xd4")],
        [piece(total=1, data=piece())],
        [b"\xd4"],
        ["text"],
    ],
)
def test_malformed_pieces_are_an_error(malformed: list[Any]) -> None:
    reader = binary()
    with pytest.raises(PeerMessageError):
        read_all(reader, malformed)


def test_what_incomplete_messages_hold_is_bounded() -> None:
    numbers = [(number, n) for number in range(1, MAX_PARTIAL) for n in range(10)]
    frames = [piece(n=n, total=11, data=b"x" * CHUNK, number=number) for number, n in numbers]
    assert read_all(binary(), frames[: LIMIT // CHUNK]) == []
    with pytest.raises(PeerMessageError, match="larger than"):
        read_all(binary(), frames[: LIMIT // CHUNK + 1])


def test_how_many_messages_are_incomplete_is_bounded() -> None:
    frames = [piece(number=number) for number in range(1, MAX_PARTIAL + 2)]
    assert read_all(binary(), frames[:-1]) == []
    with pytest.raises(PeerMessageError, match="incomplete"):
        read_all(binary(), frames)


def test_the_rest_of_a_message_is_not_waited_for_for_ever() -> None:
    now = 0.0
    joiner = Joiner(LIMIT, clock=lambda: now)
    first = {"__peerData": 1, "n": 0, "total": 3, "data": b"a"}
    assert joiner.add(first) is None
    now = MAX_WAIT - 1
    assert joiner.add({**first, "n": 1}) is None
    now = 2 * MAX_WAIT - 2
    assert joiner.add({**first, "n": 2}) == b"aaa"
    joiner.add(first)
    now += MAX_WAIT + 1
    with pytest.raises(PeerMessageError, match="never came"):
        joiner.add({**first, "__peerData": 2})


def test_joined_messages_free_their_room() -> None:
    sender, reader = binary(), binary()
    for _ in range(5):
        assert read_all(reader, sender.frames("x" * 900_000)) == ["x" * 900_000]


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(PeerMessageError, match="larger than"):
        binary().frames("x" * LIMIT)


def test_json_is_bytes_of_utf8() -> None:
    codec = serialization("json", LIMIT)
    assert list(codec.frames({"a": "é"})) == ['{"a":"é"}'.encode()]
    assert codec.read('{"a":"é"}'.encode()) == {"a": "é"}
    assert codec.read('"text frame"') == "text frame"
    for malformed in (b"{", b"\xff", "nope", b"[" * 100_000):
        with pytest.raises(PeerMessageError):
            codec.read(malformed)
    for value in (object(), {"a": "x" * MAX_FRAME}):
        with pytest.raises(PeerMessageError):
            codec.frames(value)


def test_raw_is_text_and_bytes_as_they_are() -> None:
    codec = serialization("raw", LIMIT)
    assert list(codec.frames("text")) == ["text"]
    assert list(codec.frames(bytearray(b"bytes"))) == [b"bytes"]
    assert codec.read("text") == "text"
    for value in (1, {"a": 1}, "é" * (MAX_FRAME // 2 + 1)):
        with pytest.raises(PeerMessageError):
            codec.frames(value)


def test_the_other_side_may_say_that_it_closes() -> None:
    close = {"__peerData": {"type": "close"}}
    assert binary().read(pack(close)) is Signal.CLOSE
    assert serialization("json", LIMIT).read(b'{"__peerData":{"type":"close"}}') is Signal.CLOSE


def test_a_name_that_is_no_serialization_is_an_error() -> None:
    with pytest.raises(ValidationError, match="yaml"):
        serialization("yaml", LIMIT)
