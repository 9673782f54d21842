"""Git runs other programs: by its settings, by options of some commands, by transports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from computeragent.policy.risk.script import Command, Word

_VALUES = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--super-prefix", "--config-env"})
_HARMLESS_SETTING = re.compile(
    r"(?i)(?:user|color|advice|log|diff\.(?:renames|context|algorithm)|init\.defaultbranch|core\.(?:quotepath|autocrlf|abbrev)"
    r"|commit\.gpgsign|tag\.gpgsign|pull\.rebase|push\.default|safe\.directory)\b"
)
_RUNS = re.compile(
    r"--(?:upload-pack|receive-pack|exec|open-files|extcmd|ext-diff|textconv|config|template|sign|gpg)|ext::|-O\S*$|-u\S*$|-x"
)
_RUNNING_SETTING = re.compile(
    r"(?i)alias|core\.|pager|editor|command|tool|filter|hook|include|\.cmd|helper|proxy|textconv|driver|program"
)
_NEEDS = {
    "clone",
    "fetch",
    "pull",
    "push",
    "ls-remote",
    "archive",
    "grep",
    "difftool",
    "diff",
    "log",
    "show",
    "submodule",
}


@dataclass(frozen=True, slots=True)
class GitCall:
    """A call of git: its global options, its subcommand and the words after that."""

    options: tuple[Word, ...]
    subcommand: str
    arguments: tuple[Word, ...]


def read_git(command: Command) -> GitCall | None:
    """The parts of a call of git; None where they cannot be told."""
    words = command.words[1:]
    index = 0
    while index < len(words) and words[index].text.startswith("-"):
        if not words[index].known:
            return None
        index += 2 if words[index].text in _VALUES else 1
    if index >= len(words):
        return GitCall(words, "", ())
    if not words[index].known or any(not word.one for word in words[: index + 1]):
        return None
    return GitCall(words[:index], words[index].text, words[index + 1 :])


def follow_git(command: Command) -> Iterator[Command | str | tuple[Command]]:
    """The call itself, unclear where it can run anything, and what it is told to run."""
    call = read_git(command)
    if call is None:
        yield replace(command, unclear="what git is asked to do cannot be told")
        return
    odd = _odd(call)
    yield command if odd is None else replace(command, unclear=odd)
    texts = [word.text for word in call.arguments]
    if call.subcommand == "submodule" and "foreach" in texts:
        rest = [text for text in texts[texts.index("foreach") + 1 :] if not text.startswith("-")]
        yield " ".join(rest)
    elif call.subcommand == "bisect" and texts[:1] == ["run"] and len(texts) > 1:
        yield (Command(call.arguments[1:], via=(*command.via, "git")),)
    elif call.subcommand == "rebase":
        yield from _rebase(texts)


def _rebase(texts: list[str]) -> Iterator[str]:
    for at, text in enumerate(texts):
        if text in {"-x", "--exec"}:
            yield " ".join(texts[at + 1 : at + 2])
        elif text.startswith("--exec="):
            yield text[7:]
        elif text.startswith("-x"):
            yield text[2:]


def _odd(call: GitCall) -> str | None:
    for before, word in zip((Word(""), *call.options), call.options, strict=False):
        setting = word.text if before.text == "-c" else word.text[2:] if re.match(r"-c.", word.text) else None
        if setting is not None and (not word.known or _HARMLESS_SETTING.match(setting) is None):
            return "a setting of git can run commands"
        if word.text.startswith(("--exec-path=", "--config-env")):
            return "an option of git can run commands"
    subcommand, texts = call.subcommand, [word.text for word in call.arguments]
    if subcommand in {"filter-branch", "send-email", "instaweb", "web--browse", "daemon", "hook"}:
        return f"git {subcommand} runs commands"
    if subcommand == "config" and any(map(_RUNNING_SETTING.search, texts)):
        return "a setting of git can run commands"
    if subcommand in _NEEDS and any(_RUNS.match(text) for text in texts) and not _harmless(subcommand, texts):
        return f"an option of git {subcommand} can run commands"
    if subcommand in _NEEDS and any(not word.one and not word.glob for word in call.arguments):
        return f"the options of git {subcommand} cannot be told"
    return None


def _harmless(subcommand: str, texts: list[str]) -> bool:
    """Short options that mean something else here."""
    found = [text for text in texts if _RUNS.match(text)]
    plain = {"push": {"-u"}, "diff": {"-u"}, "log": {"-u"}, "show": {"-u"}, "grep": {"-u"}}.get(subcommand, set[str]())
    return all(text in plain for text in found)
