"""The one path jail: file operations under a directory that no path, link or race leaves.

Every path is resolved by the kernel, beneath an open directory (``openat2`` with ``RESOLVE_BENEATH``), so that a
link swapped in between check and use changes nothing. Where the kernel has no ``openat2``, paths are walked one
component at a time and symbolic links are refused.
"""

from __future__ import annotations

import errno
import functools
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from computeragent.errors import ComputerAgentError, NotFoundError, PathEscapeError, WorkspaceError

MAX_READ = 256 * 1024 * 1024
"""The largest file that one read returns, in bytes."""
MAX_DEPTH = 8
"""The deepest listing."""

_O_PATH = getattr(os, "O_PATH", os.O_RDONLY)
_DIRECTORY = _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYS_OPENAT2 = 437
_RESOLVE_BENEATH_NO_MAGICLINKS = 0x08 | 0x02


@dataclass(frozen=True, slots=True)
class JailEntry:
    """A file, directory or symbolic link. `path` is relative to the listed directory, `mtime` in milliseconds."""

    path: str
    type: Literal["file", "dir", "symlink"]
    size: int
    mtime: int
    mode: int


class Jail:
    """File operations on paths relative to `root`, which must exist. Safe to share between threads."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.realpath(root))

    def read_bytes(self, rel: str, *, limit: int = MAX_READ) -> bytes:
        """A file's content. A file larger than `limit` is an error."""
        parts = _parts(rel)
        with _said(rel), self._open(parts, _READ) as fd:
            size = _regular(fd, rel).st_size
            if size > limit:
                raise WorkspaceError(f"{_show(rel)} has {size} bytes", hint=f"One read returns at most {limit} bytes.")
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read(limit + 1)[:limit]

    def write_bytes(self, rel: str, data: bytes, *, mode: int | None = None) -> int:
        """Write a file whole or not at all, creating its parents; return its size.

        Without `mode` an existing file keeps its permissions and a new one gets the usual ones.
        """
        parts = _parts(rel, allow_root=False)
        with _said(rel), self._parent(parts, create=True) as parent:
            present = _lstat(parent, parts[-1])
            if present is not None and stat.S_ISLNK(present.st_mode):
                self._write_through_link(parts, rel, data, mode)
                return len(data)
            if present is not None and not stat.S_ISREG(present.st_mode):
                raise _not_a_file(present, rel)
            kept = stat.S_IMODE(present.st_mode) if present is not None and mode is None else mode
            _replace(parent, parts[-1], data, kept)
        return len(data)

    def edit(self, rel: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Replace the first occurrence of `old`, or every one; return how many were replaced."""
        if not old:
            raise WorkspaceError("the text to replace must not be empty", hint="Use write to create or fill a file.")
        before, after = _encoded(old), _encoded(new)
        data = self.read_bytes(rel)
        found = data.count(before)
        if not found:
            raise WorkspaceError(
                f"old_string not found in {_show(rel)}", hint="Read the file: the text must match to the byte."
            )
        count = found if replace_all else 1
        self.write_bytes(rel, data.replace(before, after, count))
        return count

    def mkdir(self, rel: str, *, parents: bool = False) -> None:
        """Make a directory. With `parents` its parents too, and it may exist already."""
        parts = _parts(rel)
        if not parents and not parts:
            raise WorkspaceError("the workspace itself exists already", hint="Name a directory inside it.")
        with _said(rel):
            if parents:
                with self._directory(parts, create=True):
                    return
            with self._parent(parts) as parent:
                os.mkdir(parts[-1], dir_fd=parent)

    def move(self, source: str, target: str) -> None:
        """Rename, creating the target's parents and replacing a file that is there. Links move as links."""
        here, there = _parts(source, allow_root=False), _parts(target, allow_root=False)
        with _said(source), self._parent(here) as source_dir:
            os.stat(here[-1], dir_fd=source_dir, follow_symlinks=False)
            with _said(target), self._parent(there, create=True) as target_dir:
                try:
                    os.replace(here[-1], there[-1], src_dir_fd=source_dir, dst_dir_fd=target_dir)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    raise WorkspaceError(
                        f"{_show(source)} and {_show(target)} are on different file systems", hint="Write it anew."
                    ) from None

    def delete(self, rel: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive` a directory and all in it. Never the root."""
        parts = _parts(rel, allow_root=False)
        with _said(rel), self._parent(parts) as parent:
            found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(parts[-1], dir_fd=parent)
            elif recursive:
                _remove_tree(parent, parts[-1])
            else:
                os.rmdir(parts[-1], dir_fd=parent)

    def tree(self, rel: str = ".", *, depth: int = 1) -> list[JailEntry]:
        """What is in a directory, in order of names, each directory before its content.

        `depth` counts the levels below the direct children (0: those alone); negative means 1, at most 8.
        """
        levels = 1 if depth < 0 else min(depth, MAX_DEPTH)
        with _said(rel), self._open(_parts(rel), _LIST) as fd:
            return list(_walk(fd, "", levels))

    def directory(self, rel: str) -> Path:
        """The real path of a directory inside the root."""
        parts = _parts(rel)
        with _said(rel), self._directory(parts):
            return Path(os.path.realpath(self.root.joinpath(*parts)))

    @contextmanager
    def _open(self, parts: list[str], flags: int) -> Generator[int]:
        """An open file beneath the root. With no parts, the root."""
        root = self._open_root()
        try:
            fd = _open_beneath(root, parts, flags)
        finally:
            os.close(root)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open_root(self) -> int:
        try:
            return os.open(self.root, _DIRECTORY)
        except OSError:
            raise NotFoundError(
                "the workspace directory does not exist", hint="It was removed, or never made; start a new session."
            ) from None

    def _parent(self, parts: list[str], *, create: bool = False) -> AbstractContextManager[int]:
        return self._directory(parts[:-1], create=create)

    @contextmanager
    def _directory(self, parts: list[str], *, create: bool = False) -> Generator[int]:
        if create:
            self._make_missing(parts)
        with self._open(parts, _DIRECTORY) as fd:
            yield fd

    def _make_missing(self, parts: list[str]) -> None:
        existing = len(parts)
        while existing:
            try:
                with self._open(parts[:existing], _DIRECTORY):
                    break
            except FileNotFoundError:
                existing -= 1
        for index in range(existing, len(parts)):
            with self._open(parts[:index], _DIRECTORY) as fd:
                try:
                    os.mkdir(parts[index], dir_fd=fd)
                except FileExistsError:  # made by someone else meanwhile, or a dangling link, which opening refuses
                    continue

    def _write_through_link(self, parts: list[str], rel: str, data: bytes, mode: int | None) -> None:
        """Write the file that a link inside the root points to. In place, for its directory is not known."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        with self._open(parts, flags) as fd:
            if _regular(fd, rel).st_nlink > 1:
                raise WorkspaceError(
                    f"{_show(rel)} is a link to a file with several names", hint="Delete the link and write anew."
                )
            os.ftruncate(fd, 0)
            _write_all(fd, data)
            if mode is not None:
                os.fchmod(fd, mode)


# ── Paths and errors ─────────────────────────────────────────────────────────────────────────────────────────


def _parts(rel: object, *, allow_root: bool = True) -> list[str]:
    if not isinstance(rel, str) or not rel.strip():
        raise WorkspaceError("path must be a non-empty string", hint="Give a path relative to the workspace.")
    if "\0" in rel:
        raise WorkspaceError("path contains a null byte", hint="Remove it; no file name can contain one.")
    if rel.startswith("/"):
        raise PathEscapeError("absolute paths are not allowed", hint="Give a path relative to the workspace.")
    parts = [part for part in rel.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise PathEscapeError("parent traversal is not allowed", hint="Give the path without '..' in it.")
    if len(_encoded(rel)) > 4095 or any(len(_encoded(part)) > 255 for part in parts):
        raise WorkspaceError("path is too long", hint="A name has at most 255 bytes, a path 4095.")
    if not parts and not allow_root:
        raise WorkspaceError("the workspace itself cannot be written, moved or deleted", hint="Name something in it.")
    return parts


def _encoded(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise WorkspaceError("text is not valid Unicode", hint="It has half of a surrogate pair.") from None


def _show(rel: str) -> str:
    shown = rel if rel.isprintable() else ascii(rel)[1:-1]
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


@contextmanager
def _said(rel: str) -> Generator[None]:
    """Turn the system's errors into ours, which name the path as it was given."""
    try:
        yield
    except OSError as error:
        raise _as_ours(error, rel) from None


def _as_ours(error: OSError, rel: str) -> ComputerAgentError:
    path = _show(rel)
    match error.errno:
        case errno.ENOENT:
            return NotFoundError(f"{path} does not exist", hint="List the directory to see what is there.")
        case errno.EXDEV:
            return PathEscapeError(
                f"{path} resolves outside the workspace",
                hint="Symbolic links must be relative and stay inside the workspace.",
            )
        case errno.ELOOP:
            return PathEscapeError(f"{path} goes through a link that cannot be followed", hint="Name the file itself.")
        case errno.EEXIST:
            return WorkspaceError(f"{path} exists already", hint="Choose another name, or delete it first.")
        case errno.ENOTDIR:
            return WorkspaceError(f"{path} is not a directory, or goes through a file", hint="Check each part of it.")
        case errno.EISDIR:
            return WorkspaceError(f"{path} is a directory", hint="Name a file in it.")
        case errno.ENOTEMPTY:
            return WorkspaceError(f"{path} is a directory that is not empty", hint="Delete it with recursive.")
        case errno.ENXIO:
            return WorkspaceError(f"{path} is not a regular file", hint="Pipes, sockets and devices are left alone.")
        case errno.EINVAL:
            return WorkspaceError(f"{path} cannot be used here", hint="A directory cannot move into itself.")
        case _:
            reason = os.strerror(error.errno) if error.errno else "unknown error"
            return WorkspaceError(f"{path}: {reason}", hint="The file system refused; check permissions and space.")


def _not_a_file(found: os.stat_result, rel: str) -> ComputerAgentError:
    return _as_ours(OSError(errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.ENXIO, ""), rel)


def _regular(fd: int, rel: str) -> os.stat_result:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise _not_a_file(found, rel)
    return found


# ── Opening beneath ──────────────────────────────────────────────────────────────────────────────────────────


def _open_beneath(root: int, parts: list[str], flags: int) -> int:
    call = _openat2()
    return _walk_open(root, parts, flags) if call is None else call(root, "/".join(parts) or ".", flags)


def has_openat2() -> bool:
    """Whether the kernel resolves paths beneath a directory for us; otherwise they are walked step by step."""
    return _openat2() is not None


@functools.cache
def _openat2() -> Any:
    """The system call as ``(directory, path, flags) -> fd``, or None where the kernel or a filter refuses it."""
    try:
        import ctypes
    except ImportError:  # a Python built without it
        return None

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    try:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None

    def call(directory: int, path: str, flags: int) -> int:
        how = OpenHow(flags, 0o666 if flags & os.O_CREAT else 0, _RESOLVE_BENEATH_NO_MAGICLINKS)
        for _ in range(1000):  # EAGAIN: something was renamed while the kernel walked a '..' in a link
            fd = syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if fd >= 0:
                return fd
            if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
                break
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    try:
        os.close(call(-100, ".", _DIRECTORY))
    except OSError:
        return None
    return call


def _walk_open(root: int, parts: list[str], flags: int) -> int:
    """Without ``openat2``: one component at a time, refusing symbolic links."""
    current = os.dup(root)
    try:
        for index, name in enumerate(parts or ["."]):
            last = index >= len(parts) - 1
            try:
                deeper = os.open(name, (flags if last else _DIRECTORY) | os.O_NOFOLLOW, 0o666, dir_fd=current)
            except NotADirectoryError:
                found = _lstat(current, name)
                if found is not None and stat.S_ISLNK(found.st_mode):
                    raise OSError(errno.ELOOP, "") from None
                raise
            os.close(current)
            current = deeper
    except BaseException:
        os.close(current)
        raise
    return current


# ── Work on open directories ─────────────────────────────────────────────────────────────────────────────────


def _lstat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _replace(directory: int, name: str, data: bytes, mode: int | None) -> None:
    temporary = f".{secrets.token_hex(8)}.tmp"
    fd = os.open(temporary, _NEW, 0o666 if mode is None else mode & 0o7777, dir_fd=directory)
    try:
        try:
            _write_all(fd, data)
            if mode is not None:  # the mode at creation was reduced by the umask
                os.fchmod(fd, mode & 0o7777)
        finally:
            os.close(fd)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _walk(fd: int, prefix: str, levels: int) -> Iterator[JailEntry]:
    with os.scandir(fd) as found:
        names = sorted(entry.name for entry in found)
    for name in names:
        status = _lstat(fd, name)
        if status is None:
            continue
        path = prefix + os.fsencode(name).decode("utf-8", "replace")
        is_dir = stat.S_ISDIR(status.st_mode)
        kind = "dir" if is_dir else "symlink" if stat.S_ISLNK(status.st_mode) else "file"
        yield JailEntry(path, kind, status.st_size, status.st_mtime_ns // 1_000_000, status.st_mode)
        if is_dir and levels:
            try:
                inner = os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:  # gone, replaced or not readable: listed, not entered
                continue
            try:
                yield from _walk(inner, f"{path}/", levels - 1)
            finally:
                os.close(inner)


def _remove_tree(parent: int, name: str) -> None:
    """Remove a directory of any depth with two open files: what lies deeper is first moved up into it."""
    top = os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=parent)
    try:
        pending = _empty(top, into=None)
        while pending:
            inner_name = pending.pop()
            try:
                inner = os.open(inner_name, _LIST | os.O_NOFOLLOW, dir_fd=top)
            except (NotADirectoryError, FileNotFoundError):  # swapped for something else meanwhile
                _unlink_quietly(top, inner_name)
                continue
            try:
                pending += _empty(inner, into=top)
            finally:
                os.close(inner)
            os.rmdir(inner_name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(fd: int, *, into: int | None) -> list[str]:
    """Unlink what is no directory; return the directories' names, moved `into` another one under fresh names."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    if entries and not os.fstat(fd).st_mode & 0o200:  # read-only, as package caches make their directories
        os.fchmod(fd, 0o700)
    directories: list[str] = []
    for name, is_dir in entries:
        if not is_dir:
            _unlink_quietly(fd, name)
        elif into is None:
            directories.append(name)
        else:
            fresh = f".{secrets.token_hex(8)}.gone"
            try:
                os.rename(name, fresh, src_dir_fd=fd, dst_dir_fd=into)
            except PermissionError:
                _make_writable(fd, name)  # moving a directory changes its '..'
                os.rename(name, fresh, src_dir_fd=fd, dst_dir_fd=into)
            directories.append(fresh)
    return directories


def _make_writable(directory: int, name: str) -> None:
    fd = os.open(name, _LIST | os.O_NOFOLLOW, dir_fd=directory)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _unlink_quietly(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
