"""BinaryPack: what the JavaScript packer makes, both ways, and bytes of anybody."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.errors import PeerMessageError
from computeragent.p2p.binarypack import DEPTH, pack, unpack

# Made by peerjs-js-binarypack 2.1.0.
VECTORS: list[tuple[Any, str]] = [
    (None, "c0"),
    (True, "c3"),
    (False, "c2"),
    (0, "00"),
    (127, "7f"),
    (-1, "ff"),
    (-32, "e0"),
    (128, "cc80"),
    (-33, "d0df"),
    (-128, "d080"),
    (256, "cd0100"),
    (-129, "d1ff7f"),
    (65536, "ce00010000"),
    (-32769, "d2ffff7fff"),
    (2**32, "d30000000100000000"),
    (1.5, "cb3ff8000000000000"),
    (-0.1, "cbbfb999999999999a"),
    ("", "b0"),
    ("hé", "b368c3a9"),
    ("a" * 16, "d80010" + "61" * 16),
    (b"", "a0"),
    (b"\x01\x02", "a20102"),
    (b"\x00" * 16, "da0010" + "00" * 16),
    ([], "90"),
    ([1, [2]], "92019102"),
    (list(range(16)), "dc0010" + bytes(range(16)).hex()),
    ({}, "80"),
    ({"a": 1}, "81b16101"),
    ({f"{n:x}": n for n in range(16)}, "de0010" + "".join(f"b1{ord(f'{n:x}'):02x}{n:02x}" for n in range(16))),
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@pytest.mark.parametrize(("value", "packed"), VECTORS, ids=[packed[:24] for _, packed in VECTORS])
def test_the_bytes_are_those_of_javascript(value: Any, packed: str) -> None:
    assert pack(value).hex() == packed
    assert unpack(bytes.fromhex(packed)) == value


@given(VALUES)
def test_what_is_packed_is_unpacked(value: Any) -> None:
    assert unpack(pack(value)) == value


@pytest.mark.parametrize("size", [15, 16, 65535, 65536, 300_000])
def test_every_length_has_its_tag(size: int) -> None:
    for value in ("x" * size, b"x" * size, [1] * size, {str(n): None for n in range(size)}):
        assert unpack(pack(value)) == value


def test_numbers_are_those_of_javascript() -> None:
    """Its decoder knows neither zero nor a negative 64-bit integer exactly; it never has to."""
    assert pack(0.0) == pack(0)
    assert pack(-0.0) == pack(0)
    assert pack(2.0) == pack(2)
    assert pack(-(2**40) - 1)[0] == 0xCB
    assert unpack(pack(-(2**40) - 1)) == -(2**40) - 1
    assert isinstance(unpack(pack(-(2**40) - 1)), int)
    assert math.isnan(unpack(pack(math.nan)))
    assert unpack(pack(-math.inf)) == -math.inf


def test_what_else_javascript_sends_is_understood() -> None:
    assert unpack(b"\xc1") is None  # undefined
    assert unpack(b"\xca\x3f\x80\x00\x00") == 1  # a float32
    assert unpack(b"\xcf" + b"\xff" * 8) == 2**64 - 1
    assert unpack(b"\x81\x05\xb1a") == {"5": "a"}


def test_tuples_views_and_whole_number_keys_are_sent() -> None:
    assert unpack(pack((1, bytearray(b"a"), memoryview(b"b"), {1: "x"}))) == [1, b"a", b"b", {"1": "x"}]


def test_lone_surrogates_become_replacement_characters() -> None:
    assert unpack(pack("a\ud800b")) == "a\ufffdb"


def test_what_cannot_be_sent_is_an_error() -> None:
    itself: list[Any] = []
    itself.append(itself)
    for value in (object(), {1.5: 1}, {None: 1}, {True: 1}, 2**64, -(2**63) - 1, {1, 2}, itself):
        with pytest.raises(PeerMessageError):
            pack(value)


@given(VALUES, st.data())
def test_a_message_that_is_cut_is_an_error(value: Any, data: Any) -> None:
    packed = pack(value)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(PeerMessageError):
        unpack(packed[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(PeerMessageError):
        unpack(data)


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        b"\xd4",  # no tag
        b"\xc0\xc0",  # two values
        b"\xb1\xff",  # not UTF-8
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffabc",
        b"\x81\x90\x01",  # a list as a key
        b"\x81\xc0\x01",
        b"\x91" * (DEPTH + 2) + b"\x01",
        b"\x91" * 100_000,
        b"\xdd\x00\x1e\x84\x80" + b"\xc0" * 2_000_000,  # small for what it would become
    ],
    ids=lambda data: data[:8].hex() or "empty",
)
def test_malformed_bytes_are_an_error(malformed: bytes) -> None:
    with pytest.raises(PeerMessageError):
        unpack(malformed)
