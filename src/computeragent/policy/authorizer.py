"""`PolicyToolAuthorizer`: a policy as upstream's `can_use_tool`."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace as replaced

from computeragent.errors import ValidationError
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.policy.answers import called
from computeragent.policy.judge import PolicyJudge
from computeragent.policy.review import POLICY_TIMEOUT, decision_event, review
from computeragent.policy.risk import classify
from computeragent.policy.types import PolicyAction, PolicyEngine, PolicyResource
from computeragent.protocol_types import PermissionRequest, PolicyVerdict
from computeragent.telemetry.config import get_pipeline
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.recorded import decision_payload
from computeragent.telemetry.steps import Step
from computeragent.wire.events import CaPermissionDecision
from computeragent.wire.requests import PermissionDecision

if TYPE_CHECKING:
    from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

Resolver = Callable[..., Any]
"""``resolver(context)`` or ``resolver(context, action)``, sync or async; `action` is the `PolicyAction`, the tool's
input included. Raising denies."""

_log = Logger("policy")


class PolicyToolAuthorizer:
    """Gates every tool call of the drop-in: ``ClaudeAgentOptions(can_use_tool=PolicyToolAuthorizer(…))``.

    With `computeragent.query` and `computeragent.ClaudeSDKClient` it sees every call, in every permission mode, as it
    will run. With upstream's own it is a `can_use_tool` like any other, which the CLI does not ask about every call.

    Args:
        engine: What judges.
        principal_resolver: On whose behalf the agent acts: a `PolicyPrincipal`.
        resource_resolver: The agent: a `PolicyResource`. Default: an empty one.
        context_resolver: What else the policy is to know: a dict, merged over the call's ``risk`` and, with our `query`
            and client, over ``cwd``, the session's folder.
        on_deny: ``interrupt`` ends the turn when a call is denied.
        on_ask: Decides calls for which the policy wants a person's word, as `ComputerAgent`'s `on_tool_call` does,
            such as `tty_approval()`. Without it they are denied.
        timeout: Seconds that each word of the policy may take, its resolvers included.

    """

    def __init__(
        self,
        *,
        engine: PolicyEngine,
        principal_resolver: Resolver,
        resource_resolver: Resolver | None = None,
        context_resolver: Resolver | None = None,
        on_deny: Literal["deny", "interrupt"] = "deny",
        on_ask: Callable[[PermissionRequest], Any] | None = None,
        timeout: float = POLICY_TIMEOUT,
    ) -> None:
        if on_deny not in ("deny", "interrupt"):
            raise ValidationError(f"on_deny cannot be {on_deny!r}", hint="Use 'deny' or 'interrupt'.")
        self.engine = engine
        self.interrupts = on_deny == "interrupt"
        self._judge = PolicyJudge(engine)
        self._resolvers = (
            _taking_both(principal_resolver, "principal_resolver"),
            _taking_both(resource_resolver or _no_resource, "resource_resolver"),
            _taking_both(context_resolver or _no_context, "context_resolver"),
        )
        self._on_ask = on_ask
        self._timeout = timeout

    async def __call__(
        self, tool_name: str, tool_input: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        """Decide a call, as upstream's `can_use_tool`. Never raises."""
        from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

        call_id = getattr(context, "tool_use_id", None) or new_id("call")
        verdict, event = await self.rule(PermissionRequest(call_id, tool_name, tool_input), context)
        if verdict.decision == "abstain":  # the CLI would ask a person, and nobody is there
            reason = "the policy has no opinion on this call, and nobody else allows it"
            verdict, event = (
                replace(verdict, decision="deny", reason=reason),
                replaced(event, decision="deny", reason=reason, decided_by="default"),
            )
        _told(event)
        if verdict.decision in {"allow", "modify"}:
            return PermissionResultAllow(updated_input=verdict.input or tool_input)
        return PermissionResultDeny(message=verdict.reason or "denied by policy", interrupt=self.interrupts)

    async def rule(
        self, request: PermissionRequest, context: ToolPermissionContext, *, cwd: str | None = None
    ) -> tuple[PolicyVerdict, CaPermissionDecision]:
        """Decide a call of a session in the folder `cwd`: the verdict, and what is to be recorded of it. Never raises.

        The verdict is ``allow``, ``modify``, ``deny``, or ``abstain``: then all is as without a policy.
        """
        began = time.perf_counter()
        request = replace(request, risk=classify(request.tool_name, request.input))
        try:
            verdict, by = await review(
                request, partial(self._judged, context, cwd), answer=self._answered, timeout=self._timeout
            )
        except _NoOpinionError as none:
            verdict, by = none.verdict, "policy"
        return verdict, decision_event("", request, verdict, by, seconds=time.perf_counter() - began)

    async def _judged(self, context: Any, cwd: str | None, request: PermissionRequest) -> PolicyVerdict:
        """The policy's word on a call."""
        action = PolicyAction("tool_use", request.tool_name, request.input)
        who, what, more = [partial(_resolved, resolver, context, action) for resolver in self._resolvers]
        return await self._judge.judge(request, who, what, partial(_with_folder, cwd, more) if cwd else more)

    async def _answered(self, request: PermissionRequest, verdict: PolicyVerdict) -> tuple[PermissionDecision, str]:
        """The answer to a call that the policy leaves open."""
        if verdict.decision == "abstain":
            raise _NoOpinionError(verdict)
        if self._on_ask is None:
            reason = verdict.reason or "the policy asks, and nobody answers"
            return PermissionDecision(decision="deny", reason=reason), "default"
        return await called(self._on_ask, replace(request, policy=verdict.engine, reason=verdict.reason))


class _NoOpinionError(Exception):
    """The policy abstains."""

    def __init__(self, verdict: PolicyVerdict) -> None:
        super().__init__()
        self.verdict = verdict


def _resolved(resolver: Resolver, context: Any, action: PolicyAction, request: PermissionRequest) -> Any:
    del request
    return resolver(context, action)


async def _with_folder(cwd: str, more: Resolver, request: PermissionRequest) -> dict[str, Any]:
    found = more(request)
    return {"cwd": cwd, **dict((await found if inspect.isawaitable(found) else found) or {})}


def _no_resource(context: Any) -> PolicyResource:
    del context
    return PolicyResource()


def _no_context(context: Any) -> dict[str, Any]:
    del context
    return {}


def _taking_both(resolver: Resolver, name: str) -> Resolver:
    """A resolver that is called with the context and the action, whatever it takes. Raises `ValidationError`."""
    if not callable(resolver):
        raise ValidationError(f"{name} must be a callable", hint=f"Such as {name}=lambda context: ….")
    try:
        inspect.signature(resolver).bind(None, None)
    except (TypeError, ValueError):  # it takes one argument, or is a builtin that does not say
        return partial(_without_action, resolver)
    return resolver


def _without_action(resolver: Resolver, context: Any, action: PolicyAction) -> Any:
    del action
    return resolver(context)


def _told(event: CaPermissionDecision) -> None:
    """Tell the process's own pipeline of a decision that belongs to no session that is known here."""
    try:
        pipeline = get_pipeline()
        if pipeline.active:
            told = TelemetryEvent(kind="policy_decision", session_id="unknown", payload=decision_payload(event))
            pipeline.offer(Step(time.time_ns(), lambda _: (told,), vital=True))
    except Exception as error:  # noqa: BLE001 - telemetry never breaks a run
        _log.error("decision_not_told", error=repr(error))
