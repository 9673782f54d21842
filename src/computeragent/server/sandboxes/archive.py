"""Workspaces as gzipped tars: packed without following a link, unpacked without trusting a name.

``.git`` stays out on both ways. It may hold credentials, and its hooks and config make git run programs on this side
of the sandbox; a restored workspace keeps the ``.git`` that fetching its source brings.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from computeragent.errors import ComputerAgentError
from computeragent.jail import Jail
from computeragent.server.sandboxes.errors import RestoreError, SnapshotError

GIT = ".git"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1024 * 1024
_LONGEST_LINK = 4096


@dataclass(frozen=True, slots=True)
class Packed:
    """What went into an archive: regular files and links, and the bytes of the files."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that an archive may hold."""

    files: int
    bytes: int


def pack(root: Path, target: Path, caps: Caps) -> Packed:
    """Write everything under `root` to `target`, whatever the depth. Raises `SnapshotError` above the caps.

    Links are kept as links. Left out are links that lead out, pipes, sockets, devices and what vanishes meanwhile.
    Memory stays flat.
    """
    files = size = 0
    with (
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry, file in _entries(root):
            with file:
                files += not entry.isdir()
                size += entry.size
                if files > caps.files or size > caps.bytes:
                    raise SnapshotError(
                        f"the workspace has more than {caps.files} files or {caps.bytes} bytes",
                        hint="Remove what can be made again, or raise the server's limits.",
                    )
                tar.addfile(entry, file if entry.isreg() else None)
    return Packed(files, size)


def unpack(source: Path, root: Path, caps: Caps) -> None:
    """Make `root` what the archive says, but for its ``.git``: whole, or not at all. Raises `RestoreError`.

    Refused are absolute paths, ``..``, links that lead out, hard links, devices, and more than the caps.
    """
    staging = root.with_name(f"{root.name}.restoring")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        try:
            _extract(source, staging, caps)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise RestoreError(f"the snapshot is damaged: {error}", hint="Take another one.") from error
        _replace(root, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# ── Packing ──────────────────────────────────────────────────────────────────────────────────────────────────


def _entries(root: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Every entry below `root`, through open directories, so that nothing that is swapped meanwhile leads out."""
    for folder, directories, names, fd in os.fwalk(root, follow_symlinks=False):
        directories[:] = sorted(name for name in directories if name != GIT)
        for name in [*directories, *sorted(names)]:
            if name == GIT:
                continue
            path = PurePosixPath(folder).relative_to(PurePosixPath(root)) / name
            found = _entry(str(path), name, fd)
            if found is not None:
                yield found


def _entry(path: str, name: str, fd: int) -> tuple[tarfile.TarInfo, IO[bytes]] | None:
    entry = tarfile.TarInfo(path)
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=fd)
            leads_out = _leads_out(PurePosixPath(path), entry.linkname)
            return None if leads_out else (_described(entry, status), io.BytesIO())
        if stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
            return _described(entry, status), io.BytesIO()
        if not stat.S_ISREG(status.st_mode):
            return None
        opened = os.open(name, _FILE, dir_fd=fd)
    except OSError:
        return None
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        return None
    entry.size = status.st_size
    return _described(entry, status), cast("IO[bytes]", _Steady(os.fdopen(opened, "rb")))


def _described(entry: tarfile.TarInfo, status: os.stat_result) -> tarfile.TarInfo:
    entry.mode = stat.S_IMODE(status.st_mode) & 0o777
    entry.mtime = int(status.st_mtime)
    return entry


class _Steady:
    """A file that always has as many bytes as it had when it was opened: what is cut off meanwhile reads as zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, b"\0")

    def __enter__(self) -> _Steady:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


# ── Unpacking ────────────────────────────────────────────────────────────────────────────────────────────────


def _extract(source: Path, staging: Path, caps: Caps) -> None:
    jail = Jail(staging)
    links: list[tarfile.TarInfo] = []
    entries = size = 0
    with (
        source.open("rb") as raw,
        gzip.GzipFile(fileobj=raw, mode="rb") as zipped,
        tarfile.open(fileobj=cast("IO[bytes]", _Bounded(zipped, caps)), mode="r|") as tar,
    ):
        for entry in tar:
            entries += 1
            size += max(0, entry.size)
            if entries > 2 * caps.files + 1000 or size > caps.bytes:
                raise RestoreError("the snapshot is larger than this server allows", hint="Raise the server's limits.")
            path = _safe(entry.name)
            if GIT in path.parts:
                continue
            if entry.issym():
                links.append(entry)
            elif entry.isdir():
                _told(entry.name, jail.mkdir, str(path), parents=True)
            elif entry.isreg():
                _write(tar, entry, staging, path)
            else:
                raise _refused(entry.name, "is neither file, directory nor link")
    for entry in links:  # last of all: nothing is ever written through one
        _link(entry, staging)


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, staging: Path, path: PurePosixPath) -> None:
    """There are no links in staging yet, so a path without ``..`` stays in it."""
    content = tar.extractfile(entry)
    assert content is not None
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if entry.mode & 0o100 else 0o644
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
    os.utime(target, (entry.mtime, entry.mtime))


def _link(entry: tarfile.TarInfo, staging: Path) -> None:
    path = _safe(entry.name)
    if _leads_out(path, entry.linkname):
        raise _refused(entry.name, "is a link that leads out")
    parent = staging
    for part in path.parts[:-1]:
        parent = parent / part
        if parent.is_symlink():
            raise _refused(entry.name, "lies behind a link")
        parent.mkdir(exist_ok=True)
    (parent / path.name).symlink_to(entry.linkname or ".")


def _leads_out(path: PurePosixPath, target: str) -> bool:
    """Not so for a target that climbs no higher than the root, and climbs before it descends: no chain leads out."""
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    is_odd = target.startswith("/") or "\0" in target or len(target) > _LONGEST_LINK
    return is_odd or ".." in parts[ups:] or ups > len(path.parts) - 1


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or len(os.fsencode(name)) > 4095:
        raise _refused(name, "leaves the workspace")
    return path


def _refused(name: str, why: str) -> RestoreError:
    return RestoreError(f"the snapshot is refused: {name[:200]!a} {why}", hint="Nothing was changed.")


def _told(name: str, do: Any, *args: Any, **named: Any) -> None:
    try:
        do(*args, **named)
    except RestoreError:
        raise
    except ComputerAgentError as error:
        raise _refused(name, f"cannot be made: {error.message}") from error


class _Bounded:
    """A reader that stops a bomb: more than the caps, headers and padding counted in, is refused while it is read."""

    def __init__(self, file: gzip.GzipFile, caps: Caps) -> None:
        self._file = file
        self._left = caps.bytes + (2 * caps.files + 1000) * 4096 + _CHUNK

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise RestoreError("the snapshot is larger than this server allows", hint="Raise the server's limits.")
        return data


def _replace(root: Path, staging: Path) -> None:
    """Put what was unpacked in place of what is there, but for ``.git``."""
    for path in root.iterdir():
        if path.name == GIT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in staging.iterdir():
        path.rename(root / path.name)
