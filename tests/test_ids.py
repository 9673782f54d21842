"""Ids: opaque, prefixed, ordered by time; and which session ids callers may give."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.errors import InvalidSessionIdError
from computeragent.ids import PREFIXES, check_session_id, new_id


@pytest.mark.parametrize("kind", PREFIXES)
def test_an_id_is_its_prefix_and_a_uuid7(kind: str):
    value = new_id(kind)
    parsed = uuid.UUID(value.removeprefix(PREFIXES[kind]))
    assert value.startswith(PREFIXES[kind])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_of_later_milliseconds_sort_later(monkeypatch: pytest.MonkeyPatch):
    clock = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    made = []
    for _ in range(50):
        made.append(new_id("event"))
        clock[0] += 1_000_000
    assert made == sorted(made)


def test_ids_do_not_repeat():
    assert len({new_id("call") for _ in range(10_000)}) == 10_000


def test_our_own_ids_are_valid_session_ids():
    assert check_session_id(new_id("session"))


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_a_session_id_of_the_stated_form_is_taken_as_it_is(value: str):
    assert check_session_id(value) == value


@given(st.text(), st.sampled_from(["/", "\\", "\0", "\n"]), st.text())
def test_nothing_that_could_be_a_path_passes(before: str, separator: str, after: str):
    with pytest.raises(InvalidSessionIdError):
        check_session_id(before + separator + after)


@pytest.mark.parametrize(
    "value", ["../../etc/passwd", "..", ".", "", "a/b", "a\n", "x" * 129, "-rf", "é", None, 7, b"s"]
)
def test_anything_else_is_refused_in_one_line_with_a_hint(value: Any):
    with pytest.raises(InvalidSessionIdError, match=r"^session id .* is not valid$") as caught:
        check_session_id(value)
    assert (caught.value.code, caught.value.status) == ("INVALID_SESSION_ID", 400)
    assert caught.value.hint == "Use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'."
