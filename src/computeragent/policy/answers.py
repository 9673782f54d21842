"""What people and callbacks answer when they are asked about a call, in any of its spellings."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.protocol_types import PermissionRequest, ToolCallback
from computeragent.wire.requests import PermissionDecision

_SHAPES = 'Answer {"decision": "allow"}, {"decision": "deny", "reason": …} or {"decision": "modify", "input": {…}}.'
_log = Logger("approval")


class Approver(ABC):
    """A callback that knows who answered."""

    @abstractmethod
    async def answered(self, request: PermissionRequest) -> tuple[PermissionDecision, str]:
        """The answer, and who gave it."""

    async def __call__(self, request: PermissionRequest) -> PermissionDecision:
        """The answer."""
        return (await self.answered(request))[0]


async def called(callback: ToolCallback, request: PermissionRequest) -> tuple[PermissionDecision, str]:
    """A callback's answer, and who gave it: ``callback``, or whom an `Approver` names. One that raises or returns
    nonsense denies.
    """
    try:
        if isinstance(callback, Approver):
            return await callback.answered(request)
        answer: Any = callback(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return parse_decision(answer), "callback"
    except Exception as error:  # noqa: BLE001 - a failing callback denies
        _log.error("callback_failed", tool=request.tool_name, error=repr(error))
        reason = f"on_tool_call failed: {type(error).__name__}"
        return PermissionDecision(decision="deny", reason=reason), "fault"


def parse_decision(answer: Any) -> PermissionDecision:
    """Read an answer in any of its spellings: a `PermissionDecision`, a dict of that shape, a bool, or upstream's
    `PermissionResultAllow` and `PermissionResultDeny`. Raises `ValidationError` for anything else.
    """
    if isinstance(answer, bool):
        return PermissionDecision(decision="allow" if answer else "deny")
    if isinstance(answer, PermissionDecision | Mapping):
        try:
            decision = msgspec.convert(_plain(answer), PermissionDecision)
        except msgspec.ValidationError as error:
            raise ValidationError(f"not a permission decision: {error}", hint=_SHAPES) from error
        if decision.decision == "modify" and decision.input is None:
            raise ValidationError("not a permission decision: modify needs an input", hint=_SHAPES)
        return decision
    behavior = getattr(answer, "behavior", None)
    if behavior == "deny":
        return PermissionDecision(decision="deny", reason=getattr(answer, "message", None) or None)
    if behavior == "allow":
        updated = getattr(answer, "updated_input", None)
        return PermissionDecision(decision="allow" if updated is None else "modify", input=updated)
    raise ValidationError(f"not a permission decision: {type(answer).__name__}", hint=_SHAPES)


def _plain(answer: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(answer) if isinstance(answer, PermissionDecision) else dict(answer)
