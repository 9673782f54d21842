"""The permission chain as the Claude CLI sees it.

Facts of the CLI that this is built on, each proved by ``tests/e2e/test_claude_gate.py``: a PreToolUse hook sees every
call in every mode; of several hooks that change an input, the last to answer wins; a hook that answers ``ask`` sends
the call, as it will run, through `can_use_tool` in every mode; files that a prompt mentions (``@file``) and shell
commands that a command or skill holds (``!`…```) run without any hook.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from computeragent.errors import ValidationError
from computeragent.ids import new_id
from computeragent.protocol_types import PermissionRequest
from computeragent.wire.requests import PermissionDecision

if TYPE_CHECKING:
    from claude_agent_sdk import HookMatcher

Json = dict[str, Any]
Judge = Callable[[PermissionRequest], Awaitable[PermissionDecision | None]]
"""Judges a call; None has no opinion: the CLI's own rules hold. Raising denies."""

UNGATED = {"CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1", "CLAUDE_BASH_MAINTAIN_PROJECT_WORKING_DIR": "1"}
"""Variables that close what no hook sees: a mentioned file stays text, which the model may read by a tool; and a shell
line starts in the working folder, not where an earlier one went, so that its paths are those that were judged."""

SETTINGS = {"disableAllHooks": True, "disableSkillShellExecution": True}
"""Settings that close what no hook sees: hooks of settings files are shell commands, and may change a judged input."""

_IN_PLAN_MODE = frozenset({"ExitPlanMode", "AskUserQuestion"})
_FINAL_ELSEWHERE = frozenset({"plan", "dontAsk"})  # there the CLI itself denies what nobody has allowed
_REMEMBERED = 1_000
_HOOK_MARGIN = 5.0  # seconds that the hook outlives the chain's own time limit


class Gate:
    """A hook before every tool, and a `can_use_tool` callback that repeats its answer.

    With `strict` the callback sees every call as it will run, after all hooks. With `interrupts` a denial ends
    the turn. `waved` are tools that pass where the judge has no opinion: whole names, ``mcp__server`` for all of a
    server's, ``*`` for all.
    """

    def __init__(self, judge: Judge, *, strict: bool, interrupts: bool = False, waved: Sequence[str] = ()) -> None:
        self._judge = judge
        self._waved = waved
        self._interrupts = interrupts
        self._strict = strict
        self._decided: dict[str, tuple[Json, PermissionDecision | None]] = {}
        self._planning = False

    def hooks(self, given: Any, *, approval_timeout: float) -> dict[Any, Any]:
        """The caller's hooks, with the gate before them, and with what they change judged as well.

        Raises `ValidationError` for what are no hooks.
        """
        from claude_agent_sdk import HookMatcher

        own = HookMatcher(hooks=[self.before], timeout=approval_timeout + _HOOK_MARGIN, on_failure="block")
        hooks = {event: list(matchers) for event, matchers in _checked(given).items()}
        for event in ("PreToolUse", "PermissionRequest"):
            if event in hooks:
                hooks[event] = [self._judged(matcher) for matcher in hooks[event]]
        return hooks | {"PreToolUse": [own, *hooks.get("PreToolUse", [])]}

    async def before(self, data: Any, call_id: str | None, context: Any) -> Any:
        """The PreToolUse hook: deny, or leave the call to `can_use_tool`, with a changed input where there is one."""
        del context
        hook = cast("Json", data)
        mode = hook.get("permission_mode")
        self._planning = mode == "plan"
        asked = dict(hook.get("tool_input") or {})
        decision = await self._ask(call_id or new_id("call"), str(hook["tool_name"]), asked)
        output: Json = {}
        if decision is None:
            output = {"permissionDecision": "allow"} if self._waves(str(hook["tool_name"])) else {}
        elif decision.decision == "deny" and self._interrupts and mode not in _FINAL_ELSEWHERE:
            output = {"permissionDecision": "ask"}  # a hook cannot end the turn, the callback can
        elif decision.decision == "deny":
            output = {"permissionDecision": "deny", "permissionDecisionReason": decision.reason or "denied"}
        elif decision.decision == "modify":
            output = {"updatedInput": decision.input}
        if self._strict and decision is not None and decision.decision != "deny" and mode not in _FINAL_ELSEWHERE:
            output["permissionDecision"] = "ask"
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **output}} if output else {}

    async def answer(self, tool: str, tool_input: Json, context: Any) -> Any:
        """The `can_use_tool` callback: what the hook decided for this call, if it is still the same.

        In plan mode nothing that needs asking runs until the plan is accepted, whoever allows it.
        """
        from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

        call_id = str(getattr(context, "tool_use_id", None) or new_id("call"))
        judged, decision = self._decided.pop(call_id, (None, None))
        if judged != tool_input:
            decision = await self._ask(call_id, tool, tool_input)
            self._decided.pop(call_id, None)
        if decision is None:
            return PermissionResultDeny(message="nobody has allowed this call")
        if decision.decision == "deny":
            return PermissionResultDeny(message=decision.reason or "denied", interrupt=self._interrupts)
        if self._planning and tool not in _IN_PLAN_MODE:
            return PermissionResultDeny(message="in plan mode nothing is changed before the plan is accepted")
        return PermissionResultAllow(updated_input=decision.input or tool_input)

    def _waves(self, tool: str) -> bool:
        return any(
            each in {"*", tool} or tool.startswith(f"{each.removesuffix('*').rstrip('_')}__") for each in self._waved
        )

    async def _ask(self, call_id: str, tool: str, tool_input: Json) -> PermissionDecision | None:
        decision = await self._judge(PermissionRequest(call_id, tool, tool_input))
        will_run = decision.input if decision is not None and decision.decision == "modify" else tool_input
        self._decided[call_id] = (will_run or {}, decision)
        if len(self._decided) > _REMEMBERED:
            del self._decided[next(iter(self._decided))]
        return decision

    def _judged(self, matcher: HookMatcher) -> HookMatcher:
        return dataclasses.replace(matcher, hooks=[self._wrapped(hook) for hook in matcher.hooks])

    def _wrapped(self, hook: Any) -> Any:
        """A caller's hook whose changed input is judged before the CLI hears of it."""

        async def judged(data: Any, call_id: str | None, context: Any) -> Any:
            output: Any = await hook(data, call_id, context)
            changed = _changed(output)
            if changed is None:
                return output
            call = cast("Json", data)
            decision = await self._ask(call_id or new_id("call"), str(call["tool_name"]), changed)
            if decision is None or decision.decision == "allow":
                return output
            if decision.decision == "modify":
                return _with(output, decision.input)
            return _denial(str(call["hook_event_name"]), decision.reason or "denied")

        return judged


