"""The files that a call names: which arguments of which tools are paths, and where these paths lead."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, cast
from urllib.parse import unquote

from computeragent.policy.risk import Command, Script, Word
from computeragent.policy.rules.arguments import named_texts

Access = Literal["read", "write", "any"]

FILE_ARGUMENTS: Mapping[str, tuple[Access, tuple[str, ...]]] = {
    "read": ("read", ("file_path", "path")),
    "notebookread": ("read", ("notebook_path",)),
    "ls": ("read", ("path",)),
    "tree": ("read", ("path",)),
    "glob": ("read", ("path",)),
    "grep": ("read", ("path",)),
    "write": ("write", ("file_path", "path")),
    "edit": ("write", ("file_path", "path")),
    "multiedit": ("write", ("file_path", "path")),
    "notebookedit": ("write", ("notebook_path",)),
    "delete": ("write", ("file_path", "path")),
    "rm": ("write", ("file_path", "path")),
}
"""By tool, in small letters: what it does with files, and the arguments that name them, of which it takes one."""

OTHER_ARGUMENTS = (
    "file_path", "path", "paths", "file", "files", "filename", "notebook_path", "directory", "source", "destination"
)  # fmt: skip
"""The arguments that name files for any other tool, MCP tools among them: they may be read or written."""

_FILE_WORDS = frozenset(
    {"path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames", "dir", "dirs", "directory"}
    | {"directories", "folder", "folders", "src", "dst", "dest"}
)
"""Last words of names that say the same in any other spelling, at any depth: ``absolutePath``, ``target_file``."""
_FILE_URL = re.compile(r"file:(?://[^/]*)?(/.*)", re.IGNORECASE | re.DOTALL)

_AT_WORK = frozenset({"ls", "tree", "glob", "grep"})
"""The tools that begin in the working folder unless told otherwise."""
HARMLESS = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/tty", "/dev/zero", "/dev/urandom"})


@dataclass(frozen=True, slots=True)
class FileUse:
    """A file that a call names. `paths` are where it may lead, in plain form; none where that cannot be told.

    A `glob` stands for many files. A `tree` is searched with all that is below it, for names that fit `names`.
    """

    access: Access
    written: str
    paths: tuple[str, ...] = ()
    glob: bool = False
    tree: bool = False
    names: str | None = None


def tool_files(tool: str, tool_input: Mapping[str, Any], cwd: str | None) -> list[FileUse]:
    """The files that a call of a tool names; for a shell see `command_files`."""
    name = tool.lower()
    known = FILE_ARGUMENTS.get(name)
    if known is None:
        return _other_files(tool_input, cwd)
    access, arguments = known
    given = [tool_input[argument] for argument in arguments if tool_input.get(argument) is not None]
    if not given and name in _AT_WORK:
        given = ["."]
    if name == "glob":
        return [_searched(given[0], tool_input.get("pattern"), cwd)]
    uses = [_use(access, value, cwd) for value in given] or [FileUse(access, "")]
    if name == "grep":
        return [_tree(use, tool_input.get("glob")) for use in uses]
    return uses


def _other_files(tool_input: Mapping[str, Any], cwd: str | None) -> list[FileUse]:
    """The files that a call of a tool names that nobody knows."""
    given = [value for name in OTHER_ARGUMENTS if name in tool_input for value in _values(tool_input[name])]
    for name, text in named_texts(tool_input):
        if text[:5].lower() == "file:" and (url := _FILE_URL.fullmatch(text)) is not None:
            given.append(unquote(url[1]))
        elif name in _FILE_WORDS and text and text not in given:
            given.append(text)
    return [_use("any", value, cwd) for value in given]


def _values(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _use(access: Access, value: Any, cwd: str | None) -> FileUse:
    if not isinstance(value, str) or not value or "\0" in value or len(value) > 4096:
        return FileUse(access, str(value)[:100])
    return FileUse(access, value, places(value, (cwd,)))


def _tree(use: FileUse, names: Any) -> FileUse:
    tree = not (use.paths and all(os.path.isfile(path) for path in use.paths))  # noqa: PTH113
    plain = isinstance(names, str) and not set("{}!/,") & set(names)
    return FileUse(use.access, use.written, use.paths, tree=tree, names=names if plain else None)


def _searched(start: Any, pattern: Any, cwd: str | None) -> FileUse:
    """What Glob looks at: the folder that its pattern begins with."""
    if not isinstance(start, str) or not isinstance(pattern, str) or "\0" in start + pattern:
        return FileUse("read", str(pattern)[:100])
    parts = pattern.split("/")
    plain = next((at for at, part in enumerate(parts) if set("*?[{(") & set(part)), max(len(parts) - 1, 0))
    if _LEAVING.search("/".join(parts[plain:])) is not None:
        return FileUse("read", pattern)
    return _use(
        "read", posixpath.join(start, "/".join(parts[:plain]) or ("/" if pattern.startswith("/") else ".")), cwd
    )


_LEAVING = re.compile(r"(?:^|[/{,(|])(?:\.\.(?:[/},)|]|$)|(?<=[{,(|])[/~])")
"""A step upwards, or to elsewhere, behind the beginning of a pattern: also as one choice of several."""


def places(written: str, folders: Sequence[str | None]) -> tuple[str, ...]:
    """Where a path may lead from these folders: as it is spelled, and where it really leads on this machine.

    Empty where one of the folders is unknown and the path is relative.
    """
    starts: list[str] = []
    if written.startswith("~"):
        if written != "~" and not written.startswith("~/"):
            return ()
        starts.append(os.path.expanduser("~") + written[1:])  # noqa: PTH111 - text, not a file
    if written.startswith("/"):
        starts.append(written)
    else:
        for folder in folders:
            if folder is None:
                return ()
            starts.append(folder + "/" + written)
    found: dict[str, None] = {}
    for start in starts:
        plain = posixpath.normpath(start)
        found["/" + plain.lstrip("/")] = None
        found[real_path(start)] = None
    return tuple(found)


def real_path(path: str) -> str:
    """Where a path leads on this machine, links followed; what does not exist is spelled out."""
    folder, _, name = path.rpartition("/")
    try:
        if _PROC:
            if (found := _opened(path)) is not None:
                return found
            if name not in {"", ".", ".."} and not os.path.lexists(path) and (found := _opened(folder)) is not None:
                return f"{found.rstrip('/')}/{name}"  # a new file
        return os.path.realpath(path)
    except (OSError, ValueError):
        return posixpath.normpath(path)


def _opened(path: str) -> str | None:
    """Where the system finds it: a third of the time that following it here would take."""
    try:
        handle = os.open(path or "/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
    finally:
        os.close(handle)


_PROC = hasattr(os, "O_PATH") and os.path.isdir("/proc/self/fd")  # noqa: PTH112


# ── What a shell line names ──────────────────────────────────────────────────────────────────────────────────


def folders(script: Script, cwd: str | None, started_in: Sequence[Any] = ()) -> tuple[str | None, ...]:
    """The folders that a line may be in, as far as ``cd`` says so; None among them where it cannot be told.

    Behind a link a folder is both where it is spelled and where it leads: ``cd -P ..`` goes up from there.
    `started_in` are folders that the call itself names for its line.
    """
    found: list[str | None] = [cwd]
    for value in started_in:
        found.extend(_entered(value, [cwd]) if isinstance(value, str) else (None,))
    for command in script.commands:
        if command.program not in {"cd", "pushd", "popd"}:
            continue
        words = [word for word in command.words[1:] if word.text not in {"--", "-P", "-L"}]
        if len(words) != 1 or not words[0].known or words[0].text == "-" or len(found) > 8:
            return (None,)
        found = list(dict.fromkeys((*found, *_entered(words[0].text, found))))
    for command in script.commands:
        for word in _chosen_folders(command):
            found.extend(_entered(word.text, found) if word.known and len(found) <= 16 else (None,))
    return tuple(dict.fromkeys(found))


def _entered(written: str, starts: Sequence[str | None]) -> list[str | None]:
    """Where one is after changing to a folder; None where that cannot be told."""
    return [place for start in starts for place in (places(written, (start,)) if start else ()) or (None,)]


def _chosen_folders(command: Command) -> Iterator[Word]:
    """The folders that a program is told to work in, as by ``git -C`` and ``tar --directory``."""
    for at, word in enumerate(command.words[1:], 1):
        found = _CHOOSING.match(word.text)
        if found is not None and found.end() < len(word.text):
            yield replace(word, text=word.text[found.end() :])
        elif found is not None and at + 1 < len(command.words) and not word.text.endswith("="):
            yield command.words[at + 1]


_CHOOSING = re.compile(r"-C|--(?:directory|cwd|chdir|work-tree|workdir)(?:=|$)")


def command_files(command: Command, starts: Sequence[str | None]) -> list[FileUse]:
    """The files that a command may name: any word may be one."""
    if command.unclear is not None and not command.words:
        return [FileUse("any", "")]
    uses = list(_redirected(command, starts))
    if command.unclear is not None:
        uses.append(FileUse("any", str(command)[:100]))
    for word in command.words[1:]:
        text = word.text
        if text.startswith("-") and word.known:
            _, equals, value = text.partition("=")
            text = value if equals else text[2:] if not text.startswith("--") and {"/", "."} & set(text) else ""
        if "://" in text:
            continue
        uses += [_word("any", Word(part, word.known, word.one, word.glob, word.tilde), starts) for part in _parts(text)]
    if command.words and "/" in command.words[0].text:
        uses.append(_word("read", command.words[0], starts))
    return uses


def _parts(text: str) -> list[str]:
    """A word, and what stands beside a mark in it, as in ``if=file``, ``@file``, ``HEAD:file`` and ``file:/mount``."""
    marks = [found.end() for found in islice(_MARKS.finditer(text), 8)]
    lists = text.split(":", 8)[:8] if ":" in text else ()
    return [part for part in dict.fromkeys((text, *(text[at:] for at in marks), *lists)) if part]


_MARKS = re.compile(r"[=@:]")


def _redirected(command: Command, starts: Sequence[str | None]) -> Iterator[FileUse]:
    for redirect in command.redirects:
        for access, path in (("write", redirect.writes), ("read", redirect.reads)):
            if path is not None and path not in HARMLESS:
                yield _word(cast("Access", access), redirect.target, starts)


def _word(access: Access, word: Word, starts: Sequence[str | None]) -> FileUse:
    if len(word.text) > 4096 or "\0" in word.text or not (word.known or word.glob):
        return FileUse(access, word.text[:100])
    return FileUse(access, word.text, places(word.text, starts), glob=word.glob)
