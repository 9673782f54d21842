"""The files that calls use, made into few patterns: folders within the working folder, names outside of it."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from functools import lru_cache

from computeragent.policy.rules.globs import MAGIC
from computeragent.policy.rules.paths import FileUse, real_path
from computeragent.policy.shapes import escaped, named, place_of, relative

_MOST_FILES = 12
"""Files of the working folder that are named one by one, and folders of it; more become ``./*`` and ``./**``."""
_MOST_NEIGHBOURS = 5
"""Files of a folder elsewhere that are named one by one."""


class Places:
    """Collects files. What comes of it depends on the files alone, not on their order."""

    def __init__(self) -> None:
        self._own: set[str] = set()
        self._files: set[str] = set()
        self._elsewhere: defaultdict[str, set[str]] = defaultdict(set)
        self._below: set[str] = set()

    @property
    def outside(self) -> bool:
        """Whether any is outside of the working folder."""
        return bool(self._elsewhere or self._below)

    def add(self, use: FileUse, cwd: str | None, *, folder: bool = False, anywhere_within: bool = False) -> str | None:
        """Take a file; why not, where it cannot be taken. A `folder` is taken with all that is in it.

        `anywhere_within` takes the whole working folder where a file is in it.
        """
        taken = [_place(path, cwd, glob=use.glob, folder=folder or use.tree) for path in use.paths]
        for path, own, below in taken:
            if own is None and _is_wide(path, cwd, below=below):
                return "in a folder that is too wide to allow"
        for path, own, below in taken:
            if own is None:
                self._add_elsewhere(path, below=below)
            else:
                self._add_own(own, below=below or anywhere_within, whole=anywhere_within)
        return None

    def patterns(self) -> list[str]:
        """The patterns, own folders first."""
        if "./**" in self._own or len(self._own) > _MOST_FILES:
            own = ["./**"]
        else:
            files = self._files if len(self._files) <= _MOST_FILES else {"./*"}
            own = sorted(self._own) + sorted(files)
        found: set[str] = {escaped(folder) + "/**" for folder in self._below}
        for folder, names in self._elsewhere.items():
            if not any(_within(folder, below) for below in self._below):
                near = len(names) > _MOST_NEIGHBOURS
                found |= {escaped(folder) + "/*"} if near else {named(f"{folder}/{name}") for name in names}
        return own + sorted(found)

    def merge(self, other: Places) -> None:
        """Take all that another one has."""
        self._own |= other._own
        self._files |= other._files
        self._below |= other._below
        for folder, names in other._elsewhere.items():
            self._elsewhere[folder] |= names

    def _add_own(self, own: str, *, below: bool, whole: bool) -> None:
        pattern = "./**" if whole else place_of("/" + own, "/", folder=below)
        (self._own if pattern.endswith("/**") else self._files).add(pattern)
        if len(self._own) > _MOST_FILES:
            self._own = {"./**"}

    def _add_elsewhere(self, path: str, *, below: bool) -> None:
        if below:
            self._below.add(path)
            return
        folder, _, name = path.rpartition("/")
        names = self._elsewhere[folder]
        if len(names) <= _MOST_NEIGHBOURS:
            names.add(name)


def _place(path: str, cwd: str | None, *, glob: bool, folder: bool) -> tuple[str, str | None, bool]:
    """A path, its beginning where it is a glob; where in the working folder it is; whether all below it is meant."""
    if glob:
        names = path.split("/")
        plain = next((at for at, name in enumerate(names) if MAGIC & set(name)), len(names))
        path, folder = "/".join(names[:plain]) or "/", True
    for start in () if cwd is None else _starts(cwd):
        own = relative(path, start)
        if own is not None:
            return path, own, folder
    return path, None, folder


@lru_cache(maxsize=64)
def _starts(cwd: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((posixpath.normpath(cwd), real_path(cwd))))


def _is_wide(path: str, cwd: str | None, *, below: bool) -> bool:
    """Whether this is more than an agent should get: all files, or all in a folder of the root or one with homes."""
    if path == "/" or not below:
        return path == "/"
    home = os.path.expanduser("~")  # noqa: PTH111 - text, not a file
    return path.count("/") == 1 or any(_within(each, path) for each in (home, cwd) if each is not None)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
