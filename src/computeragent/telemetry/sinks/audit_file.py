"""`AuditFileSink`: decisions in a file that nobody can change unseen."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from computeragent.errors import AuditFileError
from computeragent.settings import home
from computeragent.telemetry.chain.key import Key, own_key
from computeragent.telemetry.chain.writer import ChainFile
from computeragent.telemetry.event import TelemetryEvent, encode
from computeragent.telemetry.protocols import BatchLimits
from computeragent.telemetry.spool import Spooled

AUDITED = ("policy_decision", "session_started", "session_ended")
"""The kinds of events that are kept unless others are named."""


class _Payload(msgspec.Struct):
    subtype: object = None


class _Told(msgspec.Struct):
    kind: str
    payload: _Payload = msgspec.field(default_factory=_Payload)


_events = msgspec.json.Decoder(_Told)


class AuditFileSink:
    """Appends decisions, and the begin and end of sessions, to a hash-chained file that ``computeragent audit verify``
    checks. Several processes may write to one file.

    Args:
        path: The file; default ``audit.jsonl`` in the state folder. Its head, ``<path>.head``, is beside it. Both have
            mode 0600.
        key: What signs it, 16 bytes or more; default this machine's ``keys/audit.key``, made when missing.
        kinds: The kinds of events to keep, None for all; default `AUDITED`. What telemetry has lost is always told.

    It is fed from the spool: what the disk does not take is kept and tried again, counted in the pipeline's ``stats()``
    and told in the log, and the run goes on. Each batch is synced. After a crash an event may come twice, with the
    same ``event_id``. `failing` says why the last batch could not be written, None when it was.

    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        key: bytes | None = None,
        kinds: Collection[str] | None = AUDITED,
    ) -> None:
        self.path = Path(os.path.realpath(path if path is not None else home() / "audit.jsonl"))
        self.limits = BatchLimits(linger=0.1)
        self.destination = f"audit {self.path}"
        self.failing: str | None = None
        self._kinds = None if kinds is None else frozenset(kinds)
        self._file = ChainFile(self.path, own_key() if key is None else Key(key))

    def __repr__(self) -> str:
        return f"AuditFileSink({str(self.path)!r})"

    def emit(self, event: TelemetryEvent) -> None:
        """Commit one event now. Raises `OSError` and `AuditFileError`."""
        self._append([encode(event)])

    # ── Fed from a spool ──

    def open(self) -> None:
        """Make the file, and mend what a crash left. Raises `OSError` and `AuditFileError`."""
        self._file.begin()

    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None:
        """Commit a batch. Raises `OSError` and `AuditFileError`, to be called again."""
        try:
            self._append([event.data for event in batch])
        except (OSError, AuditFileError) as error:
            self.failing = str(error)
            raise
        self.failing = None
        return None

    def close(self) -> None:
        """Nothing is open between two batches."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def _append(self, events: Sequence[bytes]) -> None:
        kept = [event for event in events if self._wanted(event)]
        if kept:
            self._file.append(kept)

    def _wanted(self, event: bytes) -> bool:
        if self._kinds is None:
            return True
        told = _events.decode(event)
        return told.kind in self._kinds or (told.kind == "system_message" and told.payload.subtype == "telemetry_loss")
