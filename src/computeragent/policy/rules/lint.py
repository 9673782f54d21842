"""What is odd about rules that are valid: that they never decide, allow everything, or name what is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from computeragent.errors import PolicyInvalidError
from computeragent.policy.risk import SHELLS, Command, parse_argv
from computeragent.policy.rules.commands import CommandPattern, read_pattern
from computeragent.policy.rules.globs import MAGIC, text_glob
from computeragent.policy.rules.paths import FILE_ARGUMENTS
from computeragent.policy.rules.reading import read_ruleset
from computeragent.policy.rules.ruleset import Rule, Ruleset

TOOLS = (
    "Agent", "AskUserQuestion", "Bash", "BashOutput", "Edit", "EnterPlanMode", "EnterWorktree", "ExitPlanMode",
    "ExitWorktree",
    "Glob", "Grep", "KillBash", "KillShell", "ListMcpResources", "ListMcpResourcesTool", "LS", "Monitor", "MultiEdit",
    "NotebookEdit", "NotebookRead", "Read", "ReadMcpResource", "ReadMcpResourceTool", "Skill", "SlashCommand", "Task",
    "TaskCreate", "TaskGet", "TaskList", "TaskOutput", "TaskStop", "TaskUpdate", "TodoWrite", "ToolSearch", "WebFetch",
    "WebSearch", "Write",
)  # fmt: skip
"""The tools that Claude Code has of its own. Those of MCP servers are named ``mcp__server__tool``."""

_ANYTHING = frozenset(
    [
        "bash",
        "sh",
        "zsh",
        "dash",
        "fish",
        "python",
        "python3",
        "node",
        "perl",
        "ruby",
        "php",
        "deno",
        "lua",
        "awk",
        "sudo",
        "doas",
        "ssh",
        "docker",
        "podman",
        "npx",
        "uvx",
        "make",
        "npm",
        "pnpm",
        "yarn",
        "cargo",
        "go",
        "vim",
        "vi",
        "emacs",
        "gdb",
    ]
)

_VERBS = {"allow": "allows", "ask": "asks", "deny": "denies"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a policy file. An ``error`` keeps it from being used, a ``warning`` does not."""

    level: Literal["error", "warning"]
    line: int
    message: str
    hint: str | None = None


def lint(text: str, name: str) -> list[Finding]:
    """What there is to say about the text of a rules file, by line."""
    try:
        ruleset = read_ruleset(text, name)
    except PolicyInvalidError as error:
        details: dict[str, Any] = error.details if isinstance(error.details, dict) else {}
        line = int(details.get("line", 1))
        return [Finding("error", line, error.message.removeprefix(f"{name}:{line}: "), error.hint)]
    found = [*_of_all(ruleset)]
    for at, rule in enumerate(ruleset.rules):
        found += [*_tools(rule), *_breadth(rule), *_mismatch(rule), *_commands(rule), *_folders(rule)]
        found += _shadowed(rule, at, ruleset.rules)
    return sorted(found, key=lambda finding: finding.line)


def _warn(rule: Rule, message: str, hint: str | None = None) -> Finding:
    return Finding("warning", rule.line, f"{rule.name}: {message}", hint)


def _of_all(ruleset: Ruleset) -> Iterator[Finding]:
    if ruleset.default == "allow":
        hint = "A list of what is forbidden is easily got around: prefer default: deny, and rules that allow."
        yield Finding("warning", 1, "what no rule names is allowed", hint)
    if not ruleset.rules:
        yield Finding("warning", 1, f"there are no rules: everything gets the default, {ruleset.default}")


def _tools(rule: Rule) -> Iterator[Finding]:
    known = [*TOOLS, *SHELLS]
    for name in rule.tool_names:
        fits = text_glob(name, ignore_case=True)
        if name.lower().startswith("mcp__") or any(fits(tool) for tool in known):
            continue
        close = difflib.get_close_matches(name, TOOLS, n=1, cutoff=0.6)
        hint = f'Did you mean "{close[0]}"?' if close else "MCP tools are named mcp__server__tool."
        yield _warn(rule, f"no tool is known as {name}", hint)


def _breadth(rule: Rule) -> Iterator[Finding]:
    if rule.effect != "allow":
        return
    if not rule.conditions and (rule.tools is None or "*" in rule.tool_names):
        yield _warn(rule, "it allows everything", "Name tools, or what they may be called with.")
    elif not rule.conditions and rule.tools is not None and any(map(rule.tools, SHELLS)):
        yield _warn(rule, "it allows every shell line", "Name commands, or a risk: {at_most: low}.")
    for pattern in _patterns(rule):
        if pattern.program == "*":
            yield _warn(rule, "it allows every command that can be told", "Name the programs.")
        elif pattern.program in _ANYTHING and pattern.rest and len(pattern.words) == 0:
            yield _warn(rule, f"`{pattern.written}` can run anything", "Name its subcommands or scripts.")