def closed(settings: str | Path | None, env: Mapping[str, str], cwd: str | Path | None) -> Json:
    """The options `settings` and `env` that close what no hook sees; what the caller says in them of it is kept.

    `cwd` is the CLI's folder, from which it finds a settings file. Raises `ValidationError` for settings that cannot
    be read.
    """
    return {"settings": json.dumps(SETTINGS | _settings_of(settings, cwd)), "env": UNGATED | dict(env)}


def _settings_of(settings: str | Path | None, cwd: str | Path | None) -> Json:
    """The caller's settings: JSON, or the path of a file, read as the CLI does."""
    given = str(settings or "").strip()
    if not given:
        return {}
    try:
        text = given if given.startswith("{") else (Path(cwd or "") / given).read_text("utf-8-sig")
        own = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValidationError(
            f"options.settings cannot be read: {error}", hint="Give JSON, or the path of a JSON file."
        ) from None
    if not isinstance(own, dict):
        raise ValidationError("options.settings must be a JSON object", hint='Such as {"model": "sonnet"}.')
    return cast("Json", own)


def _checked(given: Any) -> Mapping[Any, Any]:
    given = given or {}
    if not isinstance(given, Mapping) or not all(isinstance(each, (list, tuple)) for each in given.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        hint = 'Such as {"PostToolUse": [HookMatcher(hooks=[callback])]}.'
        raise ValidationError("options['hooks'] must map events to lists of HookMatcher", hint=hint)
    return cast("Mapping[Any, Any]", given)


def _changed(output: Any) -> Json | None:
    """The input that a hook puts in the place of the tool's own."""
    specific: Any = output.get("hookSpecificOutput") if isinstance(output, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(specific, Mapping):
        return None
    told = cast("Mapping[str, Any]", specific)
    holder = told.get("decision") if told.get("hookEventName") == "PermissionRequest" else told
    changed: Any = cast("Mapping[str, Any]", holder).get("updatedInput") if isinstance(holder, Mapping) else None
    return cast("Json", changed) if isinstance(changed, dict) else None


def _with(output: Any, tool_input: Json | None) -> Any:
    """A hook's output with another changed input."""
    specific = dict(output["hookSpecificOutput"])
    if specific.get("hookEventName") == "PermissionRequest":
        specific["decision"] = {**specific["decision"], "updatedInput": tool_input}
    else:
        specific["updatedInput"] = tool_input
    return {**output, "hookSpecificOutput": specific}


def _denial(event: str, reason: str) -> Json:
    if event == "PermissionRequest":
        return {"hookSpecificOutput": {"hookEventName": event, "decision": {"behavior": "deny", "message": reason}}}
    denied = {"permissionDecision": "deny", "permissionDecisionReason": reason}
    return {"hookSpecificOutput": {"hookEventName": event, **denied}}
