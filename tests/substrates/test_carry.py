"""What travels to another machine, and what may come back from one that an agent controls."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from computeragent.errors import ComputerAgentError
from computeragent.server.sandboxes.archive import unpack
from computeragent.substrates.carry import CAPS, bring_home, packed


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "kept").write_text("kept")
    (folder / "changed").write_text("before")
    (folder / "deleted").write_text("x")
    (folder / "gone" / "with").mkdir(parents=True)
    (folder / "gone" / "with" / "it").write_text("x")
    (folder / "out").symlink_to(tmp_path)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("mine")
    return folder


def archive(tmp_path: Path, **entries: object) -> Path:
    """A tar of files (text), folders (None) and what else is given as a `TarInfo`."""
    target = tmp_path / "came.tgz"
    with gzip.open(target, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in entries.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content.encode()))
            else:
                entry.type = tarfile.DIRTYPE if content is None else entry.type
                tar.addfile(entry)
    return target


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_what_was_done_there_is_so_here(here: Path, tmp_path: Path) -> None:
    sent, names = packed(here)
    there = tmp_path / "there"
    there.mkdir()
    unpack(sent, there, CAPS)
    assert sorted(str(each.relative_to(there)) for each in there.rglob("*")) == sorted(names)
    assert not {".git", "out"} & names
    (there / "changed").write_text("after")
    (there / "deleted").unlink()
    (there / "gone" / "with" / "it").unlink()
    (there / "gone" / "with").rmdir()
    (there / "gone").rmdir()
    (there / "deep" / "script").write_text("#!/bin/sh\n")
    (there / "deep" / "script").chmod(0o755)
    (there / "link").symlink_to("deep/kept")
    (here / "meanwhile").write_text("made here")
    unchanged = (here / "deep" / "kept").stat()
    back, _ = packed(there)
    bring_home(back, here, names)
    for each in (sent, back):
        each.unlink()
    found = {str(each.relative_to(here)) for each in here.rglob("*")}
    assert found == {"deep", "deep/kept", "deep/script", "changed", "link", "meanwhile", "out", ".git", ".git/config"}
    assert (here / "changed").read_text() == "after"
    assert os.access(here / "deep" / "script", os.X_OK)
    assert (here / "link").read_text() == "kept"
    assert (here / "deep" / "kept").stat() == unchanged


def test_files_become_folders_and_folders_files(here: Path, tmp_path: Path) -> None:
    came = archive(tmp_path, deep="a file now", changed=None, **{"changed/in": "x"})
    bring_home(came, here, frozenset({"deep", "deep/kept", "changed"}))
    assert (here / "deep").read_text() == "a file now"
    assert (here / "changed" / "in").read_text() == "x"


@pytest.mark.parametrize(
    "entry",
    [
        special("../escaped", tarfile.REGTYPE),
        special("/tmp/escaped", tarfile.REGTYPE),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../outside"),
        special("hard", tarfile.LNKTYPE, "changed"),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda entry: f"{entry.name} {entry.type!r} {entry.linkname}",
)
def test_an_archive_that_reaches_out_changes_nothing(here: Path, tmp_path: Path, entry: tarfile.TarInfo) -> None:
    before = sorted(str(each) for each in tmp_path.rglob("*"))
    came = archive(tmp_path, changed="after", other=entry)
    with pytest.raises(ComputerAgentError):
        bring_home(came, here, frozenset({"deleted"}))
    came.unlink()
    assert sorted(str(each) for each in tmp_path.rglob("*")) == before
    assert (here / "changed").read_text() == "before"


def test_nothing_is_written_through_a_link_that_stayed_here(here: Path, tmp_path: Path) -> None:
    came = archive(tmp_path, out=None, **{"out/planted": "x"})
    bring_home(came, here, frozenset())
    assert not (tmp_path / "planted").exists()
    assert (here / "out" / "planted").read_text() == "x"
    assert not (here / "out").is_symlink()


def test_git_never_comes_back(here: Path, tmp_path: Path) -> None:
    came = archive(tmp_path, **{".git": None, ".git/config": "theirs", "sub": None, "sub/.git": "gitdir: /elsewhere"})
    bring_home(came, here, frozenset())
    assert (here / ".git" / "config").read_text() == "mine"
    assert not (here / "sub" / ".git").exists()
