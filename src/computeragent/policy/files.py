"""Policy files that are looked at again: a changed file is read anew, and one that cannot be read changes nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from computeragent.errors import ComputerAgentError, PolicyInvalidError
from computeragent.logs import Logger

Parsed = TypeVar("Parsed")

LOOK_AGAIN = 0.5
"""Seconds between two looks at a file."""
MAX_BYTES = 4_000_000
"""The size of a policy file at most."""

_log = Logger("policy")
_Version = tuple[int, int, int, int, int]


class WatchedFile(Generic[Parsed]):
    """A policy file and what it says. `parse` gets its text and its name, and raises for a text that is no policy.

    A new version counts at the first look that finds it complete: at once where the file was replaced, or was left
    alone for `LOOK_AGAIN` seconds; otherwise when it has stayed the same between two looks. A version that cannot be
    parsed, or a file that is gone, leaves the last good version in force: `problem` then says why, and the log says it
    once. Without a thread; safe with many.
    """

    def __init__(
        self, path: str | os.PathLike[str], parse: Callable[[str, str], Parsed], *, look_again: float = LOOK_AGAIN
    ) -> None:
        """Read the file. Raises `PolicyInvalidError` where there is no good version to begin with."""
        self.path = Path(path)
        self.generation = 1
        """Grows with each version that comes into force."""
        self.problem: str | None = None
        """Why the file as it is now is not in force; None while it is."""
        self._parse = parse
        self._every = look_again
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._version, text = self._read()
        self._seen = self._version
        self._told: _Version | None = None
        self._value = parse(text, str(self.path))

    @property
    def value(self) -> Parsed:
        """What the last good version says, after a look at the file if one is due."""
        now = time.monotonic()
        if now - self._looked >= self._every and self._lock.acquire(blocking=False):
            try:
                self._looked = now
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        try:
            version = _version(os.stat(self.path))  # noqa: PTH116 - a look costs half as much without a Path
        except OSError as error:
            self._keep(None, f"it cannot be read: {error.strerror or type(error).__name__}")
            return
        if version == self._version:
            self.problem = self._told = None  # it is as it was
        elif version != self._told:
            replaced = version[:2] != self._version[:2]
            rested = time.time_ns() - max(version[2], version[3]) >= LOOK_AGAIN * 1e9
            if replaced or rested or version == self._seen:
                self._take(version)
        self._seen = version

    def _take(self, version: _Version) -> None:
        try:
            read, text = self._read()
            if read != version:
                return  # it is being written
            value = self._parse(text, str(self.path))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new version, the old one stays
            message = error.message if isinstance(error, ComputerAgentError) else f"{type(error).__name__}: {error}"
            self._keep(version, message)
            return
        self._value, self._version, self.problem, self._told = value, version, None, None
        self.generation += 1
        _log.info("policy_reloaded", file=str(self.path), generation=self.generation)

    def _keep(self, version: _Version | None, problem: str) -> None:
        if self.problem != problem or self._told != version:
            _log.error("policy_kept", file=str(self.path), problem=problem, kept=f"generation {self.generation}")
        self.problem, self._told = problem, version

    def _read(self) -> tuple[_Version, str]:
        """The file's version and text. Raises `PolicyInvalidError`."""
        details = {"file": str(self.path)}
        try:
            with self.path.open("rb") as file:
                version = _version(os.fstat(file.fileno()))
                data = file.read(MAX_BYTES + 1)
                changed = _version(os.fstat(file.fileno())) != version
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            hint = "Check the path, and that this account may read the file."
            raise PolicyInvalidError(f"{self.path}: it cannot be read: {why}", hint=hint, details=details) from error
        if len(data) > MAX_BYTES or changed:
            why = f"it is larger than {MAX_BYTES} bytes" if len(data) > MAX_BYTES else "it changed while it was read"
            raise PolicyInvalidError(f"{self.path}: {why}", hint="Split it, or write it anew.", details=details)
        try:
            return version, data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PolicyInvalidError(f"{self.path}: it is not UTF-8 text", details=details) from error


def _version(found: os.stat_result) -> _Version:
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_ctime_ns, found.st_size
