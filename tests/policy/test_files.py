"""Policy files under change: the newest good version is in force, and what is wrong with a newer one is told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from computeragent.errors import PolicyInvalidError, ValidationError
from computeragent.policy.files import MAX_BYTES, WatchedFile


def parse(text: str, name: str) -> str:
    if text.startswith("bad"):
        raise PolicyInvalidError(f"{name}:1: bad")
    return text


def watched(path: Path, look_again: float = 0.0) -> WatchedFile[str]:
    return WatchedFile(path, parse, look_again=look_again)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def looks(file: WatchedFile[str]) -> str:
    """Three looks: a new file may have the old one's number, and is then taken for one that is being written."""
    return [file.value for _ in range(3)][-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("one")
    return path


def test_a_replaced_file_is_in_force_at_the_next_look(path: Path):
    file = watched(path)
    assert (file.value, file.generation) == ("one", 1)
    replace(path, "two")
    assert (file.value, file.generation, file.problem) == ("two", 2, None)


def test_a_file_written_in_place_is_in_force_once_it_stays_the_same(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("computeragent.policy.files.LOOK_AGAIN", 3600.0)
    file = watched(path)
    path.write_text("half")
    assert file.value == "one"
    path.write_text("half and half")
    assert file.value == "one"
    assert (file.value, file.generation) == ("half and half", 2)


def test_a_file_that_was_left_alone_is_in_force_at_once(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("computeragent.policy.files.LOOK_AGAIN", 0.0)
    file = watched(path)
    path.write_text("whole")
    assert file.value == "whole"


def test_nobody_looks_before_it_is_due(path: Path):
    file = watched(path, look_again=3600)
    replace(path, "two")
    assert file.value == "one"


def test_a_bad_version_keeps_the_last_good_one_and_is_told_once(path: Path, caplog: pytest.LogCaptureFixture):
    file = watched(path)
    replace(path, "bad")
    with caplog.at_level(logging.INFO, "computeragent"):
        assert looks(file) == "one"
        assert file.problem == f"{path}:1: bad"
        replace(path, "bad again")
        assert looks(file) == "one"
        replace(path, "good")
        assert (looks(file), file.problem, file.generation) == ("good", None, 2)
    events = [record.ca_event for record in caplog.records]
    assert events == ["policy_kept", "policy_kept", "policy_reloaded"]


def test_a_file_that_vanishes_keeps_its_last_version(path: Path):
    file = watched(path)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    assert [file.value, file.value] == ["one", "one"]
    assert "No such file" in str(file.problem)
    aside.rename(path)
    assert (file.value, file.value, file.problem) == ("one", "one", None)


def test_a_version_with_the_old_time_and_size_is_noticed(path: Path):
    file = watched(path)
    times = path.stat()
    replace(path, "two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.value == "two"


def test_a_parser_that_fails_otherwise_keeps_it_too(path: Path):
    file = WatchedFile(path, lambda text, _: {"one": 1}[text], look_again=0)
    replace(path, "two")
    assert (file.value, file.problem) == (1, "KeyError: 'two'")


@pytest.mark.parametrize("text", ["bad", None, "x" * (MAX_BYTES + 1), b"\xff\xfe"])
def test_without_a_good_version_there_is_no_beginning(tmp_path: Path, text: str | bytes | None):
    path = tmp_path / "policy"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyInvalidError) as caught:
        watched(path)
    assert caught.value.message.startswith(str(path))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ValidationError)
    assert (caught.value.code, caught.value.status) == ("POLICY_INVALID", 400)


def test_a_folder_is_no_policy(tmp_path: Path):
    with pytest.raises(PolicyInvalidError, match="Is a directory"):
        watched(tmp_path)
