"""The files of a chain: where they are, one writer at a time, and replacing them for good."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from computeragent.errors import AuditFileError
from computeragent.settings import home

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another writer."""

_PAUSE = 0.005


def head_path(path: Path) -> Path:
    """Where the head of a chained file is: beside it."""
    return path.with_name(f"{path.name}.head")


def witness_path(path: Path) -> Path:
    """Where this machine keeps its copy of a file's head."""
    name = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return home("keys", "audit-heads") / f"{name}.head"


@contextmanager
def held(path: Path) -> Generator[int]:
    """A file, made when missing (mode 0600), while nobody else holds it. Raises `AuditFileError`, `OSError`."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if lock(file, fcntl.LOCK_EX, deadline) and _is_at(file, path):
                yield file
                return
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # also for a child that was forked meanwhile
            os.close(file)
        if time.monotonic() > deadline:
            raise AuditFileError(f"{path} is held by another process", hint=f"Find it with: fuser {path}")


def replace_file(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 in the place of another, for good; whoever reads sees the one or the other."""
    part = path.with_name(f"{path.name}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    part.replace(path)


def sync_folder(path: Path) -> None:
    """Have what was renamed in a folder survive a power cut. Raises `OSError`."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_all(file: int, data: bytes) -> None:
    """Write all of it. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def lock(file: int, operation: int, deadline: float) -> bool:
    """Lock a file, with an operation of `fcntl`; False when others hold it beyond the deadline (monotonic)."""
    while True:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def _is_at(file: int, path: Path) -> bool:
    """Whether a path still means an open file: it may have been moved away before it was locked."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
