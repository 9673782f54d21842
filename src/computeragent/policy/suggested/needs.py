"""What calls need to be allowed, gathered over many of them and made into rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from computeragent.policy.risk import ORDER, Command, highest
from computeragent.policy.rules.calls import Subject
from computeragent.policy.rules.hosts import URL_ARGUMENTS
from computeragent.policy.rules.paths import FILE_ARGUMENTS, HARMLESS, OTHER_ARGUMENTS
from computeragent.policy.shapes import call_of, escaped, pattern_of, prefix_of, searches
from computeragent.policy.suggested.places import Places
from computeragent.policy.suggested.text import Counted, SuggestedRule
from computeragent.telemetry.redaction.redactor import Redactor
from computeragent.wire.events import Risk

_SPEAKS = frozenset(
    {"echo", "printf", "true", "false", ":", "date", "sleep", "test", "[", "export", "set", "wait", "exit"}
)
_SAYS = frozenset({("git", "commit"), ("git", "tag")})
"""Commands whose words, where they cannot be told, are texts rather than files."""
_NETWORK = frozenset("curl wget http https xh aria2c ssh sftp telnet nc ncat netcat ftp mosh scp rsync".split())  # noqa: SIM905
_NO_SECRETS = frozenset({"EMAIL", "IP", "PHONE"})


class RefusedError(Exception):
    """A call that is not suggested; the text says why."""


@dataclass(slots=True)
class _Commands:
    """The uses of one pattern of commands, those for which files do not matter apart."""

    risk: Risk = "low"
    more_words: bool = False
    hosts: set[str] = field(default_factory=set[str])
    without_host: bool = False
    places: Places = field(default_factory=Places)
    calls: int = 0

    @property
    def named(self) -> bool:
        """Whether all of them name the hosts that they reach."""
        return bool(self.hosts) and not self.without_host


@dataclass(slots=True)
class _Tool:
    """The uses of one tool that name files, or hosts, or neither."""

    places: Places = field(default_factory=Places)
    hosts: set[str] = field(default_factory=set[str])
    calls: int = 0


class Needs:
    """Gathers what calls need. The rules do not depend on the calls' order."""

    def __init__(self) -> None:
        self._commands: dict[str, dict[tuple[str, bool], _Commands]] = {}
        self._tools: dict[str, dict[tuple[bool, bool], _Tool]] = {}
        self._names: dict[str, str] = {}
        self._arguments: dict[str, set[str]] = {}
        self._kinds: dict[str, set[tuple[bool, bool]]] = {}

    def add(self, tool: str, tool_input: dict[str, Any], cwd: str | None) -> None:
        """Take a call. Raises `RefusedError` for one that is not suggested: what is then allowed must leave it out."""
        call = call_of(tool, tool_input, cwd)
        if any(subject.risk == "destructive" for subject in call.subjects):
            raise RefusedError("destructive")
        if call.script is None:
            self._add_tool(tool, tool_input, call.subjects[0], cwd)
            return
        found = [_command(subject, cwd) for subject in call.subjects if not _passes(subject)]
        self._name(tool)
        patterns = self._commands.setdefault(tool.lower(), {})
        taken: set[tuple[str, bool]] = set()
        for key, use in found:
            known = patterns.setdefault(key, _Commands())
            known.risk = highest(known.risk, use.risk)
            known.more_words |= use.more_words
            known.without_host |= use.without_host
            known.hosts |= use.hosts
            known.places.merge(use.places)
            known.calls += key not in taken
            taken.add(key)

    def _name(self, tool: str) -> None:
        name = tool.lower()
        self._names[name] = min(self._names.get(name, tool), tool)

    def _add_tool(self, tool: str, tool_input: dict[str, Any], subject: Subject, cwd: str | None) -> None:
        if not tool.strip() or not tool.isprintable() or len(tool) > 200:
            raise RefusedError("a tool without a plain name")
        name, kind = tool.lower(), (bool(subject.files), bool(subject.hosts))
        hosts = {host for host in subject.hosts if host is not None}
        given = {*OTHER_ARGUMENTS, *URL_ARGUMENTS, *FILE_ARGUMENTS.get(name, ("", ()))[1]} & set(tool_input)
        self._arguments.setdefault(name, set()).update(given)
        self._kinds.setdefault(name, set()).add(kind)
        if None in subject.hosts:
            raise RefusedError("its host cannot be told")
        places = Places()
        for use in subject.files:
            if not use.paths:
                raise RefusedError(_unknown(cwd))
            if (why := places.add(use, cwd, folder=searches(tool))) is not None:
                raise RefusedError(why)
        self._name(tool)
        uses = self._tools.setdefault(name, {}).setdefault(kind, _Tool())
        uses.places.merge(places)
        uses.hosts |= hosts
        uses.calls += 1

    # ── Rules ──

    def rules(self) -> list[SuggestedRule]:
        """The rules that allow what was taken: files, commands, hosts, other tools."""
        made = [*self._of_files(), *self._of_commands(), *self._of_hosts(), *self._of_others()]
        names: dict[str, int] = {}
        unique: list[SuggestedRule] = []
        for rule in made:
            number = names[rule.name] = names.get(rule.name, 0) + 1
            name = rule.name if number == 1 else f"{rule.name} ({number})"
            unique.append(SuggestedRule(name, rule.effect, rule.match, rule.comment, rule.reason))
        return unique

    def _of_files(self) -> Iterator[SuggestedRule]:
        for name in sorted(self._tools, key=lambda name: (FILE_ARGUMENTS.get(name, ("z",))[0], name)):
            for (files, hosts), uses in sorted(self._tools[name].items()):
                if files:
                    match = self._match(name, files=files, hosts=hosts)
                    match["paths"] = uses.places.patterns()
                    if hosts:
                        match["hosts"] = sorted(uses.hosts)
                    yield self._tool_rule(name, match, uses.calls)

    def _of_hosts(self) -> Iterator[SuggestedRule]:
        for name in sorted(self._tools):
            uses = self._tools[name].get((False, True))
            if uses is not None:
                match = self._match(name, files=False, hosts=True) | {"hosts": sorted(uses.hosts)}
                yield self._tool_rule(name, match, uses.calls)

    def _of_others(self) -> Iterator[SuggestedRule]:
        plain: dict[str, int] = {}
        for name in sorted(self._tools):
            uses = self._tools[name].get((False, False))
            if uses is None:
                continue
            if len(self._kinds[name]) == 1:
                plain[escaped(self._names[name])] = uses.calls
            else:
                yield self._tool_rule(name, self._match(name, files=False, hosts=False), uses.calls)
        if plain:
            yield SuggestedRule("other tools", "allow", {"tool": Counted(plain)})

    def _match(self, name: str, *, files: bool, hosts: bool) -> dict[str, Any]:
        """What a rule for some uses of a tool begins with: not for calls that name files or hosts as others do."""
        match: dict[str, Any] = {"tool": escaped(self._names[name])}
        others = self._kinds[name] - {(files, hosts)}
        seen = self._arguments[name]
        absent = sorted(seen - set(URL_ARGUMENTS)) if not files and any(each[0] for each in others) else []
        absent += sorted(seen & set(URL_ARGUMENTS)) if not hosts and any(each[1] for each in others) else []
        if absent:
            match["arguments"] = {argument: {"absent": True} for argument in absent}
        return match

    def _tool_rule(self, name: str, match: dict[str, Any], calls: int) -> SuggestedRule:
        return SuggestedRule(self._names[name], "allow", match, _calls(calls))

    def _of_commands(self) -> Iterator[SuggestedRule]:
        for name in sorted(self._commands):
            tool = self._names[name]
            shared: dict[tuple[bool, Risk], dict[str, _Commands]] = {}
            alone: list[tuple[str, _Commands]] = []
            for (stem, says), use in sorted(self._commands[name].items()):
                if not says and (use.places.outside or use.named):
                    alone.append((stem, use))
                else:
                    shared.setdefault((says, use.risk), {})[stem] = use
            for says, risk in sorted(shared, key=lambda each: (each[0], ORDER.index(each[1]))):
                match = _commands_match(tool, risk, shared[says, risk])
                # Without paths an allow covers no writing to files. `parsable` says nothing new, but keeps it apart.
                match |= {"parsable": True} if says else {"paths": ["./**"]}
                yield SuggestedRule(f"{tool}, {risk} risk{', texts' if says else ''}", "allow", match)
            for stem, use in alone:
                match = _commands_match(tool, use.risk, {stem: use})
                match["paths"] = use.places.patterns() or ["./**"]
                if use.named:
                    match["hosts"] = sorted(use.hosts)
                yield SuggestedRule(f"{tool}: {stem[:60]}", "allow", match)


