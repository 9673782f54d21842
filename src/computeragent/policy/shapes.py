"""What calls have in common: commands as program and subcommand, paths as the folders that they are in."""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from computeragent.policy.risk import Command, Word, command_risk, shell_script
from computeragent.policy.risk.git import read_git
from computeragent.policy.risk.wrappers import is_installed
from computeragent.policy.rules.calls import Call, Subject
from computeragent.policy.rules.commands import CommandPattern, read_pattern
from computeragent.policy.types import PolicyAction, PolicyInput, PolicyPrincipal, PolicyResource

INTERPRETERS = frozenset(
    "sh bash zsh dash fish python python2 python3 node deno bun perl ruby php lua Rscript osascript".split()  # noqa: SIM905
)
"""Programs that run the code they are given."""
_TAKES_PROGRAM = frozenset({"awk", "gawk", "mawk", "sed", "jq", "yq"})
_RUNNERS = frozenset(
    "make just task npm pnpm yarn npx uvx pipx cargo go docker podman kubectl ssh sudo doas vim vi emacs gdb".split()  # noqa: SIM905
)
"""Programs that can run anything, so that their first words are what counts."""
_FILES = frozenset("rm rmdir unlink chmod chown chgrp truncate dd kill curl wget http xh aria2c scp rsync sftp".split())  # noqa: SIM905
"""Programs whose first word is no subcommand."""
_TWO_WORDS = {
    "git": "remote stash submodule worktree notes bisect reflog sparse-checkout config",
    "npm": "run exec cache config",
    "pnpm": "run exec dlx",
    "yarn": "run workspace dlx",
    "bun": "run x",
    "docker": "compose container image volume network system",
    "podman": "compose container image volume network system",
    "gh": "pr issue repo run release workflow api auth",
    "uv": "run pip tool python",
    "poetry": "run",
    "cargo": "run",
    "go": "mod tool",
    "kubectl": "get describe logs rollout config",
    "aws": "s3 s3api ec2 ecs lambda iam logs sts",
    "dotnet": "tool nuget ef",
}
_PLAIN = re.compile(r"[a-z][a-z0-9:_-]{0,39}")
_INLINE = re.compile(r"-[A-Za-z]*[ceEpr]|--(?:eval|print|execute|command)|-")
_SHOWN = 3
"""Commands of one line that its shape names."""


def call_of(tool: str, tool_input: dict[str, Any], cwd: str | None) -> Call:
    """A call as rules see it; only what it does counts."""
    context = {} if cwd is None else {"cwd": cwd}
    who, what = PolicyPrincipal(""), PolicyAction("tool_use", tool, tool_input)
    return Call(PolicyInput(who, what, PolicyResource(), context))


def shape_of(tool: str, tool_input: dict[str, Any], cwd: str | None) -> str:
    """A call in few words, the same for calls of one kind: ``git status``, ``./src/**``, ``api.example.com``."""
    if shell_script(tool, tool_input) is None:
        (subject,) = call_of(tool, tool_input, cwd).subjects
        places = [place_of(use.paths[0], cwd, folder=searches(tool)) for use in subject.files if use.paths]
        shown = sorted({*places, *(host for host in subject.hosts if host)})[:_SHOWN]
        return " ".join(re.sub(r"\[(.)\]", r"\1", place) for place in shown)
    call = call_of(tool, tool_input, None)
    found = list(dict.fromkeys(map(command_shape, call.subjects)))
    found = [shape for shape in found if shape] or found
    return "; ".join(found[:_SHOWN]) + ("; …" if len(found) > _SHOWN else "")


def command_shape(subject: Subject) -> str:
    """A command in few words."""
    command = subject.command
    if command is None or command.passing:
        return ""
    if command.unclear is not None:
        return f"({command.unclear})"
    words = prefix_of(command)
    return " ".join(word.text[:60] for word in (words if words is not None else command.words[:1]))


