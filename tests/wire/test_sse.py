"""Server-sent events: whatever the chunks, the frames are the same."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.wire.sse import HEARTBEAT, Frame, SseDecoder, encode_frame

VALUES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=20)
FRAMES = st.lists(st.tuples(st.sampled_from(["sdk_message", "ca_session_ended"]), VALUES), max_size=6)


def frames_of(*chunks: bytes) -> list[Frame]:
    decoder = SseDecoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_a_frame_has_its_lines_in_order_and_lf_alone():
    assert encode_frame("sdk_message", 7, b'{"a":1}') == b'event: sdk_message\nid: 7\ndata: {"a":1}\n\n'


def test_a_kind_cannot_smuggle_in_lines():
    assert frames_of(encode_frame("x\nid: 99\ndata: y", 1, b"{}")) == [Frame("{}", "x id: 99 data: y", "1")]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_chunking_and_any_line_end_give_the_same_frames(items, cuts, line_end):
    sent = [(kind, json.dumps({"text": text}).encode()) for kind, text in items]
    stream = b"".join(HEARTBEAT + encode_frame(kind, n, data) for n, (kind, data) in enumerate(sent))
    stream = stream.replace(b"\n", line_end)
    expected = [Frame(data.decode(), kind, str(n)) for n, (kind, data) in enumerate(sent)]
    assert frames_of(*split(stream, cuts)) == expected
    assert frames_of(*(bytes([byte]) for byte in stream)) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_in_any_chunks_are_read_the_same_and_never_raise(data, cuts):
    assert frames_of(*split(data, cuts)) == frames_of(data)


def test_data_over_several_lines_is_joined():
    assert frames_of(b"data: a\ndata:b\ndata\n\n") == [Frame("a\nb\n")]


def test_a_frame_is_complete_at_once_when_its_last_byte_is_a_cr():
    decoder = SseDecoder()
    assert decoder.feed(b"data: x\r\n\r") == [Frame("x")]
    assert decoder.feed(b"\ndata: y\r\n\r\n") == [Frame("y")]


def test_the_id_is_the_last_one_named():
    assert frames_of(b"id: 4\ndata: a\n\ndata: b\n\n") == [Frame("a", id="4"), Frame("b", id="4")]


def test_comments_unknown_fields_and_frames_without_data_are_nothing():
    assert frames_of(b": hi\nretry: 5\nwhat: x\n\nevent: lonely\n\ndata: a\n\n") == [Frame("a")]


def test_a_byte_order_mark_is_not_part_of_the_stream():
    assert frames_of(b"\xef\xbb", b"\xbfdata: a\n\n") == [Frame("a")]


def test_an_id_with_a_nul_is_ignored():
    assert frames_of(b"id: 1\nid: 2\0\ndata: a\n\n") == [Frame("a", id="1")]


def test_an_unfinished_frame_is_not_given():
    assert frames_of(b"data: a\n") == []


def test_a_frame_beyond_the_bound_is_refused_whether_it_is_one_line_or_many():
    for chunks in ([b"data: " + b"x" * 60] * 2, [b"data: " + b"x" * 30 + b"\n"] * 3):
        decoder = SseDecoder(max_frame=100)
        *held, too_much = chunks
        assert [decoder.feed(chunk) for chunk in held] == [[]] * len(held)
        with pytest.raises(ValueError, match="a server-sent event is larger than 100 bytes"):
            decoder.feed(too_much)


def test_the_bound_is_on_one_frame_not_on_the_stream():
    decoder = SseDecoder(max_frame=100)
    for _ in range(50):
        assert decoder.feed(b": a comment of some length\n") == []
        assert decoder.feed(b"data: " + b"x" * 50 + b"\n\n") == [Frame("x" * 50)]


def test_a_big_frame_in_small_chunks_costs_no_more_than_its_size():
    decoder = SseDecoder()
    chunk = b"x" * 1024
    decoder.feed(b"data: ")
    for _ in range(16 * 1024):  # 16 MB: with a copy of the buffer per chunk this would be 128 GB of copying
        decoder.feed(chunk)
    (frame,) = decoder.feed(b"\n\n")
    assert len(frame.data) == 16 * 1024 * 1024
