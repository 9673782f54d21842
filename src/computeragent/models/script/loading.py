"""Reads a script from YAML, and says by file, line and hint what is wrong with it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Literal, cast, get_args

from computeragent.computer.actions import Action, parse_action
from computeragent.dialects.model import ErrorKind, Usage
from computeragent.errors import ComputerActionError, ScriptError
from computeragent.models.script.located import Keys, Located, locate, read_integer, read_text, suggest
from computeragent.models.script.rules import (
    DEFAULT_MODELS,
    ECHO,
    Break,
    ComputerUse,
    ErrorReply,
    Reply,
    Rule,
    Script,
    ToolUse,
)

_REFERENCE = re.compile(r"\$(\$|\d)")
_USAGE_KEYS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_FAULTS = ("error", "sse_error", "drop_after")


def load_script(path: str | Path) -> Script:
    """Read a script file: YAML (or JSON), or a `.py` file that defines `script`. Raises `ScriptError`."""
    path = Path(path)
    try:
        if path.suffix == ".py":
            return _run_script(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ScriptError(f"{path}: {reason}", hint="Give the path of a YAML or Python script file.") from error
    return parse_script(text, source=str(path))


def _run_script(path: Path) -> Script:
    if not path.is_file():
        raise ScriptError(f"{path}: No such file", hint="Give the path of a YAML or Python script file.")
    script = runpy.run_path(str(path)).get("script")
    if not isinstance(script, Script):
        raise ScriptError(f"{path}: defines no `script`", hint="Assign a computeragent.testing.models.Script to it.")
    return script


def parse_script(text: str, *, source: str = "script") -> Script:
    """Read a script from YAML text; `source` stands for it in errors. Raises `ScriptError`."""
    root = locate(text, source)
    if root is None:
        raise ScriptError(f"{source}: the script is empty", hint="Start with `rules:` and a list of rules.")
    if isinstance(root.value, list):
        return Script(rules=tuple(_read_rule(item) for item in root.items()))
    return _read_script(Keys(root, ("name", "models", "require_key", "rules", "default")))


def _read_script(keys: Keys) -> Script:
    models = keys.get("models")
    rules = keys.get("rules")
    if rules is None and keys.get("default") is None:
        raise keys.at.fail("the script has neither `rules` nor `default`")
    default = keys.get("default")
    return Script(
        rules=() if rules is None else tuple(_read_rule(item) for item in rules.items()),
        default=ECHO if default is None else Rule(match=ECHO.match, turns=_read_turns(default, 0)),
        models=DEFAULT_MODELS if models is None else tuple(read_text(item, "models") for item in models.items()),
        require_key=keys.text("require_key"),
        name=keys.text("name"),
    )


def _read_rule(item: Located) -> Rule:
    keys = Keys(item, ("match", "model", "system", "turns", "reply"))
    key = keys.one_of("turns", "reply")
    if key is None:
        raise item.fail("the rule has no answer", "Give it `reply` (one turn) or `turns` (a list).")
    groups = _count_groups(keys, "match")
    for condition in ("model", "system"):
        _count_groups(keys, condition)
    answer = keys.get(key)
    assert answer is not None
    if key == "turns":
        answer.items()
    return Rule(
        match=keys.text("match") or "",
        turns=_read_turns(answer, groups),
        model=keys.text("model"),
        system=keys.text("system"),
    )


def _count_groups(keys: Keys, key: str) -> int:
    pattern, item = keys.text(key), keys.get(key)
    if pattern is None or item is None:
        return 0
    try:
        return re.compile(pattern).groups
    except re.error as error:
        hint = "It is a Python regular expression; escape . ( ) [ ] * + ? with a backslash to mean the character."
        raise item.fail(f"`{key}` is no regular expression: {error}", hint) from error


def _read_turns(answer: Located, groups: int) -> tuple[Reply, ...]:
    items = answer.items() if isinstance(answer.value, list) else [answer]
    if not items:
        raise answer.fail("the list of turns is empty")
    return tuple(_read_reply(item, groups) for item in items)


def _read_reply(item: Located, groups: int) -> Reply:
    _check_references(item, groups)
    if not isinstance(item.value, (dict, list)):
        return Reply(text=read_text(item, "reply"))
    keys = Keys(
        item,
        (
            *("text", "thinking", "tool", "input", "id", "tools", "usage", "stop_reason", "error", "sse_error"),
            *("drop_after", "delay", "chunk_delay", "chunk_size", "echo_tool_results", "computer", "safety_checks"),
        ),
    )
    keys.one_of(*_FAULTS)
    return Reply(
        text=keys.text("text"),
        thinking=keys.text("thinking"),
        tools=_read_tools(keys),
        computer=_read_computer(keys),
        usage=_read_usage(keys),
        stop_reason=keys.text("stop_reason"),
        error=_read_error(keys),
        broken=_read_break(keys),
        delay=keys.number("delay", 0.0),
        chunk_delay=keys.number("chunk_delay", 0.0),
        chunk_size=keys.integer("chunk_size", 24, 1),
        echo_tool_results=keys.boolean("echo_tool_results"),
    )


def _check_references(item: Located, groups: int) -> None:
    for found in item.strings():
        for reference in _REFERENCE.findall(found.written):
            if reference != "$" and int(reference) > groups:
                count = "no group" if groups == 0 else f"{groups} group{'s' if groups > 1 else ''}"
                hint = f"Write $${reference} for a dollar sign and a digit, or add a group (...) to `match`."
                raise found.fail(f"${reference} stands for a group, and `match` has {count}", hint)


def _read_tools(keys: Keys) -> tuple[ToolUse, ...]:
    key = keys.one_of("tool", "tools")
    if key != "tool":
        for stray in ("input", "id"):
            if (item := keys.get(stray)) is not None:
                raise item.fail(f"`{stray}` belongs to a tool", "Add `tool: NAME`, or put it into an item of `tools`.")
        tools = keys.get("tools")
        return () if tools is None else tuple(_read_tool(Keys(item, ("name", "input", "id"))) for item in tools.items())
    return (_read_tool(keys, "tool"),)


def _read_tool(keys: Keys, name_key: str = "name") -> ToolUse:
    name, value = keys.text(name_key), keys.get("input")
    if not name:
        raise keys.at.fail("the tool has no name", "Give it `name`.")
    if value is not None:
        value.pairs()
    return ToolUse(name=name, input={} if value is None else value.plain(), id=keys.text("id"))


def _read_computer(keys: Keys) -> ComputerUse | None:
    item, checks = keys.get("computer"), keys.get("safety_checks")
    if item is None:
        if checks is not None:
            raise checks.fail("`safety_checks` belong to a computer call", "Add `computer:` and an action.")
        return None
    actions = tuple(_read_action(each) for each in (item.items() if isinstance(item.value, list) else [item]))
    if not actions:
        raise item.fail("the list of actions is empty")
    pending: list[dict[str, str]] = []
    for number, each in enumerate(checks.items() if checks is not None else ()):
        fields = Keys(each, ("id", "code", "message"))
        check = {"id": fields.text("id") or f"sc_{number}", "code": fields.text("code") or "malicious_instructions"}
        pending.append({**check, "message": fields.text("message") or "Is this wanted?"})
    return ComputerUse(actions=actions, safety_checks=tuple(pending))


def _read_action(item: Located) -> Action:
    item.pairs()
    try:
        return parse_action(item.plain())
    except ComputerActionError as error:
        raise item.fail(error.message, error.hint) from error


def _read_usage(keys: Keys) -> Usage | None:
    item = keys.get("usage")
    if item is None:
        return None
    counts = Keys(item, _USAGE_KEYS)
    return Usage(
        input_tokens=counts.integer("input_tokens", 0),
        output_tokens=counts.integer("output_tokens", 0),
        cache_read_tokens=counts.integer("cache_read_tokens", 0),
        cache_write_tokens=counts.integer("cache_write_tokens", 0),
        reasoning_tokens=counts.integer("reasoning_tokens", 0),
    )


def _read_error(keys: Keys) -> ErrorReply | None:
    item = keys.get("error")
    if item is None:
        return None
    if not isinstance(item.value, dict):
        return ErrorReply(status=_read_status(item))
    fields = Keys(item, ("status", "type", "message", "times", "retry_after"))
    status = fields.get("status")
    return ErrorReply(
        status=500 if status is None else _read_status(status),
        type=fields.text("type"),
        message=fields.text("message") or "simulated error",
        times=fields.integer("times", None, 1),
        retry_after=fields.number("retry_after"),
    )


def _read_status(item: Located) -> int:
    status = read_integer(item, "status")
    if not 400 <= status <= 599:
        raise item.fail(f"the status of an error is between 400 and 599, not {status}")
    return status


def _read_break(keys: Keys) -> Break | None:
    if (item := keys.get("drop_after")) is not None:
        if not isinstance(item.value, dict):
            return Break(how="cut", after=read_integer(item, "drop_after"))
        fields = Keys(item, ("events", "times"))
        return Break(how="cut", after=fields.integer("events", 0), times=fields.integer("times", None, 1))
    if (item := keys.get("sse_error")) is not None:
        if not isinstance(item.value, dict):
            return Break(how="error", kind=_read_kind(item))
        fields = Keys(item, ("kind", "message", "after", "times"))
        kind = fields.get("kind")
        return Break(
            how="error",
            after=fields.integer("after", 0),
            kind="overloaded" if kind is None else _read_kind(kind),
            message=fields.text("message") or "simulated error",
            times=fields.integer("times", None, 1),
        )
    return None


def _read_kind(item: Located) -> ErrorKind:
    kinds = get_args(ErrorKind)
    name = read_text(item, "kind").removesuffix("_error")
    if name not in kinds:
        raise item.fail(f"unknown kind of error `{name}`", suggest(name, kinds))
    return cast("Literal['overloaded']", name)
