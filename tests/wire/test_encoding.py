"""JSON bytes for the wire: always UTF-8, always one line."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.wire.encoding import clean_json, from_json, one_line, to_json
from computeragent.wire.requests import UserInput

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def scrubbed(value):
    """What a value is once every lone surrogate has become U+FFFD, by Python's own codecs."""
    if isinstance(value, str):
        return "".join("�" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {scrubbed(key): scrubbed(item) for key, item in value.items()}
    return value


@given(JSON)
def test_any_value_is_encoded_and_comes_back_with_its_lone_surrogates_replaced(value):
    assert from_json(to_json(value)) == scrubbed(value)


@given(JSON)
def test_cleaned_json_is_what_python_reads_with_its_lone_surrogates_replaced(value):
    escaped = json.dumps(value).encode()  # spells every surrogate as \udxxx, pairs of them for what is above U+FFFF
    assert from_json(clean_json(escaped)) == scrubbed(json.loads(escaped))


def test_an_escaped_backslash_before_a_u_is_no_surrogate():
    assert clean_json(rb'"\\ud800"') == rb'"\\ud800"'
    assert clean_json(rb'"\\\ud800"') == rb'"\\\ufffd"'


def test_pairs_stay_and_what_is_half_a_pair_goes():
    assert clean_json(rb'"\ud83d\ude00\ud83d"') == rb'"\ud83d\ude00\ufffd"'
    assert clean_json(rb'"\uDE00\uD83D\uDE00"') == rb'"\ufffd\uD83D\uDE00"'


def test_structs_are_scrubbed_too():
    assert to_json(UserInput(content="a\ud800")) == '{"content":"a�","role":"user"}'.encode()


def test_what_json_cannot_express_is_a_type_error():
    with pytest.raises(TypeError):
        to_json({"value": object()})


def test_json_over_several_lines_becomes_one_line():
    assert one_line(b'{\r\n "a": "x\\ny",\n "b": [1,\n2]}') == b'{"a":"x\\ny","b":[1,2]}'
    assert one_line(b'{"a": 1}') == b'{"a": 1}'


@pytest.mark.parametrize("junk", [b"", b"not json", b'{"a":1} x', b'{"a"\n:'])
def test_what_is_no_json_is_refused(junk: bytes):
    with pytest.raises(msgspec.DecodeError):
        one_line(junk)
