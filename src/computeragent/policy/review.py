"""The way of one call through policy and people, the same in the harness and in the drop-in. Any fault denies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from computeragent.logs import Logger
from computeragent.policy.risk import classify
from computeragent.protocol_types import PermissionRequest, PolicyDecider, PolicyVerdict
from computeragent.wire.events import CaPermissionDecision, Verdict
from computeragent.wire.requests import PermissionDecision

POLICY_TIMEOUT = 30.0
"""Seconds that a policy may take for one call before the call is denied."""

_MAX_REVIEWS = 4
_DECISIONS = frozenset({"allow", "deny", "modify", "ask", "abstain"})
_RECORDED: dict[str, Verdict] = {"deny": "deny", "modify": "modify"}
_log = Logger("permissions")

Answer = Callable[[PermissionRequest, PolicyVerdict], Awaitable[tuple[PermissionDecision, str]]]
"""Has a person or program decide a call that the policy leaves open; returns its word and who it was."""


async def review(
    request: PermissionRequest,
    policy: PolicyDecider | None,
    *,
    answer: Answer,
    stopped: Callable[[], str | None] = lambda: None,
    timeout: float | None = None,
) -> tuple[PolicyVerdict, str]:
    """Judge a call until an input stands that nobody changes any more; the verdict, and who gave it.

    The verdict is ``allow``, ``deny``, or ``modify`` with the input to run. A changed input is judged anew, and a
    person is asked once at most; in any case where the request itself names a policy. `stopped` tells why no call may
    run any more. `timeout` is for each word of the policy, in seconds (default: `POLICY_TIMEOUT`).
    """
    original, answered = request.input, ""
    for _ in range(_MAX_REVIEWS):
        if (reason := stopped()) is not None:
            return PolicyVerdict("deny", reason=reason), "session"
        verdict, by = await _judged(request, policy, POLICY_TIMEOUT if timeout is None else timeout), "policy"
        if (reason := stopped()) is not None:  # while the policy thought
            return PolicyVerdict("deny", reason=reason), "session"
        if request.policy is not None and not answered:
            verdict = _at_least_asked(verdict, request)
        if verdict.decision in {"ask", "abstain"}:
            if answered:
                verdict, by = replace(verdict, decision="allow", reason=None), answered
            else:
                told, by = await answer(request, verdict)
                answered = by
                verdict = replace(verdict, decision=told.decision, input=told.input, reason=told.reason)
        if verdict.decision == "deny":
            return verdict, by
        if verdict.input is not None and verdict.input != request.input:
            risk = classify(request.tool_name, verdict.input)
            request = replace(request, input=verdict.input, risk=risk)
            if policy is not None:
                continue
        if request.input != original:
            return replace(verdict, decision="modify", input=request.input), by
        return replace(verdict, decision="allow", input=None), by
    return PolicyVerdict("deny", reason="the input was modified again and again"), "fault"


def _at_least_asked(verdict: PolicyVerdict, request: PermissionRequest) -> PolicyVerdict:
    """The verdict on a call for which a person's word is needed, whatever a policy allows."""
    unchanged = verdict.input is None or verdict.input == request.input
    if verdict.decision in {"allow", "abstain"} or (verdict.decision == "modify" and unchanged):
        return replace(verdict, decision="ask", input=None, engine=request.policy, reason=request.reason)
    if verdict.decision == "ask":
        return replace(verdict, reason="; ".join(filter(None, (verdict.reason, request.reason))))
    return verdict


def decision_event(
    session_id: str,
    request: PermissionRequest,
    verdict: PolicyVerdict,
    by: str,
    *,
    seconds: float,
    turn_index: int | None = None,
) -> CaPermissionDecision:
    """What was decided of a call, as it is recorded."""
    return CaPermissionDecision(
        session_id=session_id,
        call_id=request.call_id,
        decision=_RECORDED.get(verdict.decision, "allow"),
        reason=verdict.reason,
        tool_name=request.tool_name,
        input=verdict.input if verdict.decision == "modify" else request.input,
        decided_by=by,
        engine=verdict.engine,
        rule=verdict.rule,
        code=verdict.code,
        principal=verdict.principal,
        latency_ms=round(seconds * 1000, 3),
        turn_index=turn_index,
    )


async def _judged(request: PermissionRequest, policy: PolicyDecider | None, timeout: float) -> PolicyVerdict:
    if policy is None:
        return PolicyVerdict("abstain")
    try:
        with anyio.fail_after(timeout):
            verdict: object = await policy(request)
    except TimeoutError:
        return _fault("POLICY_TIMEOUT", f"the policy did not answer within {timeout:g} s")
    except Exception as error:  # noqa: BLE001 - a failing policy denies
        _log.error("policy_failed", tool=request.tool_name, error=repr(error))
        return _fault("POLICY_ERROR", f"the policy failed: {type(error).__name__}")
    if not isinstance(verdict, PolicyVerdict) or verdict.decision not in _DECISIONS:
        return _fault("POLICY_MALFORMED", "the policy gave a malformed verdict")
    if verdict.decision == "modify" and not isinstance(verdict.input, dict):
        return _fault("POLICY_MALFORMED", "the policy gave a malformed verdict")
    return verdict


def _fault(code: str, reason: str) -> PolicyVerdict:
    return PolicyVerdict("deny", reason=reason, code=code)
