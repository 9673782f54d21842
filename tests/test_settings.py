"""Where settings come from, and where state is kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from computeragent.errors import ValidationError
from computeragent.settings import home, setting


def test_state_lives_in_the_named_folder(state_folder: Path):
    assert home() == state_folder
    assert home("work", "s") == state_folder / "work" / "s"
    assert home("work", "s").is_dir()


def test_a_state_folder_that_is_made_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "new" / "home"))
    assert stat.S_IMODE(home("work").stat().st_mode) == 0o700
    assert stat.S_IMODE(home().stat().st_mode) == 0o700


def test_without_a_name_it_is_in_the_xdg_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COMPUTERAGENT_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert home() == tmp_path / "computeragent"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".local/state/computeragent"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COMPUTERAGENT_HOME", "~/state")
    assert home() == tmp_path / "state"


def test_a_state_folder_that_cannot_be_made_is_one_line_and_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "file" / "x"))
    with pytest.raises(ValidationError, match=r"^the state folder .* cannot be made: Not a directory$") as caught:
        home()
    assert caught.value.hint == "Point COMPUTERAGENT_HOME at a folder that you may write to."


def test_a_setting_is_the_argument_then_the_environment_then_the_file_then_the_default(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (state_folder / "config.yaml").write_text("session_store: file\nport: 7700\n")
    assert setting("engine") is None
    assert setting("engine", default="scripted") == "scripted"
    assert setting("session_store", default="memory") == "file"
    assert setting("port") == "7700"
    monkeypatch.setenv("COMPUTERAGENT_SESSION_STORE", "sqlite")
    assert setting("session_store") == "sqlite"
    assert setting("session_store", "postgres") == "postgres"


@pytest.mark.parametrize(("text", "says"), [("a: [", "is not valid YAML"), ("- a", "must be a mapping of settings")])
def test_a_config_file_that_is_none_is_refused_by_name(text: str, says: str, state_folder: Path):
    (state_folder / "config.yaml").write_text(text)
    with pytest.raises(ValidationError, match=says) as caught:
        setting("session_store")
    assert "config.yaml" in caught.value.message
    assert caught.value.hint == "Mend or remove the file."
