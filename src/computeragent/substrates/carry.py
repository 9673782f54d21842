"""A session's folders on their way to another machine and back, as the archives of `server.sandboxes.archive`.

What stays here is left as it is when the rest comes back: ``.git``, links that lead out of the folder, sockets and the
like. Of what was sent, what is gone there is deleted here; what was made here meanwhile stays.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from computeragent.jail import Jail
from computeragent.server.sandboxes.archive import Caps, pack, unpack
from computeragent.settings import home

FOLDERS = ("source", "state")
"""The folders of a session that travel."""
CAPS = Caps(files=500_000, bytes=8 * 1024**3)
_STAYS = frozenset({".git"})


def packed(folder: Path) -> tuple[Path, frozenset[str]]:
    """An archive of a folder, which the caller deletes, and the names in it. Raises `SnapshotError` above `CAPS`."""
    descriptor, name = tempfile.mkstemp(dir=home("work"), suffix=".carried")
    os.close(descriptor)
    try:
        pack(folder, Path(name), CAPS)
        with tarfile.open(name, "r:gz") as tar:
            sent = frozenset(tar.getnames())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name), sent


def bring_home(archive: Path, folder: Path, sent: frozenset[str]) -> None:
    """Make a folder what the archive says, but for what never travelled. Raises `RestoreError`, nothing changed, for
    an archive that reaches out of the folder.
    """
    beside = Path(tempfile.mkdtemp(dir=home("work"), prefix="carried-"))
    try:
        came = beside / "came"
        came.mkdir()
        unpack(archive, came, CAPS)
        _merge(came, folder, sent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _merge(came: Path, folder: Path, sent: frozenset[str]) -> None:
    jail = Jail(folder)
    names = list(_names(came))
    for name in sorted(sent - set(names), key=len, reverse=True):
        there = folder / name
        if there.is_symlink() or not there.is_dir():
            _remove(jail, there, name)
        elif not any(there.iterdir()):
            jail.delete(name)
    for name in names:
        _place(jail, came / name, folder / name, name)


def _place(jail: Jail, new: Path, old: Path, name: str) -> None:
    """Let one entry be here what it is there. The jail has no way out through a link that stayed here."""
    if new.is_dir() and not new.is_symlink():
        if old.is_symlink() or not old.is_dir():
            _remove(jail, old, name)
        jail.mkdir(name, parents=True)
        return
    if new.is_symlink():
        target = new.readlink()
        if old.is_symlink() and old.readlink() == target:
            return
        _remove(jail, old, name)
        (jail.directory(str(Path(name).parent)) / old.name).symlink_to(target)
        return
    if old.is_file() and not old.is_symlink() and _same(new, old):
        return
    _remove(jail, old, name)
    shutil.move(new, jail.directory(str(Path(name).parent)) / old.name)


def _remove(jail: Jail, there: Path, name: str) -> None:
    if there.is_symlink() or there.exists():
        jail.delete(name, recursive=True)


def _same(one: Path, other: Path) -> bool:
    a, b = one.stat(), other.stat()
    if a.st_size != b.st_size or (a.st_mode ^ b.st_mode) & 0o100:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(1 << 20):
            if chunk != second.read(1 << 20):
                return False
    return True


def _names(folder: Path) -> Iterator[str]:
    """What is below a folder and travels, parents first."""
    for place, directories, files in os.walk(folder):
        directories[:] = [name for name in directories if name not in _STAYS]
        for name in (*directories, *(each for each in files if each not in _STAYS)):
            yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118 - names may be no text
