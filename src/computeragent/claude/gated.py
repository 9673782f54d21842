"""The drop-in's gate: where `can_use_tool` is a `PolicyToolAuthorizer`, every call passes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeragent.claude.tap import Tap
from computeragent.engines.claude_gate import Gate, closed
from computeragent.logs import Logger
from computeragent.policy.authorizer import PolicyToolAuthorizer
from computeragent.protocol_types import PermissionRequest
from computeragent.wire.requests import PermissionDecision

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

_RULED_BY_THE_CLI = frozenset({"dontAsk", "plan"})  # there it denies what no rule of its own allows
_log = Logger("policy")
_PATIENCE = 600.0  # seconds that a person may take, as in the harness


def gated(options: ClaudeAgentOptions | None, tap: Tap | None = None) -> ClaudeAgentOptions | None:
    """The options to pass on: the caller's own object, unless an authorizer is to see every call.

    The session's `tap` hears of every decision. Raises `ValidationError` for hooks and settings that cannot be read.
    """
    authorizer: object = getattr(options, "can_use_tool", None)
    if options is None or not isinstance(authorizer, PolicyToolAuthorizer):
        return options
    guarded, waved = copy.copy(options), list[str]()
    if options.permission_mode not in _RULED_BY_THE_CLI:
        # What would let calls pass unasked becomes the gate's: the CLI, and upstream's warning, see none of it.
        waved = [each for each in options.allowed_tools if _is_whole(each)]
        guarded.allowed_tools = [each for each in options.allowed_tools if each not in waved]
        waved = [each.partition("(")[0] for each in waved]
        if options.permission_mode == "bypassPermissions":
            guarded.permission_mode, waved = "default", ["*"]
            _log.warn("bypass_is_gated", hint="permission_mode bypassPermissions bypasses no policy")
    judge = _Judge(authorizer, tap, str(Path.cwd() / (options.cwd or "")))
    gate = Gate(judge, strict=True, interrupts=authorizer.interrupts, waved=waved)
    guarded.can_use_tool = None if options.permission_mode == "dontAsk" else gate.answer
    guarded.hooks = gate.hooks(options.hooks, approval_timeout=_PATIENCE)
    for name, value in closed(options.settings, options.env, options.cwd).items():
        setattr(guarded, name, value)
    return guarded


def _is_whole(entry: str) -> bool:
    """Whether an entry of `allowed_tools` allows a whole tool, whatever its input."""
    name, opened, rest = entry.partition("(")
    return bool(name.strip()) and (not opened or rest in {")", "*)"})


class _Judge:
    """An authorizer as the gate asks it."""

    def __init__(self, authorizer: PolicyToolAuthorizer, tap: Tap | None, cwd: str) -> None:
        self._authorizer = authorizer
        self._tap = tap
        self._cwd = cwd

    async def __call__(self, request: PermissionRequest) -> PermissionDecision | None:
        from claude_agent_sdk import ToolPermissionContext

        context: Any = ToolPermissionContext(tool_use_id=request.call_id)
        verdict, event = await self._authorizer.rule(request, context, cwd=self._cwd)
        if self._tap is not None and verdict.decision != "abstain":  # then the CLI decides, and nobody hears what
            self._tap.decided(event)
        match verdict.decision:
            case "abstain":
                return None
            case "modify":
                return PermissionDecision(decision="modify", input=verdict.input, reason=verdict.reason)
            case "allow":
                return PermissionDecision(decision="allow", reason=verdict.reason)
            case _:
                return PermissionDecision(decision="deny", reason=verdict.reason or "denied by policy")
