"""`JsonlSink`: events as lines of JSON in a file."""

from __future__ import annotations

import os
from pathlib import Path

from computeragent.errors import ValidationError
from computeragent.telemetry.event import TelemetryEvent, encode

MAX_BYTES = 256 * 1024 * 1024


class JsonlSink:
    """Appends each event as one line to a file, mode 0600, made when missing.

    At `max_bytes` (default 256 MiB) the file becomes ``<name>.1``, the one before ``<name>.2``, and so on; `keep` of
    them stay. A line that a crash cut short is ended first, so that it spoils no other. Raises `OSError` when the disk
    is full, which the pipeline counts.
    """

    def __init__(
        self, path: str | os.PathLike[str] = "telemetry.jsonl", *, max_bytes: int = MAX_BYTES, keep: int = 2
    ) -> None:
        if max_bytes < 1 or keep < 0:
            raise ValidationError("max_bytes must be above 0, keep at least 0", hint="Leave them out for the defaults.")
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._size = 0

    def __repr__(self) -> str:
        return f"JsonlSink({str(self.path)!r})"

    async def emit(self, event: TelemetryEvent) -> None:
        """Append one event."""
        line = encode(event) + b"\n"
        if self._file is None:
            self._file = self._open()
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
            self._file = self._open()
        written = os.write(self._file, line)
        self._size += written
        if written < len(line):
            self._close()  # the next event opens it anew, which ends the line that was cut short
            raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")

    async def flush(self, timeout: float = 5.0) -> None:
        """Nothing to do: every event is written at once."""
        del timeout

    async def aclose(self) -> None:
        """Close the file."""
        self._close()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._size = os.fstat(file).st_size
            if self._size and os.pread(file, 1, self._size - 1) != b"\n":
                self._size += os.write(file, b"\n")
        except BaseException:
            os.close(file)
            raise
        return file

    def _rotate(self) -> None:
        self._close()
        for number in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)
        if not self._keep:
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
