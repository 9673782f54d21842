"""The files that a task begins with: of a workspace as it is, or as a commit has it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from subprocess import PIPE

import anyio

from computeragent.errors import NotFoundError, SourceError, TooLargeError
from computeragent.identity.copying import LEFT_OUT
from computeragent.identity.process import git_environment
from computeragent.jail import MAX_DEPTH
from computeragent.protocol_types import FileEntry, Workspace

MOST_FILES = 5_000
MOST_BYTES = 64 * 1024 * 1024
_SECONDS = 60
_CREDENTIALS = frozenset(
    {".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".pgpass", ".git-credentials", ".pypirc"}
    | {".credentials.json", "credentials.db", "application_default_credentials.json"}
)
"""Where programs keep keys of a person's own. A session may have worked in a home folder."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A file, its path relative to the working folder."""

    path: str
    data: bytes
    executable: bool = False


async def files_of(workspace: Workspace) -> list[TaskFile]:
    """The files of a workspace as they are, but for history, keys of a person's own and what can be made again.

    Links are left out, and names that are no UTF-8. Raises `TooLargeError` for more than `MOST_FILES` or `MOST_BYTES`.
    """
    entries = await _listed(workspace)
    _check(len(entries), sum(entry.size for entry in entries))
    found: list[TaskFile] = []
    for each in entries:
        try:
            found.append(TaskFile(each.path, await workspace.read(each.path), bool(each.mode & 0o100)))
        except NotFoundError:  # gone meanwhile, or its name is no text: then it is listed under another
            continue
    return found


async def _listed(workspace: Workspace) -> list[FileEntry]:
    """The files that are wanted, at any depth: one listing goes down `MAX_DEPTH` levels."""
    found: list[FileEntry] = []
    below = [""]
    while below:
        place = below.pop()
        for entry in await workspace.tree(place or ".", depth=MAX_DEPTH):
            path = place + entry.path
            if not _wanted(path):
                continue
            if entry.type == "dir" and entry.path.count("/") == MAX_DEPTH:
                below.append(f"{path}/")
            elif entry.type == "file" and stat.S_IFMT(entry.mode) in {0, stat.S_IFREG}:  # no pipe, socket or device
                found.append(replace(entry, path=path))
        _check(len(found), 0)
    return sorted(found, key=lambda entry: entry.path)


async def files_at(folder: Path, commit: str) -> list[TaskFile] | None:
    """The files of a folder in a checkout, as a commit has them; None where the checkout does not have the commit.

    Contents are read as they are stored: no filter, hook or transport of the repository runs, since an agent may have
    written its configuration. Raises `TooLargeError` as `files_of` does.
    """
    if not _COMMIT.fullmatch(commit):
        return None
    listed = await _git(folder, "ls-tree", "-r", "-l", "-z", commit)
    if listed is None:
        return None
    wanted: list[tuple[str, str, bool]] = []
    size = 0
    for row in listed.split(b"\0"):
        try:
            about, tab, path = row.decode().partition("\t")
        except UnicodeError:  # a name that a task cannot write down
            continue
        mode, _, oid, length = about.split() if tab else ("", "", "", "0")
        if mode in {"100644", "100755"} and _wanted(path):
            wanted.append((path, oid, mode == "100755"))
            size += int(length)
    _check(len(wanted), size)
    stored = await _git(folder, "cat-file", "--batch", given="".join(f"{oid}\n" for _, oid, _ in wanted).encode())
    return None if stored is None else _split(stored, wanted)


def _split(stored: bytes, wanted: list[tuple[str, str, bool]]) -> list[TaskFile] | None:
    """The objects that `git cat-file --batch` wrote one after the other."""
    found: list[TaskFile] = []
    at = 0
    for path, oid, executable in wanted:
        end = stored.index(b"\n", at)
        name, *rest = stored[at:end].decode("ascii", "replace").split()
        if name != oid or len(rest) != 2:
            return None  # a shallow or partial clone that lacks it
        begin, at = end + 1, end + 1 + int(rest[1]) + 1
        found.append(TaskFile(path, stored[begin : at - 1], executable))
    return found


async def _git(folder: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    settings = git_environment(os.environ) | {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    try:
        with anyio.fail_after(_SECONDS):
            done = await anyio.run_process(
                ["git", "--no-pager", "--no-replace-objects", *arguments],
                input=b"" if given is None else given,
                cwd=folder,
                env=settings,
                stderr=PIPE,
                check=False,
            )
    except (OSError, TimeoutError) as error:
        raise SourceError(
            f"git could not read the session's checkout: {error or 'it took too long'}",
            hint="Take the files as they are now: --files now.",
        ) from error
    return done.stdout if done.returncode == 0 else None


def _wanted(path: str) -> bool:
    return not (LEFT_OUT | _CREDENTIALS).intersection(PurePosixPath(path).parts)


def _check(files: int, size: int) -> None:
    if files > MOST_FILES or size > MOST_BYTES:
        raise TooLargeError(
            f"the session's folder has {files} files of {size:,} bytes; a task takes {MOST_FILES} of {MOST_BYTES:,}",
            hint="Leave them out with --files none, and give the task its files by hand.",
        )
