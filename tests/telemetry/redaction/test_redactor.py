"""What a redactor does with values of every shape, with each strategy, with paths and with known secrets."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import stat
import subprocess
import sys
import threading
import time
from collections import namedtuple
from itertools import pairwise
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeragent.errors import ValidationError
from computeragent.telemetry.redaction import (
    DETECTORS,
    KnownValues,
    MemoryVault,
    Redactor,
    SqliteVault,
    Vault,
    credentials_in,
)

MAIL = "bob@example.com"
KEY = b"k" * 32
STRATEGIES = ["mask", "hash", "tokenize", "drop"]
FRAGMENTS = [
    MAIL,
    "4111 1111 1111 1111",
    "password=",
    "hunter2!",
    "ssn ",
    "219-09-9999",
    "+44 20 7946 0958",
    "://u:",
    "@h",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "[REDACTED:EMAIL]",
    '{"a": "',
    '"}',
    "\\n",
    "-----BEGIN PRIVATE KEY-----",
    "\u200b",
    "８.8.8.8",
    " ",
    "[",
    "]",
]
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8)), max_size=8).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS, st.binary(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def make(strategy="mask", **options):
    return Redactor(strategy, key=KEY, vault=MemoryVault(), **options)


# shapes


def test_nested_values_are_redacted_and_nothing_is_mutated():
    value = {"a": [1, {"b": (MAIL, None)}], "c": {MAIL}, "d": frozenset({MAIL})}
    before = copy.deepcopy(value)
    redacted = Redactor().redact(value)
    assert value == before
    assert redacted == {
        "a": [1, {"b": ("[REDACTED:EMAIL]", None)}],
        "c": {"[REDACTED:EMAIL]"},
        "d": frozenset({"[REDACTED:EMAIL]"}),
    }


@pytest.mark.parametrize("value", ["plain", {"a": [1, 2.5, None, True]}, [b"xyz", ("a", {"b"})], 12, {}, "", b""])
def test_what_is_clean_is_returned_as_the_same_object(value):
    assert Redactor().redact(value) is value


def test_keys_are_redacted_and_stay_apart():
    redacted = Redactor().redact({MAIL: 1, "eve@example.com": 2})
    assert redacted == {"[REDACTED:EMAIL]": 1, "[REDACTED:EMAIL]~": 2}


def test_a_card_number_as_an_integer_is_redacted():
    assert Redactor().redact({"n": 4111111111111111}) == {"n": "[REDACTED:CARD]"}
    assert Redactor().redact({"ssn": 219099999}) == {"ssn": "[REDACTED:US_SSN]"}
    assert Redactor().redact({"count": 219099999}) == {"count": 219099999}


def test_bytes_stay_bytes():
    assert Redactor().redact(b"to bob@example.com \xff") == b"to [REDACTED:EMAIL] \xff"
    assert Redactor().redact(bytearray(b"bob@example.com")) == bytearray(b"[REDACTED:EMAIL]")


def test_json_in_a_string_is_opened_and_closed_again():
    inner = json.dumps({"mail": "bob\u0040example.com", "n": 4111111111111111, "password": "correct horse 4!"})
    outer = json.dumps({"body": inner})
    redacted = json.loads(json.loads(Redactor().redact(outer))["body"])
    assert redacted == {"mail": "[REDACTED:EMAIL]", "n": "[REDACTED:CARD]", "password": "[REDACTED:SECRET]"}


def test_json_that_is_clean_keeps_its_spelling():
    text = '{ "a" : 1.0e5,\n "b" : "x\\"y" }'
    assert Redactor().redact(text) is text


@dataclasses.dataclass
class Card:
    owner: str
    number: int


class Packet(msgspec.Struct):
    sender: str


Pair = namedtuple("Pair", "left right")


def test_structures_are_redacted_as_they_will_be_serialised():
    assert Redactor().redact(Card("x", 4111111111111111)) == {"owner": "x", "number": "[REDACTED:CARD]"}
    assert Redactor().redact([Packet(MAIL)]) == [{"sender": "[REDACTED:EMAIL]"}]
    assert Redactor().redact(Pair(MAIL, 1)) == Pair("[REDACTED:EMAIL]", 1)
    assert Redactor().redact(ValueError(f"no user {MAIL}")) == "no user [REDACTED:EMAIL]"
    clean = Card("x", 1)
    assert Redactor().redact(clean) is clean


def test_a_value_behind_a_secret_name_is_redacted_whole():
    value = {"password": "correct horse 7", "apiKey": "abcdef1234", "Authorization": "Bearer abc", "token_count": 12}
    redacted = Redactor().redact(value)
    assert redacted["password"] == redacted["apiKey"] == "[REDACTED:SECRET]"
    assert redacted["Authorization"] == "[REDACTED:AUTH_HEADER]"
    assert redacted["token_count"] == 12


def test_containers_that_hold_themselves_and_deep_ones_end():
    loop: list[object] = []
    loop.append(loop)
    assert Redactor().redact(loop) == ["[REDACTED:CYCLE]"]
    deep: object = MAIL
    for _ in range(500):
        deep = [deep]
    assert MAIL not in str(Redactor().redact(deep))


def test_a_secret_over_two_blocks_is_found():
    token = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
    redacted = Redactor().redact_joined(["the token is " + token[:9], token[9:], " and more"])
    assert redacted == ["the token is [REDACTED:VCS_TOKEN]", "", " and more"]
    assert Redactor().redact_joined(["word", token]) == ["word", "[REDACTED:VCS_TOKEN]"]


def test_findings_tell_kind_and_place():
    (found,) = Redactor().find("to bob@example.com!")
    assert (found.kind, found.start, found.end) == ("EMAIL", 3, 18)


# strategies


def test_mask_keeps_the_kind():
    assert make().redact_text(f"to {MAIL}") == "to [REDACTED:EMAIL]"


def test_hash_is_keyed_and_the_same_for_the_same_value():
    one = make("hash").redact_text(MAIL)
    assert one == make("hash").redact_text(MAIL)
    assert one.startswith("[HASH:EMAIL:")
    assert one != Redactor("hash", key=b"x" * 32).redact_text(MAIL)
    assert one != make("hash").redact_text("eve@example.com")


@pytest.mark.parametrize("sqlite", [True, False])
def test_tokens_lead_back_through_the_vault(tmp_path, sqlite):
    vault: Vault = SqliteVault(tmp_path / "v.db", key=KEY) if sqlite else MemoryVault()
    redactor = Redactor("tokenize", key=KEY, vault=vault)
    text = f"to {MAIL} and 4111 1111 1111 1111"
    redacted = redactor.redact_text(text)
    assert MAIL not in redacted
    assert redactor.restore(redacted) == text
    if sqlite:
        assert stat.S_IMODE((tmp_path / "v.db").stat().st_mode) == 0o600
        again = SqliteVault(tmp_path / "v.db", key=KEY)
        assert Redactor("tokenize", key=KEY, vault=again).restore(redacted) == text


def test_a_sealed_vault_shows_nothing_without_its_key(tmp_path):
    pytest.importorskip("cryptography")
    vault = SqliteVault(tmp_path / "v.db", key=KEY)
    token = Redactor("tokenize", key=KEY, vault=vault).redact_text(MAIL)
    vault.close()
    assert all(MAIL.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    assert SqliteVault(tmp_path / "v.db", key=b"other" * 8).get(token) is None


def test_drop_removes_the_value():
    assert make("drop").redact({"a": f"to {MAIL}", "n": 4111111111111111}) == {"a": "to ", "n": None}


def test_the_key_is_kept_in_the_state_folder_with_a_private_mode(state_folder):
    one = Redactor("hash").redact_text(MAIL)
    assert one == Redactor("hash").redact_text(MAIL)
    assert stat.S_IMODE((state_folder / "keys" / "redaction.key").stat().st_mode) == 0o600


def test_masks_cannot_be_undone():
    with pytest.raises(ValidationError):
        Redactor().restore("x")


def test_wrong_settings_are_refused():
    for options in ({"strategy": "shred"}, {"detectors": ["emial"]}, {"key": b"short"}, {"extra_patterns": ["("]}):
        with pytest.raises(ValidationError):
            Redactor(**options)


def test_only_the_detectors_asked_for_run():
    redactor = Redactor(detectors=["card"])
    assert redactor.redact_text(f"{MAIL} 4111111111111111") == f"{MAIL} [REDACTED:CARD]"
    assert "email" in DETECTORS


def test_networks_to_ignore_can_be_chosen():
    assert Redactor().find("127.0.0.1") == []
    assert Redactor(ignored_networks=()).find("127.0.0.1") != []
    assert Redactor(ignored_networks=["10.0.0.0/8"]).find("from 10.1.2.3") == []


# paths


@pytest.mark.parametrize(
    ("rule", "hit", "spared"),
    [
        ("user.name", {"user": {"name": "Ann"}}, {"user": {"age": 3}}),
        ("*.pin", {"a": {"pin": "1"}}, {"a": {"b": {"pin": "1"}}}),
        ("**.pin", {"a": [{"b": {"pin": "1"}}]}, {"a": {"pins": "1"}}),
        ("items[0].x", {"items": [{"x": "1"}]}, {"items": [{"y": "1"}]}),
        ("items.*.x", {"items": [{"x": "1"}]}, {"items": {"x": "1"}}),
        ("items[*].x", {"items": [{"x": "1"}]}, {"items": []}),
        ("payload.payload_x", {"payload": {"payload_x": "1"}}, {"payload": {"x": "1"}}),
        ("a\\.b", {"a.b": "1"}, {"a": {"b": "1"}}),
        ("secret*", {"secret_note": {"deep": ["1"]}}, {"note": "1"}),
    ],
)
def test_the_denylist_redacts_what_is_at_a_path_and_beneath(rule, hit, spared):
    redactor = Redactor(path_denylist=[rule])
    assert "[REDACTED:PATH]" in str(redactor.redact(hit))
    assert redactor.redact(spared) is spared


def test_the_allowlist_leaves_alone_and_the_denylist_wins():
    redactor = Redactor(path_allowlist=["mail", "all"], path_denylist=["all.not"])
    value = {"mail": MAIL, "other": MAIL, "all": {"a": MAIL, "not": MAIL}}
    assert redactor.redact(value) == {
        "mail": MAIL,
        "other": "[REDACTED:EMAIL]",
        "all": {"a": MAIL, "not": "[REDACTED:PATH]"},
    }


# patterns of the user


def test_extra_patterns_are_found(use_re2):
    redactor = Redactor(extra_patterns=[r"BADGE-\d{6}"], use_re2=use_re2)
    assert redactor.redact_text("I am BADGE-123456.") == "I am [REDACTED:CUSTOM]."
    long = "x " * 5000 + "BADGE-123456" + " y" * 5000
    assert "BADGE-123456" not in redactor.redact_text(long)


def test_a_pattern_that_can_explode_is_refused_without_re2():
    with pytest.raises(ValidationError):
        Redactor(extra_patterns=[r"(a+)+$"], use_re2=False)
    pytest.importorskip("re2")
    assert Redactor(extra_patterns=[r"(a+)+b"]).redact_text("x" + "a" * 50 + "b") == "x[REDACTED:CUSTOM]"


# known values

SECRET = 'zq"7 µ-kept/secret+value'


def test_known_values_are_found_in_every_form():
    redactor = Redactor(known_values=[SECRET])
    octets = SECRET.encode()
    spelled = [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET, safe=""),
        quote(SECRET),
        quote(SECRET, safe="").lower(),
        octets.hex(),
        base64.b64encode(octets).decode(),
        base64.b64encode(b"user:" + octets).decode(),
        base64.urlsafe_b64encode(b"ab" + octets + b"c").decode(),
    ]
    for text in spelled:
        assert any(found.kind == "KNOWN_VALUE" for found in redactor.find(f"x{text}x")), text


def test_known_values_come_and_go():
    known = KnownValues()
    redactor = Redactor(known_values=known)
    assert redactor.redact_text("it is plainword9") == "it is plainword9"
    redactor.known_values(["plainword9", "short"])
    assert redactor.redact_text("it is plainword9, short") == "it is [REDACTED:KNOWN_VALUE], short"
    known.discard(["plainword9"])
    assert redactor.redact_text("it is plainword9") == "it is plainword9"


def test_a_thousand_known_values_are_all_found():
    chosen = [base64.b85encode(bytes([index % 256, index // 256]) * 9).decode() for index in range(1000)]
    redactor = Redactor(known_values=chosen)
    text = "\n".join(f"{index} {value} tail" for index, value in enumerate(chosen))
    redacted = redactor.redact_text(text)
    assert not [value for value in chosen if value in redacted]


def test_known_values_may_change_while_others_scan():
    redactor = Redactor(known_values=["first-secret-1"])
    stop = threading.Event()

    def change():
        while not stop.is_set():
            redactor.known.add(["second-secret-2"])
            redactor.known.discard(["second-secret-2"])

    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert all("first-secret-1" not in redactor.redact_text("a first-secret-1 b") for _ in range(300))
    finally:
        stop.set()
        changing.join()


def test_secrets_are_in_no_repr():
    redactor = Redactor("tokenize", key=b"very-secret-key-of-ours", vault=MemoryVault(), known_values=["plainword9"])
    redactor.redact_text(MAIL)
    shown = repr([redactor, redactor.known, vars(redactor), redactor.find(MAIL)])
    for secret in ("plainword9", "very-secret", MAIL):
        assert secret not in shown


def test_credentials_are_taken_from_settings_by_name():
    settings_ = {
        "GITHUB_TOKEN": "abcdef1234567",
        "PATH": "/usr/bin",
        "mcp": {"srv": {"headers": {"Authorization": "Bearer tok-12345678"}, "env": {"DB_PASSWORD": "Hunter2hunter"}}},
    }
    assert sorted(credentials_in(settings_)) == ["Hunter2hunter", "abcdef1234567", "tok-12345678"]


# properties


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=80, deadline=None)
@given(value=VALUES)
def test_redaction_is_idempotent_and_deterministic(strategy, value):
    redactor = make(strategy)
    once = redactor.redact(value)
    assert redactor.redact(once) == once
    assert make(strategy).redact(value) == once


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(TEXTS, max_size=5))
def test_joined_redaction_is_idempotent_and_keeps_the_number_of_parts(parts):
    once = Redactor().redact_joined(parts)
    assert len(once) == len(parts)
    assert Redactor().redact_joined(once) == once


@settings(max_examples=80, deadline=None)
@given(text=TEXTS)
def test_findings_are_in_order_and_apart(text):
    found = Redactor().find(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_findings_do_not_hang_on_the_hash_seed():
    program = (
        "from computeragent.telemetry.redaction import Redactor as R;"
        "print([(f.kind, f.start, f.end) for f in R().find('tel 219-09-9999 a@b.com password=4111111111111111')])"
    )
    command = [sys.executable, "-c", program]
    seen = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout for seed in "123"
    }
    assert len(seen) == 1


# hostile input

HOSTILE = {
    "hex": "0123456789abcdef3f9a" * 20,
    "letters": "a" * 400,
    "digits": "1234567890" * 40,
    "single digits": "1 " * 200,
    "ats": "@" * 400,
    "dashes": "-" * 400,
    "a@": "a@" * 200,
    "dots": "a." * 200,
    "schemes": "://:" * 100,
    "assignments": "password=" * 44,
    "keys": "-----BEGIN RSA PRIVATE KEY-----" * 13,
    "quotes": "\"'\\" * 133,
    "brackets": "[" * 400,
    "jwts": "eyJhbGci." * 44,
    "cards": "4111 " * 80,
    "ibans": "DE89 " * 80,
    "colons": ":a" * 200,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_in_line_with_the_text(redactor, name):
    def taken(size):
        text = HOSTILE[name] * (size // 400)
        started = time.thread_time()
        redactor.find(text)
        return time.thread_time() - started

    small = min(taken(100_000) for _ in range(3))
    assert any(taken(400_000) <= 4 * small * 3 + 0.05 for _ in range(3))


def test_others_may_run_between_windows():
    calls = []
    Redactor(pause=lambda: calls.append(1)).find("word " * 100_000)
    assert len(calls) >= 5


def test_a_placeholder_speaks_for_no_number_beside_it():
    assert Redactor().redact_text("555-123-4567 then 98765432") == "[REDACTED:PHONE] then 98765432"
