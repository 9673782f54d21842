"""A tool call as rules see it: one subject, or one for each command of a shell line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from computeragent.policy.risk import (
    ORDER,
    Command,
    Script,
    classify,
    command_risk,
    highest,
    script_risks,
    shell_line,
    shell_script,
)
from computeragent.policy.rules.hosts import Host, command_hosts, tool_hosts
from computeragent.policy.rules.paths import FileUse, command_files, folders, tool_files
from computeragent.policy.types import PolicyInput
from computeragent.wire.events import Risk

_STARTS = frozenset({"cwd", "workdir", "workingdir", "workingdirectory", "directory", "dir", "dirpath"})
"""The arguments of shell tools, in any spelling, that say where the line is to run."""


class Call:
    """A call, and what is found out about it when a rule asks."""

    def __init__(self, question: PolicyInput) -> None:
        self.question = question
        self.tool = question.action.tool_name
        self.input: dict[str, Any] = question.action.tool_input
        self.script: Script | None = shell_script(self.tool, self.input)
        cwd = question.context.get("cwd")
        self.cwd: str | None = cwd if isinstance(cwd, str) and cwd.startswith("/") else None
        commands: Sequence[Command | None] = (None,) if self.script is None else self.script.commands or (Command(),)
        self.subjects = [Subject(self, command, at) for at, command in enumerate(commands)]

    @cached_property
    def risks(self) -> tuple[Risk, tuple[Risk, ...]]:
        """The call's risk, and those of its commands. A risk that the context tells never lowers a line's."""
        told = self.question.context.get("risk")
        if self.script is None:
            return (told if told in ORDER else classify(self.tool, self.input)), ()
        own: tuple[Risk, ...]
        line = shell_line(self.tool, self.input)
        if line is not None:
            risk, own = script_risks(line)
        else:
            own = tuple([command_risk(command) for command in self.script.commands])
            risk = highest(*own)
        return (highest(risk, told) if told in ORDER else risk), own

    @cached_property
    def folders(self) -> Sequence[str | None]:
        """Where the commands of a line may be."""
        if self.script is None:
            return (self.cwd,)
        told = {name.replace("_", "").lower(): value for name, value in self.input.items() if value is not None}
        return folders(self.script, self.cwd, [told[name] for name in _STARTS & told.keys()])


class Subject:
    """What a rule matches or does not: a call, or one `command` of it."""

    __slots__ = ("_at", "_files", "_hosts", "call", "command")

    def __init__(self, call: Call, command: Command | None, at: int) -> None:
        self.call = call
        self.command = command
        self._at = at
        self._files: list[FileUse] | None = None
        self._hosts: list[Host] | None = None

    @property
    def files(self) -> list[FileUse]:
        """The files that it names."""
        if self._files is None:
            call, command = self.call, self.command
            if command is None:
                self._files = tool_files(call.tool, call.input, call.cwd)
            else:
                self._files = command_files(command, call.folders) + tool_files(call.tool, call.input, call.cwd)
        return self._files

    @property
    def hosts(self) -> list[Host]:
        """The hosts that it reaches."""
        if self._hosts is None:
            self._hosts = tool_hosts(self.call.input) + ([] if self.command is None else command_hosts(self.command))
        return self._hosts

    @property
    def risk(self) -> Risk:
        """Its risk class. Where the whole is riskier than its commands seem, each of them is as risky."""
        risk, own = self.call.risks
        return own[self._at] if risk in own else risk

    def __str__(self) -> str:
        """What it is, without what it says: the tool, or the program and its subcommand."""
        command = self.command
        if command is None:
            return self.call.tool
        if command.unclear is not None:
            return f"a command that cannot be told ({command.unclear})"
        if not command.words:
            return "a redirection" if command.redirects else "an empty command"
        program, first = command.words[0].text[:60], " ".join(command.texts[:1])
        plain = first.replace("-", "").isalpha() and len(first) <= 20
        return f"the command `{program} {first}`" if plain else f"the command `{program}`"
