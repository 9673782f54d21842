"""Where a pipeline's spooled events are: its own spool, in memory while the disk fails, and adopted orphans."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from computeragent.errors import ComputerAgentError
from computeragent.logs import Logger
from computeragent.telemetry.event import TelemetryEvent, encode
from computeragent.telemetry.spool import Spool, adopt, is_orphan, orphans, remove
from computeragent.wire.encoding import from_json, to_json

RETRY_DISK = 30.0
FORGET_AFTER = 14 * 86_400.0
"""Seconds that the spool of a dead process waits for one that has its destinations."""
MOST_ORPHANS = 4
"""How many full spools of processes that are gone are kept, all in all."""
IN_MEMORY = 16 * 1024 * 1024
"""What is kept in memory while the disk fails."""
_log = Logger("spool")


class Storage:
    """The spools of one pipeline. `destinations` are the sinks that they are for."""

    def __init__(
        self, folder: Callable[[], Path], destinations: Sequence[str], *, max_bytes: int, changed: Callable[[], None]
    ) -> None:
        self.failures = 0
        self.dropped_before = 0
        self._folder = folder
        self._destinations = destinations
        self._max_bytes = max_bytes
        self._changed = changed
        self._lock = threading.Lock()
        self._spools: list[Spool] = []
        self._retry_at = 0.0

    def spools(self) -> list[Spool]:
        """All of them, the current one last."""
        return self._spools

    @property
    def dropped(self) -> int:
        """Events that no spool had room for."""
        return self.dropped_before + sum(spool.dropped for spool in self._spools)

    def open(self) -> None:
        """Open our own spool and take over the orphans, where that has not happened yet."""
        self._current()

    def commit(self, events: Sequence[bytes], opened: Mapping[str, bytes], ended: Iterable[str]) -> None:
        """Commit events: to the disk, or to memory while it fails."""
        try:
            self._current().append(events, opened=opened, ended=ended)
        except sqlite3.Error as error:
            self._disk_failed(error)
            self._current().append(events, opened=opened, ended=ended)
        self._changed()

    def open_sessions(self) -> dict[str, bytes]:
        """The sessions that have begun here and not ended, as told to `commit`."""
        with suppress(sqlite3.Error):
            return {name: data for spool in self._spools for name, data in spool.open_sessions().items()}
        return {}

    def end_sessions(self) -> None:
        """None of them is lost should this process die: they go on elsewhere."""
        for spool in self._spools:
            with suppress(sqlite3.Error):
                spool.append([], ended=list(spool.open_sessions()))

    def discard_drained(self) -> None:
        """Let go of spools that have nothing left for these sinks."""
        with self._lock:
            for spool in self._spools[:-1]:
                if all(spool.sinks.get(name, spool.newest) >= spool.newest for name in self._destinations):
                    self._spools = [other for other in self._spools if other is not spool]
                    self.dropped_before += spool.dropped
                    _close(spool)

    def close(self) -> None:
        """Close all; files with events that wait stay, for the next process."""
        with self._lock:
            for spool in self._spools:
                self.dropped_before += spool.dropped
                _close(spool)
            self._spools = []

    def leave(self) -> None:
        """After a fork, in the child: these spools are the parent's."""
        for spool in self._spools:
            spool.leave()
        self._lock = threading.Lock()
        self._spools = []
        self.dropped_before = 0

    def _current(self) -> Spool:
        with self._lock:
            spools = self._spools
            if not spools:
                self._spools = spools = [*self._adopted(), self._fresh()]
            elif spools[-1].path is None and time.monotonic() > self._retry_at:
                fresh = self._fresh()
                if fresh.path is not None:
                    self._spools = spools = [*spools, fresh]
                else:
                    _close(fresh)
            return spools[-1]

    def _fresh(self) -> Spool:
        try:
            spool = Spool.create(self._folder(), max_bytes=self._max_bytes)
        except (OSError, sqlite3.Error, ComputerAgentError) as error:
            self._note(error)
            spool = Spool(None, max_bytes=min(IN_MEMORY, self._max_bytes))
        spool.subscribe(self._destinations)
        return spool

    def _disk_failed(self, error: sqlite3.Error) -> None:
        self._note(error)
        with self._lock:
            spools = self._spools
            if len(spools) > 1 and spools[-1].newest == 0 and spools[-2].path is None:
                # a file was tried again and took nothing: go on in the memory before it
                self._spools = spools[:-1]
                _close(spools[-1])
                return
            # however often the disk comes and goes, what all of them hold stays bounded
            held = sum(spool.size for spool in spools if spool.path is None)
            most = min(IN_MEMORY, self._max_bytes)
            room = max(most - held, most // 16)
            memory = Spool(None, max_bytes=room)
            memory.subscribe(self._destinations)
            self._spools = [*spools, memory]

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self._retry_at = time.monotonic() + RETRY_DISK
        if self.failures == 1:
            _log.error(
                "disk_failed",
                error=str(error),
                hint="events are kept in memory; check free space and permissions of COMPUTERAGENT_HOME",
            )

    def _adopted(self) -> list[Spool]:
        """The spools of processes that are gone, where they have something for our sinks."""
        found: list[Spool] = []
        try:
            paths = orphans(self._folder())
        except (OSError, ComputerAgentError):
            return []
        for path in paths:
            old = _age(path) > FORGET_AFTER
            spool = adopt(path)
            if spool is None:
                if old and is_orphan(path):
                    _log.warn("orphan_forgotten", file=path.name, hint="it could not be read")
                    remove(path)
                continue
            try:
                _end_lost_sessions(spool)
                wanted = [name for name in self._destinations if spool.sinks.get(name, spool.newest) < spool.newest]
            except Exception as error:  # noqa: BLE001 - a damaged file must not keep the pipeline from starting
                _log.warn("orphan_unreadable", file=path.name, error=repr(error))
                wanted = []
            if wanted:
                found.append(spool)
            elif old and not spool.drained:
                waiting = max((spool.pending(name) for name in spool.sinks), default=0)
                _log.warn("orphan_forgotten", file=path.name, events=waiting, destinations=", ".join(spool.sinks))
                _close(spool, delete=True)
            else:
                _close(spool)
        self._bound(found)
        return found

    def _bound(self, adopted: Sequence[Spool]) -> None:
        """What processes that are gone left behind may be as large as `MOST_ORPHANS` spools: the oldest events go."""
        surplus = sum(spool.size for spool in adopted) - MOST_ORPHANS * self._max_bytes
        for spool in adopted:
            if surplus <= 0:
                return
            before = spool.size
            with suppress(sqlite3.Error):
                spool.shrink(max(0, before - surplus))
            surplus -= before - spool.size


def header(event: TelemetryEvent) -> bytes:
    """What is needed to end the session that this event begins, should its process not do it."""
    return to_json([event.agent_name, event.agent_id, event.agent_description])


def _end_lost_sessions(spool: Spool) -> None:
    """Write the ends of sessions whose process died: every session has one."""
    lost = spool.open_sessions()
    if not lost:
        return
    ends: list[bytes] = []
    for session_id, data in lost.items():
        name, agent_id, description = cast("list[Any]", from_json(data))
        event = TelemetryEvent(
            kind="session_ended",
            session_id=session_id,
            agent_name=name,
            agent_id=agent_id,
            agent_description=description,
            payload={
                "is_error": True,
                "subtype": "process_lost",
                "error_type": "process_lost",
                "error_message": "the process that ran this session ended before the session did",
            },
            event_id=uuid.uuid5(uuid.NAMESPACE_URL, f"computeragent:session_ended:{session_id}").hex,
        )
        ends.append(encode(event))
    spool.append(ends, ended=list(lost))


def _age(path: Path) -> float:
    """Seconds since a file was written last."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # it is gone
        return 0.0


def _close(spool: Spool, *, delete: bool | None = None) -> None:
    try:
        if spool.path is None and not spool.drained:
            lost = max((spool.pending(name) for name in spool.sinks), default=0)
            _log.error("events_lost", events=lost, hint="they were in memory since the disk failed")
        spool.close(delete=delete)
    except sqlite3.Error as error:
        _log.warn("spool_not_closed", error=str(error))
