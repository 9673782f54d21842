"""Whatever is changed in a chained file, `verify` names the row; whatever is cut off is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeragent.errors import ValidationError
from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.rows import CHECKPOINT_EVERY, event_row, hash_of, read_row, split_row
from computeragent.telemetry.chain.verify import Report

from .conftest import KEY, ROWS, Chained

Change = Callable[[list[bytes]], list[bytes]]
OTHERS = Key(b"another key that is long enough")


def first(report: Report) -> tuple[int, int]:
    """Line and row of the first thing that is wrong."""
    assert not report.intact
    return report.findings[0].line, report.findings[0].seq


def rows_of(data: bytes) -> list[int]:
    """To which row each byte belongs."""
    return [row for row, line in enumerate(data.splitlines(keepends=True), 1) for _ in line]


def resealed(lines: list[bytes], start: int) -> list[bytes]:
    """Rows from one on, hashed anew by somebody who has no key: numbers and links fit."""
    out = lines[:start]
    prev = split_row(out[-1][:-1])[1]
    for number, line in enumerate(lines[start:], start + 1):
        row = read_row(split_row(line[:-1])[0])
        content = bytes(row.event) if row.audit is None else msgspec.json.encode(row.audit)
        made, prev = event_row(number, row.at, content, prev)
        if row.audit is not None:
            body = split_row(made[:-1])[0].replace(b'"event":', b'"audit":', 1)
            prev = hash_of(body)
            made = body + b',"hash":"' + prev.encode() + b'"}\n'
        out.append(made)
    return out


# ── Bits ─────────────────────────────────────────────────────────────────────────────────────────────────────


def flips_are_named(chained: Chained, bits: Callable[[int], range]) -> None:
    data = chained.path.read_bytes()
    file = os.open(chained.path, os.O_RDWR)
    try:
        for place, row in enumerate(rows_of(data)):
            for bit in bits(place):
                os.pwrite(file, bytes([data[place] ^ 1 << bit]), place)
                assert first(chained.check()) == (row, row), (place, bit)
                os.pwrite(file, data[place : place + 1], place)
    finally:
        os.close(file)
    assert chained.check().intact


def test_a_flipped_bit_anywhere_names_its_row(chained: Chained) -> None:
    flips_are_named(chained, lambda place: range(place % 8, place % 8 + 1))


@pytest.mark.soak
def test_every_flipped_bit_names_its_row(chained: Chained) -> None:
    flips_are_named(chained, lambda _: range(8))


def test_bytes_that_are_changed_name_the_first_row_of_them(chained: Chained) -> None:
    data = chained.path.read_bytes()
    rows = rows_of(data)

    @given(place=st.integers(0, len(data) - 1), put=st.binary(min_size=1, max_size=40))
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def once(place: int, put: bytes) -> None:
        changed = (data[:place] + put + data[place + len(put) :])[: len(data)]
        chained.path.write_bytes(changed)
        different = [at for at, (was, now) in enumerate(zip(data, changed, strict=True)) if was != now]
        if different:
            assert first(chained.check())[0] == rows[different[0]]
        else:
            assert chained.check().intact

    once()


def test_a_flipped_bit_of_the_head_is_found(chained: Chained) -> None:
    data = chained.head.read_bytes()
    for place in range(len(data)):
        chained.head.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert not chained.check().intact, place


# ── Truncation ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_ends_too_early_is_found_wherever_it_ends(chained: Chained) -> None:
    data = chained.path.read_bytes()
    rows = rows_of(data)
    for size in reversed(range(len(data))):
        os.truncate(chained.path, size)
        # of the row that it ends in, or of the first that is missing
        assert first(chained.check()) == (rows[size], rows[size]), size


def test_a_file_that_is_gone_is_found(chained: Chained) -> None:
    chained.path.unlink()
    assert first(chained.check()) == (1, 1)
    assert chained.check().findings[0].problem == f"rows 1 to {ROWS} are missing at the end: the file was cut short"


def test_rows_cannot_be_cut_off_by_taking_the_head_away(chained: Chained) -> None:
    chained.put(*chained.lines[:-3])
    chained.head.unlink()
    (finding,) = chained.check().findings
    assert finding.problem == "the head is missing: whether rows were cut off at the end cannot be told"


def test_an_older_file_and_head_that_are_put_back_are_found(chained: Chained) -> None:
    old = chained.path.read_bytes(), chained.head.read_bytes()
    chained.write(100, 101)
    chained.path.write_bytes(old[0])
    chained.head.write_bytes(old[1])
    assert chained.check().findings[0].problem.startswith("an older file and head were put back: up to row 22")


def test_on_another_machine_an_expected_row_finds_what_was_put_back(
    chained: Chained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from computeragent.telemetry.chain.verify import verify

    old = chained.path.read_bytes(), chained.head.read_bytes()
    chained.write(100, 101)
    noted = chained.check()
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "elsewhere"))
    expect = (noted.last_seq, noted.last_hash[:16])
    assert verify(chained.path, KEY, expect=expect).intact
    assert not verify(chained.path, KEY, expect=(noted.last_seq, "0" * 16)).intact
    chained.path.write_bytes(old[0])
    chained.head.write_bytes(old[1])
    assert verify(chained.path, KEY).intact
    assert [each.seq for each in verify(chained.path, KEY, expect=expect).findings] == [noted.last_seq]


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(lambda rows: [*rows[:6], *rows[7:]], 7, id="removed"),
        pytest.param(lambda rows: rows[1:], 1, id="the first removed"),
        pytest.param(lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]], 7, id="reordered"),
        pytest.param(lambda rows: [*rows[:7], rows[6], *rows[7:]], 8, id="doubled"),
        pytest.param(lambda rows: [*rows[:7], rows[2], *rows[7:]], 8, id="doubled elsewhere"),
        pytest.param(lambda rows: [*rows[:7], b"\n", *rows[7:]], 8, id="an empty line"),
        pytest.param(lambda rows: [*rows[:7], b"{}\n", *rows[7:]], 8, id="something else put in"),
        pytest.param(lambda rows: [*rows[:7], rows[7].replace(b":6}", b":9}"), *rows[8:]], 8, id="edited"),
        pytest.param(lambda rows: [*rows, rows[-1]], 21, id="the last doubled"),
    ],
)
def test_what_is_done_to_rows_is_named(
    chained: Chained, change: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    chained.put(*change(chained.lines))
    assert first(chained.check())[0] == line
    assert first(chained.check(None))[0] == line  # the plain chain says so, too


def test_a_row_that_is_edited_and_hashed_anew_does_not_fit_the_next(chained: Chained) -> None:
    lines = chained.lines
    row = read_row(split_row(lines[7][:-1])[0])
    lines[7] = event_row(8, row.at, b'{"number":9}', row.prev)[0]
    chained.put(*lines)
    assert first(chained.check()) == (9, 9)
    assert "it does not follow from the row before it" in chained.check().findings[0].problem


def test_a_chain_that_is_made_anew_to_its_end_does_not_fit_its_head(chained: Chained) -> None:
    lines = chained.lines
    chained.put(*resealed([*lines[:7], lines[7].replace(b'"number":6', b'"number":7'), *lines[8:]], 7))
    report = chained.check()
    assert [each.problem for each in report.findings] == [
        "the file does not fit its head: rows were changed, removed or put in"
    ]


def test_a_chain_that_is_made_anew_with_its_head_does_not_fit_its_signatures(empty: Chained) -> None:
    empty.write(*range(CHECKPOINT_EVERY + 20))
    assert empty.check().checkpoints == 1
    lines = empty.lines
    forged = resealed([*lines[:7], lines[7].replace(b'"number":6', b'"number":7'), *lines[8:]], 7)
    empty.put(*forged)
    report = empty.check()
    assert first(report) == (CHECKPOINT_EVERY, CHECKPOINT_EVERY)
    assert report.findings[0].problem == "its signature does not fit"


def test_a_checkpoint_that_is_taken_away_is_missed(empty: Chained) -> None:
    empty.write(*range(CHECKPOINT_EVERY + 20))
    lines = empty.lines
    empty.put(*resealed([*lines[: CHECKPOINT_EVERY - 1], *lines[CHECKPOINT_EVERY:]], CHECKPOINT_EVERY - 1))
    assert first(empty.check(None)) == (CHECKPOINT_EVERY, CHECKPOINT_EVERY)


def test_another_file_s_rows_and_head_are_not_this_one_s(chained: Chained, tmp_path: Path) -> None:
    other = Chained(tmp_path / "other.jsonl")
    other.write(*range(40))
    chained.path.write_bytes(other.path.read_bytes())
    chained.head.write_bytes(other.head.read_bytes())
    assert chained.check().findings[0].problem == "another chain was written here: the file was replaced"


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_key_the_chain_is_checked_and_the_rest_is_named(chained: Chained) -> None:
    report = chained.check(None)
    assert report.intact
    assert report.notes == ["2 signatures were not checked: there is no key (--key FILE)"]


def test_another_key_s_file_says_so(chained: Chained) -> None:
    report = chained.check(OTHERS)
    assert not report.intact
    assert any(f"it is signed with key {KEY.id}, checked with {OTHERS.id}" in each.problem for each in report.findings)


def test_a_file_that_is_not_there_is_an_error(empty: Chained) -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        empty.check()


def test_what_is_no_audit_file_is_none(empty: Chained) -> None:
    empty.path.write_bytes(os.urandom(5_000) + b"\n" * 300)
    report = empty.check()
    assert first(report) == (1, 1)
    assert report.more > 0
