"""One transcript as one file of JSON lines, written by many processes, whole after any crash.

The first line is a header with the schema version and the original ids. Then come the entries, one per line;
the last line of each batch ends in a space. What follows the last such line is the torn rest of a writer that
died: readers leave it out, the next writer cuts it off. One `write` to the end of the file, under a lock, is one
batch.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from computeragent.errors import StoreError
from computeragent.logs import Logger
from computeragent.stores.entries import Entry, Key, decode, uuid_of
from computeragent.wire.encoding import to_json

_log = Logger("stores.file")
_COMMIT = b" \n"
_VERSION = 1
_HEADER_TYPE = "computeragent.transcript"


class _Uuid(msgspec.Struct):
    uuid: Any = None


_uuids: msgspec.json.Decoder[_Uuid] = msgspec.json.Decoder(_Uuid)


@dataclass
class Seen:
    """What this process knows of a file: the uuids in it, up to `end`. `header` tells a new file of the same name."""

    header: bytes = b""
    end: int = 0
    uuids: set[str] = field(default_factory=set[str])


def append(path: Path, key: Key, batch: list[Entry], seen: Seen, lock_timeout: float) -> None:
    """Write the entries of `batch` that the file does not have, all or none, and bring `seen` up to date."""
    with _locked(path, lock_timeout) as descriptor:
        end = _catch_up(descriptor, path, key, seen)
        fresh = _without_known(batch, seen.uuids)
        if not fresh:
            return
        data = b"\n".join(entry.line for entry in fresh) + _COMMIT
        if not end:
            seen.header = _header(key)
            data = seen.header + data
        _write(descriptor, data, end)
        seen.end = end + len(data)
        seen.uuids.update(entry.uuid for entry in fresh if entry.uuid is not None)


def read(path: Path, key: Key) -> list[Any]:
    """All entries of whole batches; lines that are no JSON are logged and left out."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    lines = _whole(data).split(b"\n")
    if len(lines) < 2:
        return []
    _check_header(path, lines[0], key)
    entries: list[Any] = []
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            entries.append(decode(line))
        except ValueError:
            _log.warn("stores.file.bad_line", file=str(path), line=number)
    return entries


def identify(path: Path) -> Key | None:
    """Whose transcript a file is, by its header, or None where no whole batch has been written."""
    try:
        with path.open("rb") as file:
            first = file.readline()
            file.seek(max(len(first), file.seek(0, os.SEEK_END) - len(_COMMIT)))
            if file.read() != _COMMIT:
                file.seek(0)
                if not _whole(file.read()):
                    return None
    except FileNotFoundError:
        return None
    return _key_in(path, first)


def _header(key: Key) -> bytes:
    ids = {"project_key": key.project, "session_id": key.session, "subpath": key.subpath or None}
    return to_json({"type": _HEADER_TYPE, "version": _VERSION, "file_id": uuid4().hex, **ids}) + b"\n"


def _key_in(path: Path, line: bytes) -> Key:
    try:
        header: Any = decode(line)
        key = Key(header["project_key"], header["session_id"], header["subpath"] or "")
        kind, version = header["type"], int(header["version"])
    except (ValueError, TypeError, KeyError):
        kind, version, key = None, 0, Key("", "")
    if kind != _HEADER_TYPE:
        raise StoreError(f"{path} is not a transcript of this store", hint="Move the file out of the store's folder.")
    if version > _VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this program knows {_VERSION}", hint="Upgrade computer-agent-py."
        )
    return key


def _check_header(path: Path, line: bytes, key: Key) -> None:
    if _key_in(path, line) != key:  # a file system that does not tell upper from lower case
        raise StoreError(f"{path} holds another session's transcript", hint="Choose ids that differ in more than case.")


def _whole(data: bytes) -> bytes:
    end = data.rfind(_COMMIT)
    return data[: end + len(_COMMIT)] if end >= 0 else b""


def _without_known(batch: list[Entry], known: set[str]) -> list[Entry]:
    fresh: list[Entry] = []
    own: set[str] = set()
    for entry in batch:
        if entry.uuid is not None:
            if entry.uuid in known or entry.uuid in own:
                continue
            own.add(entry.uuid)
        fresh.append(entry)
    return fresh


def _catch_up(descriptor: int, path: Path, key: Key, seen: Seen) -> int:
    """Learn what others wrote since, cut off a torn rest, and return where the file ends now."""
    size = os.fstat(descriptor).st_size
    if size < seen.end or os.pread(descriptor, len(seen.header), 0) != seen.header:
        seen.end = 0
        seen.uuids.clear()
    if size == seen.end:
        return seen.end
    tail = _read_from(descriptor, seen.end, size)
    whole = _whole(tail)
    lines = whole.split(b"\n")[:-1]
    if lines and not seen.end:
        seen.header = lines.pop(0) + b"\n"
        _check_header(path, seen.header, key)
    seen.uuids.update(_uuids_of(lines))
    seen.end += len(whole)
    if len(whole) < len(tail):
        _log.warn("stores.file.torn_batch_removed", file=str(path), bytes=len(tail) - len(whole))
        os.ftruncate(descriptor, seen.end)
    return seen.end


def _uuids_of(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            uuid = uuid_of({"uuid": _uuids.decode(line).uuid})
        except msgspec.DecodeError:
            try:
                uuid = uuid_of(decode(line))
            except ValueError:
                continue
        if uuid is not None:
            yield uuid


def _read_from(descriptor: int, start: int, end: int) -> bytes:
    parts: list[bytes] = []
    while start < end and (part := os.pread(descriptor, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes, end: int) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


@contextmanager
def _locked(path: Path, timeout: float) -> Generator[int]:
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, path, deadline)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a fork may have copied the descriptor, and with it the lock
            os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{path} is locked by another process", hint="Stop the process that holds it."
                ) from None
            time.sleep(0.002)
        else:
            return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one of that name, and was not deleted while we waited for the lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