def _commands_match(tool: str, risk: Risk, patterns: dict[str, _Commands]) -> dict[str, Any]:
    counted = {stem + (" *" if use.more_words else ""): use.calls for stem, use in patterns.items()}
    return {"tool": escaped(tool), "risk": {"at_most": risk}, "commands": Counted(counted)}


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────


def _passes(subject: Subject) -> bool:
    return subject.command is not None and subject.command.passing


def _command(subject: Subject, cwd: str | None) -> tuple[tuple[str, bool], _Commands]:
    """What a command needs: the pattern without its last ``*``, whether its words are texts rather than files, and its
    use. Raises `RefusedError`.
    """
    command = subject.command
    assert command is not None
    if command.unclear is not None:
        raise RefusedError("what it runs cannot be told")
    if not command.words:
        raise RefusedError("a redirection or assignment without a program")
    hosts = set(subject.hosts)
    anyhow = None in hosts or (command.program in _NETWORK and not hosts)
    words = None if anyhow else prefix_of(command)
    pattern = pattern_of(command, words)
    if pattern is None:
        raise RefusedError("its words cannot be written as a pattern")
    if _may_be_secret(pattern):
        raise RefusedError("its words may hold a secret")
    more = words is not None and len(words) < len(command.words)
    use = _Commands(subject.risk, more, without_host=not hosts or None in hosts, calls=1)
    use.hosts = {host for host in hosts if host is not None} if None not in hosts else set()
    says = _says(command) and all(redirect.writes in HARMLESS | {None} for redirect in command.redirects)
    for each in () if says else subject.files:
        if not each.paths:
            raise RefusedError(_unknown(cwd))
        if (why := use.places.add(each, cwd, anywhere_within=True)) is not None:
            raise RefusedError(why)
    return (pattern[: -len(" *")] if more else pattern, says), use


def _says(command: Command) -> bool:
    return command.program in _SPEAKS or (command.program, (command.texts or [""])[0]) in _SAYS


def _unknown(cwd: str | None) -> str:
    return "its files cannot be told" if cwd is not None else "its working folder is not on record"


@lru_cache(maxsize=4_096)
def _may_be_secret(text: str) -> bool:
    return any(found.kind not in _NO_SECRETS for found in _redactor().find(text))


@cache
def _redactor() -> Redactor:
    return Redactor()