def _given(rule: Rule, key: str) -> Any:
    return next((condition.given for condition in rule.conditions if condition.key == key), None)


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]


def _patterns(rule: Rule) -> list[CommandPattern]:
    return [read_pattern(str(text)) for text in _listed(_given(rule, "commands"))]


def _mismatch(rule: Rule) -> Iterator[Finding]:
    """Conditions that no tool of the rule can meet."""
    tools = [name.lower() for name in rule.tool_names]
    if not tools or any(MAGIC & set(tool) or tool.startswith("mcp__") for tool in tools):
        return
    keys = {condition.key for condition in rule.conditions}
    shell = any(tool in SHELLS for tool in tools)
    for key in sorted(keys & {"commands", "parsable"}):
        if not shell:
            yield _warn(rule, f"it never matches: {', '.join(rule.tool_names)} has no {key}", "Name the tool Bash.")
    if "paths" in keys and not shell and not any(tool in FILE_ARGUMENTS for tool in tools):
        yield _warn(rule, f"it never matches: {', '.join(rule.tool_names)} names no files")
    if "hosts" in keys and not shell and all(tool in FILE_ARGUMENTS for tool in tools):
        yield _warn(rule, f"it never matches: {', '.join(rule.tool_names)} reaches no hosts")


def _commands(rule: Rule) -> Iterator[Finding]:
    for pattern in _patterns(rule):
        if MAGIC & set(pattern.program):
            continue
        words = [pattern.program, *(text for text, _ in pattern.words)]
        own = parse_argv(words).commands + parse_argv([*words, "x"]).commands
        if rule.effect == "allow" and not any(_is(command, pattern.program) for command in own):
            hint = "A program that runs another one is passed by; name the command that it runs."
            yield _warn(rule, f"`{pattern.written}` is never met", hint)
        elif "/" in pattern.program and rule.effect != "allow":
            yield _warn(rule, f"`{pattern.written}` leaves out the program by its name alone", "Leave out the folder.")


def _is(command: Command, program: str) -> bool:
    return (
        command.unclear is None
        and not command.passing
        and program in {command.program, str(command.words[0].text) if command.words else ""}
    )


def _folders(rule: Rule) -> Iterator[Finding]:
    given = _given(rule, "paths")
    groups = [given] if not isinstance(given, dict) else cast("dict[str, Any]", given).values()
    for path in [str(path) for group in groups for path in _listed(group)]:
        last = path.rpartition("/")[2]
        if last in {".", ".."} or (last and not MAGIC & set(last) and "." not in last and not path.startswith("**/")):
            yield _warn(rule, f"{path} is that one file or folder, and nothing below it", f"Write {path}/**")


def _shadowed(rule: Rule, at: int, rules: tuple[Rule, ...]) -> Iterator[Finding]:
    strength = {"allow": 0, "ask": 1, "deny": 2}
    for index, other in enumerate(rules):
        if other is rule or not _wider(other, rule):
            continue
        if strength[other.effect] > strength[rule.effect]:
            yield _warn(
                rule,
                f"it never decides: {other.name} (line {other.line}) matches all of it and {_VERBS[other.effect]}",
            )
            return
        if other.effect == rule.effect and (index < at or not _wider(rule, other)) and not rule.obligations:
            yield _warn(rule, f"it says nothing new: {other.name} (line {other.line}) matches all that it does")
            return


def _wider(other: Rule, rule: Rule) -> bool:
    """Whether one rule surely matches whatever another one does."""
    if other.tools is not None:
        if rule.tools is None:
            return False
        if not all(
            name in other.tool_names or (not MAGIC & set(name) and other.tools(name.lower()))
            for name in rule.tool_names
        ):
            return False
    own = {condition.key: condition.given for condition in rule.conditions}
    return all(
        _subsumes(condition.given, own[condition.key]) if condition.key in own else False
        for condition in other.conditions
    )


def _subsumes(wide: Any, narrow: Any) -> bool:
    """Whether a list of patterns holds all of another, or two values are the same."""
    if isinstance(wide, dict) or isinstance(narrow, dict):
        return bool(wide == narrow)
    return all(each in _listed(wide) for each in _listed(narrow))
