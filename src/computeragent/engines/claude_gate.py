"""The permission chain as the Claude CLI sees it."""

from __future__ import annotations

from typing import Any, cast

from computeragent.ids import new_id
from computeragent.protocol_types import EngineContext, PermissionRequest
from computeragent.wire.requests import PermissionDecision

Json = dict[str, Any]
_IN_PLAN_MODE = frozenset({"ExitPlanMode", "AskUserQuestion"})


class Gate:
    """A hook before every tool, and a `can_use_tool` callback that repeats its answer."""

    def __init__(self, ctx: EngineContext) -> None:
        self._ctx = ctx
        self._decided: dict[str, PermissionDecision] = {}
        self._planning = False

    async def before(self, data: Any, call_id: str | None, context: Any) -> Any:
        """The PreToolUse hook: deny, or nothing, with a changed input where there is one."""
        del context
        hook = cast("Json", data)
        self._planning = hook.get("permission_mode") == "plan"
        decision = await self._ask(
            call_id or new_id("call"), str(hook["tool_name"]), dict(hook.get("tool_input") or {})
        )
        output: Json = {"hookEventName": "PreToolUse"}
        if decision.decision == "deny":
            output["permissionDecision"] = "deny"
            output["permissionDecisionReason"] = decision.reason or "denied"
        elif decision.decision == "modify":
            output["updatedInput"] = decision.input
        else:
            return {}
        return {"hookSpecificOutput": output}

    async def answer(self, tool: str, tool_input: Json, context: Any) -> Any:
        """The `can_use_tool` callback: what the hook decided for this call.

        In plan mode nothing that needs asking runs until the plan is accepted, whoever allows it.
        """
        from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

        call_id = str(getattr(context, "tool_use_id", None) or new_id("call"))
        decision = self._decided.pop(call_id, None) or await self._ask(call_id, tool, tool_input)
        self._decided.pop(call_id, None)
        if decision.decision == "deny":
            return PermissionResultDeny(message=decision.reason or "denied")
        if self._planning and tool not in _IN_PLAN_MODE:
            return PermissionResultDeny(message="in plan mode nothing is changed before the plan is accepted")
        return PermissionResultAllow(updated_input=decision.input or tool_input)

    async def _ask(self, call_id: str, tool: str, tool_input: Json) -> PermissionDecision:
        decision = await self._ctx.on_permission_request(PermissionRequest(call_id, tool, tool_input))
        self._decided[call_id] = decision
        if len(self._decided) > 1_000:
            del self._decided[next(iter(self._decided))]
        return decision
