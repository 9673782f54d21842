"""The `file` store: one readable file of JSON lines per transcript, safe for several processes at once."""

from __future__ import annotations

import errno
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from computeragent import settings
from computeragent.errors import StoreError
from computeragent.logs import Logger
from computeragent.stores import journal, options
from computeragent.stores.entries import Entry, Key, encode
from computeragent.stores.names import SUFFIX, file_name
from computeragent.stores.worker import Worker

if TYPE_CHECKING:
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
    )

T = TypeVar("T")
_log = Logger("stores.file")
_INDEXED_FILES = 512
_ATTEMPTS = 20


class FileSessionStore:
    """A `SessionStore` of files: ``<root>/<project>/<session>.jsonl``, sub-agents in ``<session>/`` beside it.

    `root` is ``transcripts`` in the state folder unless given; files have mode 0600, folders 0700.
    `lock_timeout` is how long a writer waits for another process, in seconds.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, *, lock_timeout: float = 30.0) -> None:
        self._given_root = options.path("root", root)
        self._lock_timeout = options.seconds("lock_timeout", lock_timeout)
        self._worker = Worker("file-store")
        self._seen: OrderedDict[Key, journal.Seen] = OrderedDict()

    @cached_property
    def root(self) -> Path:
        """The folder of this store; it is made when first used."""
        if self._given_root is None:
            return settings.home("transcripts")
        root = Path(self._given_root).expanduser().absolute()
        _make_folder(root)
        return root

    def path(self, key: SessionKey) -> Path:
        """The file of a transcript."""
        return self._path(Key.of(key))

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch; entries whose uuid is there already are left out."""
        where, batch = Key.of(key), encode(entries)
        if batch:
            await self._run(self._append, where, batch)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in the order in which they were appended, or None."""
        return await self._run(self._load, Key.of(key))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last change in milliseconds."""
        return await self._run(self._list_sessions, project_key)

    async def delete(self, key: SessionKey) -> None:
        """Remove a session with its sub-agents, or one sub-agent's transcript."""
        await self._run(self._delete, Key.of(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The sub-agent paths of a session."""
        return await self._run(self._list_subkeys, Key.of(key))

    # ── On the worker's thread ──────────────────────────────────────────────────────────────────────────────

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await self._worker.run(function, *args)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
            raise StoreError(
                f"the session store cannot use {error.filename or self.root}: {error.strerror}",
                hint="Free some disk space." if full else "Check the folder's permissions.",
                details={"errno": error.errno},
            ) from error

    def _append(self, where: Key, batch: list[Entry]) -> None:
        path = self._path(where)
        seen = self._seen.pop(where, None) or journal.Seen()
        for attempt in range(_ATTEMPTS):
            try:
                journal.append(path, where, batch, seen, self._lock_timeout)
                break
            except FileNotFoundError:  # the first of its folder, or someone deletes the session right now
                if attempt == _ATTEMPTS - 1:
                    raise
                _make_folder(path.parent)
        self._seen[where] = seen
        if len(self._seen) > _INDEXED_FILES:
            self._seen.popitem(last=False)

    def _load(self, where: Key) -> list[SessionStoreEntry] | None:
        return journal.read(self._path(where), where) or None

    def _list_sessions(self, project: str) -> list[SessionStoreListEntry]:
        return [
            {"session_id": key.session, "mtime": mtime}
            for key, mtime in _found_in(self.root / file_name(project), "*")
            if key.project == project
        ]

    def _list_subkeys(self, where: Key) -> list[str]:
        return sorted(key.subpath for key, _ in _found_in(self._folder(where), "**/*") if key[:2] == where[:2])

    def _delete(self, where: Key) -> None:
        path = self._path(where)
        path.unlink(missing_ok=True)
        self._seen.pop(where, None)
        if where.subpath:
            return
        for attempt in range(_ATTEMPTS):
            try:
                shutil.rmtree(self._folder(where))
            except FileNotFoundError:
                if not self._folder(where).exists():
                    return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                    raise  # else a sub-agent writes into it meanwhile

    def _folder(self, where: Key) -> Path:
        return self.root / file_name(where.project) / file_name(where.session)

    def _path(self, where: Key) -> Path:
        folder = self._folder(where)
        if not where.subpath:
            return folder.with_name(folder.name + SUFFIX)
        *parents, last = map(file_name, where.subpath.split("/"))
        return folder.joinpath(*parents, last + SUFFIX)


def _make_folder(folder: Path) -> None:
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _found_in(folder: Path, pattern: str) -> Iterator[tuple[Key, int]]:
    """The transcripts in a folder with the time of their last change in milliseconds."""
    for path in folder.glob(pattern + SUFFIX):
        try:
            key, mtime = journal.identify(path), path.stat().st_mtime_ns // 1_000_000
        except (FileNotFoundError, IsADirectoryError):
            continue
        except StoreError as error:
            _log.warn("stores.file.not_listed", reason=error.message)
            continue
        if key is not None:
            yield key, mtime
