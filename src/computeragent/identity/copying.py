"""Copies of local directories, for agents that must not work in the original."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

LEFT_OUT = frozenset(
    {".git", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache"}
    | {".ruff_cache", ".hypothesis", ".DS_Store"}
)
"""History, which may hold secrets, and what can be made again."""


def copy_directory(source: Path, target: Path) -> int:
    """Copy `source` to `target`, which must not exist; return the number of files.

    Links that stay inside are copied as links; other links, pipes, sockets and devices are left out.
    """
    source = source.resolve()
    outside = {os.path.realpath(target), os.path.realpath(target.with_suffix(""))}
    count = 0
    for folder, directories, files in os.walk(source):
        here = Path(folder)
        there = target / here.relative_to(source)
        there.mkdir(parents=True)
        entered = [name for name in directories if name not in LEFT_OUT and str(here / name) not in outside]
        links = [name for name in entered if (here / name).is_symlink()]
        directories[:] = [name for name in entered if name not in links]
        for name in [*links, *files]:
            count += name not in LEFT_OUT and _copy_one(here / name, there / name, source)
    return count


def _copy_one(origin: Path, target: Path, root: Path) -> bool:
    mode = origin.lstat().st_mode
    if stat.S_ISLNK(mode):
        to = origin.readlink()
        if to.is_absolute() or not Path(os.path.realpath(origin)).is_relative_to(root):
            return False
        target.symlink_to(to)
        return True
    if not stat.S_ISREG(mode):
        return False
    shutil.copy2(origin, target, follow_symlinks=False)
    return True
