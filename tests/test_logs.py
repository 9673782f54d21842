"""Our own log: quiet unless asked, one line per event, readable by whoever formats it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from computeragent.logs import Logger, configure_logging


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The logger `computeragent` as it was."""
    root = logging.getLogger("computeragent")
    handlers, level, propagate = list(root.handlers), root.level, root.propagate
    root.handlers.clear()
    root.propagate = True  # pytest puts handlers of its own on a logger that does not
    yield
    root.handlers[:], root.propagate = handlers, propagate
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_level_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch):
    configure_logging()
    monkeypatch.setenv("COMPUTERAGENT_LOG", "")
    configure_logging()
    assert logging.getLogger("computeragent").handlers == []


def test_into_a_file_it_is_one_json_object_per_line():
    out = io.StringIO()
    configure_logging("info", stream=out)
    Logger("harness").info("session_start", session="s\n1", turns=2, path=object)
    line = json.loads(out.getvalue())
    assert (line["level"], line["event"], line["component"]) == ("info", "session_start", "harness")
    assert (line["session"], line["turns"], line["path"]) == ("s\n1", 2, "<class 'object'>")
    assert line["t"].endswith("+00:00")
    assert out.getvalue().count("\n") == 1


def test_on_a_terminal_it_is_a_line_to_read():
    out = Terminal()
    configure_logging("debug", stream=out)
    Logger("chat").warn("slow", seconds=3)
    clock, rest = out.getvalue().split("] ")
    assert len(clock) == len("[12:34:56.789")
    assert rest == "WARN  chat.slow  seconds=3\n"


def test_the_form_can_be_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTERAGENT_LOG_FORMAT", "json")
    out = Terminal()
    configure_logging("debug", stream=out)
    Logger("chat").debug("x")
    assert json.loads(out.getvalue())["event"] == "x"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", "diwe"),
        ("info", "iwe"),
        ("warn", "we"),
        ("warning", "we"),
        ("error", "e"),
        ("silent", ""),
        ("WARN", "we"),
    ],
)
def test_a_level_lets_through_what_is_at_least_as_grave(level: str, heard: str):
    out = io.StringIO()
    configure_logging(level, stream=out)
    log = Logger("x")
    for name in ("debug", "info", "warn", "error"):
        getattr(log, name)(name)
    assert "".join(json.loads(line)["event"][0] for line in out.getvalue().splitlines()) == heard


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTERAGENT_LOG", "error")
    out = io.StringIO()
    configure_logging("info", stream=out)
    Logger("x").info("heard")
    assert "heard" in out.getvalue()


def test_setting_up_again_replaces_the_stream_and_doubles_nothing():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", stream=first)
    configure_logging("info", stream=second)
    Logger("x").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_an_application_with_logging_of_its_own_gets_the_fields_in_the_text(caplog: pytest.LogCaptureFixture):
    Logger("harness").warn("manifest_note", agent="a", note="no such tool")
    (record,) = caplog.records
    assert record.name == "computeragent.harness"
    assert record.getMessage() == "manifest_note agent=a note=no such tool"


def test_a_percent_sign_in_a_field_is_no_format(caplog: pytest.LogCaptureFixture):
    Logger("x").warn("odd", text="100%s %d")
    assert caplog.records[0].getMessage() == "odd text=100%s %d"
