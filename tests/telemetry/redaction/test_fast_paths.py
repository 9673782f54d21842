"""The fast ways through the engine find what the slow ones find."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from computeragent.telemetry.redaction import KnownValues, Redactor, numbers, shapes, tokens
from computeragent.telemetry.redaction.findings import Finding, regions, without
from computeragent.telemetry.redaction.national import LETTERED_IDS, NATIONAL_IDS
from computeragent.telemetry.redaction.scanned import SHAPE_TABLE, scanned

SIGNS = [
    " ",
    ".",
    "-",
    "(",
    ")",
    "/",
    "\n",
    "  ",
    "+",
    "00",
    "é",
    "x",
    "A",
    "ab",
    "_",
    "Z",
    "tel ",
    "ssn ",
    "card ",
    "id ",
]
DIGITS = st.text("0123456789", min_size=1, max_size=18)
NUMBERS = st.lists(st.one_of(DIGITS, st.sampled_from(SIGNS)), min_size=2, max_size=14).map("".join)
IDENTITIES = [*NATIONAL_IDS, *LETTERED_IDS]
JUDGED = [*(one.spelled for one in IDENTITIES), *shapes._CARDS, *shapes._PHONES, shapes.TIMESTAMP]
FILLER = "Nothing to see here, only words and more: tel, call 12 and 2024-05-05. "


def anything(table: bytes, start: int, end: int) -> shapes.Shape:
    """A shape that rules nothing out but what the judges rely on."""
    known = shapes.shape_of(table, start, end)
    return dataclasses.replace(
        known,
        lettered=True,
        dated=True,
        address=True,
        number=known.number or not known.bare,
        identities=tuple(one for one in NATIONAL_IDS if not known.bare or end - start in one.bare),
        cards=shapes._CARDS if end - start >= 13 else (),
        phones=() if known.bare else shapes._PHONES,
        spoken=known.spoken or not known.bare,
    )


@settings(max_examples=400, deadline=None)
@given(text=NUMBERS)
@example(text="tel 4111-1111-1111-1111 12:00 2024-05-05 12")
@example(text="x-000000000001\n2026-03-02 12")
def test_shapes_rule_out_nothing_that_is_found(text):
    fast = list(numbers.numbers(scanned(text)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "shape_of", anything)
        patch.setattr(numbers, "lettered", lambda around: LETTERED_IDS)
        slow = list(numbers.numbers(scanned(text)))
    # single digits and pairs in a long row are no one's number, by rule and not by shape
    assert [one for one in slow if one not in fast and text[one.start : one.end].count("000")] == []
    assert [one for one in fast if one not in slow] == []


@pytest.mark.parametrize("pattern", JUDGED, ids=range(len(JUDGED)))
def test_a_relaxed_pattern_matches_the_shape_of_all_that_the_pattern_matches(pattern):
    relaxed = shapes.relaxed(pattern)

    @settings(max_examples=60, deadline=None)
    @given(value=st.from_regex(pattern, fullmatch=True))
    def check(value):
        if value.isascii():
            assert relaxed.search(value.encode().translate(SHAPE_TABLE))

    check()


@settings(max_examples=60, deadline=None)
@given(
    picked=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    drop=st.booleans(),
    glue=st.sampled_from(["", " ", "\n"]),
)
def test_reading_near_a_replacement_finds_what_reading_everything_finds(positives, picked, drop, glue):
    redactor = Redactor("drop" if drop else "mask", use_re2=False)
    parts = [glue.join([positives[at % len(positives)]["text"], FILLER * (at % 9)]) for at in picked]
    text = slow = FILLER * 20 + glue.join(parts) + FILLER * 20
    for _ in range(8):
        found = redactor.find(slow)
        if not found:
            break
        slow, _changed = redactor._applied(slow, found)
    assert redactor.redact_text(text) == slow


def test_a_text_without_blanks_is_read_again_whole():
    assert regions("x" * 20_000, [(10_000, 10_016)]) == []
    assert regions("a b " * 5000, [(10_000, 10_016), (10_050, 10_060)]) == [(9807, 10_253)]


def test_identifiers_seen_before_hide_no_token_that_follows_a_prefix():
    body = "a1B2c3D4e5F6g7H8i9J0"
    redactor = Redactor(use_re2=False)
    assert redactor.find(f"name {body} here") == []
    assert body in tokens._PLAIN
    assert redactor.find(f"name hvs.{body} here") != []
    assert redactor.find(f"name SG.{body}.{body} here") != []


@settings(max_examples=60, deadline=None)
@given(
    found=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20))),
    gaps=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9))),
)
def test_what_is_taken_is_left_out(found, gaps):
    taken, place = [], 0
    for gap, size in gaps:
        taken.append((place + gap, place + gap + size))
        place += gap + size
    left = {
        at
        for one in without([Finding("X", low, low + size) for low, size in found], taken)
        for at in range(one.start, one.end)
    }
    assert left == {at for low, size in found for at in range(low, low + size)} - {
        at for low, high in taken for at in range(low, high)
    }


@pytest.mark.parametrize("use_re2", [True, False])
def test_known_values_are_found_wherever_a_window_ends(use_re2):
    known = KnownValues(["plainword9-kept"])
    for shift in range(-20, 4):
        text = "x " * 40_000
        text = text[: 65_536 + shift] + "plainword9-kept" + text
        assert [(one.start, one.end) for one in known.find(text, use_re2=use_re2)] == [(65_536 + shift, 65_551 + shift)]


def test_placeholders_are_seen_wherever_a_window_ends():
    redactor = Redactor()
    for shift in range(-20, 4):
        text = ("[ " * 40_000)[: 65_536 + shift] + "[REDACTED:PHONE] 98765432 " + "[ " * 40_000
        assert redactor.redact_text(text) is text


def test_random_numbers_are_judged_the_same_with_and_without_a_first_look():
    pytest.importorskip("re2")
    chosen = random.Random(5)
    lines = [
        re.sub(r"\d", lambda _: str(chosen.randrange(10)), "4000 0000 0000 0002, tel 0000000000, 000-00-0000")
        for _ in range(3000)
    ]
    text = "\n".join(lines)
    assert Redactor(use_re2=False).find(text) == Redactor().find(text)