def prefix_of(command: Command) -> tuple[Word, ...] | None:
    """The words of a command that say what it does, its program first; None where only all of them together do."""
    words = command.words
    if not words or not words[0].known:
        return None
    name, rest = command.program, words[1:]
    if _unversioned(name) in INTERPRETERS:
        return _code(words)
    if name in _TAKES_PROGRAM:
        return words[:2] if rest and rest[0].known and not rest[0].text.startswith("-") else _with_options(words)
    if name == "git":
        call = read_git(command)
        if call is None or not call.subcommand:
            return None
        return _deeper(name, words, len(call.options) + 2)
    at = next((at for at, word in enumerate(rest, 1) if not word.text.startswith("-")), 0)
    if name in _RUNNERS or name in _TWO_WORDS:
        return _deeper(name, words, at + 1) if at and _plain(words[at]) and _known(words[:at]) else None
    if name in _FILES or _bare_risk(name) in {"low", "medium"}:
        return words[:1]
    return words[:2] if at == 1 and _plain(words[1]) else words[:1]


def pattern_of(command: Command, words: tuple[Word, ...] | None) -> str | None:
    """A rule's pattern for a command that begins with `words`, or for the whole of it. None where there is none."""
    exact = command.words if words is None else words
    if not exact or not _known(exact):
        return None
    program = command.program if is_installed(exact[0].text) else exact[0].text
    texts = [program, *(word.text for word in exact[1:])]
    if any(len(text) > 200 or not text.isprintable() for text in texts):
        return None
    pattern = " ".join(map(_quoted, texts))
    if len(exact) < len(command.words):
        pattern += " *"
    try:
        return pattern if _read(pattern).covers(command) else None
    except ValueError:
        return None


def place_of(path: str, cwd: str | None, *, folder: bool = False) -> str:
    """A path as a pattern: within the working folder the folder below it that it is in, or the file in it; else the
    path itself. A `folder` stands for all that is in it.
    """
    own = None if cwd is None else relative(path, cwd)
    if own is None:
        return escaped(path.rstrip("/")) + "/**" if folder else named(path)
    if own == ".":
        return "./**"
    first, _, deeper = own.partition("/")
    return f"./{escaped(first)}/**" if deeper or folder else "./" + named(own)


def searches(tool: str) -> bool:
    """Whether a tool looks through folders rather than at a file."""
    return tool.lower() in {"glob", "grep", "ls", "tree"}


def relative(path: str, cwd: str) -> str | None:
    """A path from a folder on, ``.`` for the folder itself; None where it is elsewhere."""
    try:
        return str(PurePosixPath(path).relative_to(cwd))
    except ValueError:
        return None


def escaped(text: str) -> str:
    """A text as a glob that matches nothing else."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def named(path: str) -> str:
    """A file's path as a pattern. A name without a dot has a letter in brackets: that says that no folder is meant."""
    folder, slash, name = escaped(path).rpartition("/")
    if "." not in name and "[" not in name:
        name = re.sub(r"([A-Za-z0-9_])", r"[\1]", name, count=1)
    return folder + slash + name


@lru_cache(maxsize=4_096)
def _read(pattern: str) -> CommandPattern:
    return read_pattern(pattern)


def _quoted(text: str) -> str:
    return shlex.quote(escaped(text))


def _plain(word: Word) -> bool:
    return word.known and word.one and _PLAIN.fullmatch(word.text) is not None


def _known(words: tuple[Word, ...]) -> bool:
    return all(word.known and word.one for word in words)


def _unversioned(name: str) -> str:
    return re.sub(r"[\d.]+$", "", name) if name not in INTERPRETERS else name


def _deeper(name: str, words: tuple[Word, ...], size: int) -> tuple[Word, ...] | None:
    """The words up to the subcommand, and the next where that has subcommands of its own."""
    if not _known(words[:size]):
        return None
    two = words[size - 1].text in _TWO_WORDS.get(name, "").split()
    return words[: size + 1] if two and len(words) > size and _plain(words[size]) else words[:size]


def _code(words: tuple[Word, ...]) -> tuple[Word, ...] | None:
    """An interpreter with the script or module that it runs; None for code on the line."""
    for at, word in enumerate(words[1:], 1):
        if not word.known or not word.one:
            return None
        if word.text == "-m":
            return words[: at + 2] if at + 1 < len(words) and _known(words[: at + 2]) else None
        if _INLINE.fullmatch(word.text):
            return None
        if not word.text.startswith("-"):
            return words[: at + 1]
    return None


def _with_options(words: tuple[Word, ...]) -> tuple[Word, ...] | None:
    """Up to the first word that is no option."""
    at = next((at for at, word in enumerate(words) if at and not word.text.startswith("-")), 0)
    return words[: at + 1] if at and _known(words[: at + 1]) else None


def _bare_risk(name: str) -> str:
    return command_risk(Command((Word(name),)))
