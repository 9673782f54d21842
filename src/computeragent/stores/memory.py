"""The `memory` store: transcripts in this process, shared by all its sessions and gone with it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from computeragent.errors import ValidationError
from computeragent.stores.entries import Entry, Key, decode, encode

if TYPE_CHECKING:
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )


@dataclass
class _Transcript:
    lines: list[bytes] = field(default_factory=list[bytes])
    uuids: set[str] = field(default_factory=set[str])
    mtime: int = 0
    summary: SessionSummaryEntry | None = None
    folded: int = 0

    def entries(self, start: int = 0) -> list[SessionStoreEntry]:
        return [decode(line) for line in self.lines[start:]]


class MemorySessionStore:
    """A `SessionStore` in memory, safe for all tasks and threads of the process."""

    def __init__(self) -> None:
        self._transcripts: dict[Key, _Transcript] = {}
        self._lock = threading.Lock()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch; entries whose uuid is there already are left out."""
        where, batch = Key.of(key), encode(entries)
        with self._lock:
            self._append(where, batch)

    def _append(self, where: Key, batch: list[Entry]) -> None:
        if not batch:
            return
        transcript = self._transcripts.setdefault(where, _Transcript())
        for uuid, line in batch:
            if uuid is None or uuid not in transcript.uuids:
                transcript.lines.append(line)
            if uuid is not None:
                transcript.uuids.add(uuid)
        transcript.mtime = max(time.time_ns() // 1_000_000, transcript.mtime)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in the order in which they were appended, or None."""
        with self._lock:
            transcript = self._transcripts.get(Key.of(key))
            lines = list(transcript.lines) if transcript else []
        return [decode(line) for line in lines] or None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last change in milliseconds."""
        with self._lock:
            return [
                {"session_id": key.session, "mtime": transcript.mtime} for key, transcript in self._main_of(project_key)
            ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Upstream's summaries, folded from the entries that came since the last call."""
        from claude_agent_sdk import fold_session_summary

        summaries: list[SessionSummaryEntry] = []
        with self._lock:
            for key, transcript in self._main_of(project_key):
                session_key: SessionKey = {"project_key": key.project, "session_id": key.session}
                new = transcript.entries(transcript.folded)
                summary = fold_session_summary(transcript.summary, session_key, new)
                summary["mtime"] = transcript.mtime
                transcript.summary, transcript.folded = summary, len(transcript.lines)
                summaries.append(cast("SessionSummaryEntry", {**summary, "data": dict(summary["data"])}))
        return summaries

    async def delete(self, key: SessionKey) -> None:
        """Forget a session with its sub-agents, or one sub-agent's transcript."""
        where = Key.of(key)
        with self._lock:
            for known in [known for known in self._transcripts if known[:2] == where[:2]]:
                if where.subpath in {"", known.subpath}:
                    del self._transcripts[known]

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The sub-agent paths of a session."""
        where = Key.of(key)
        with self._lock:
            return [known.subpath for known in self._transcripts if known[:2] == where[:2] and known.subpath]

    def _main_of(self, project: str) -> list[tuple[Key, _Transcript]]:
        return [(key, kept) for key, kept in self._transcripts.items() if key.project == project and not key.subpath]


_shared = MemorySessionStore()


def shared_memory_store(**options: object) -> MemorySessionStore:
    """The one memory store of this process, which every session that asks for ``memory`` gets."""
    if options:
        raise ValidationError(
            f"the memory store has no option {next(iter(options))!r}",
            hint="Leave the options out, or use file or sqlite.",
        )
    return _shared
