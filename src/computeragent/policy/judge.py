"""The judge: turns a tool call into a policy's question and the policy's answer into a verdict of the chain."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from computeragent.logs import Logger
from computeragent.policy.obligations import ObligationError, fulfil
from computeragent.policy.types import (
    PolicyAction,
    PolicyDecision,
    PolicyEngine,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
    denied_by_fault,
)
from computeragent.protocol_types import PermissionRequest, PolicyVerdict

REMEMBERED = 4_096
"""Answers that a judge remembers, for engines that allow it."""

_canonical = msgspec.json.Encoder(order="deterministic").encode
_log = Logger("policy")

_Part = TypeVar("_Part")

Ask = Callable[[PermissionRequest], Any]
"""Finds out a part of the question from the call: sync or async. Raising denies."""


class PolicyJudge:
    """A `PolicyDecider` made of an engine and of who asks, for what, in which context. Any fault denies.

    `principal`, `resource` and `context` are fixed, or found out for each call. `context` is merged over the call's
    ``risk``.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        *,
        principal: PolicyPrincipal | Ask | None = None,
        resource: PolicyResource | Ask | None = None,
        context: dict[str, Any] | Ask | None = None,
    ) -> None:
        self.engine = engine
        self.name = str(getattr(engine, "name", type(engine).__name__))
        self._principal = principal
        self._resource = resource or PolicyResource()
        self._context = context or {}
        self._memory = _Memory()

    async def __call__(self, request: PermissionRequest) -> PolicyVerdict:
        """Judge one call. Never raises."""
        return await self.judge(request, self._principal, self._resource, self._context)

    async def judge(self, request: PermissionRequest, principal: Any, resource: Any, context: Any) -> PolicyVerdict:
        """Judge one call, asked by others than this judge's own. Never raises."""
        try:
            question = PolicyInput(
                _typed(await _found(principal, request), PolicyPrincipal),
                PolicyAction("tool_use", request.tool_name, request.input),
                _typed(await _found(resource, request), PolicyResource),
                {"risk": request.risk, **dict(await _found(context, request) or {})},
            )
        except Exception as error:  # noqa: BLE001 - a question that cannot be asked is a denial
            _log.error("resolver_failed", tool=request.tool_name, error=repr(error))
            reason = f"the policy's question could not be made: {type(error).__name__}"
            return _verdict(denied_by_fault(self.name, "POLICY_RESOLVER", reason), request.input)
        result = await self._evaluate(question)
        verdict = _verdict(result, request.input)
        return replace(verdict, engine=verdict.engine or self.name, principal=question.principal.id)

    async def _evaluate(self, question: PolicyInput) -> PolicyResult:
        generation: Hashable | None = getattr(self.engine, "generation", None)
        key = None if generation is None else self._memory.key(question, generation)
        known = None if key is None else self._memory.get(key)
        if known is not None:
            return known
        try:
            result: object = await self.engine.evaluate(question)
        except Exception as error:  # noqa: BLE001 - an engine that fails denies
            _log.error("engine_failed", engine=self.name, tool=question.action.tool_name, error=repr(error))
            return denied_by_fault(self.name, "POLICY_ERROR", f"the policy engine failed: {type(error).__name__}")
        if not isinstance(result, PolicyResult) or not isinstance(result.decision, PolicyDecision):  # pyright: ignore[reportUnnecessaryIsInstance]
            return denied_by_fault(self.name, "POLICY_MALFORMED", "the policy engine's answer is no PolicyResult")
        if key is not None and result.code is None and getattr(self.engine, "generation", None) == generation:
            self._memory.put(key, result)
        return result


class _Memory:
    """Answers by canonical question: the newest `REMEMBERED`, of one generation."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, PolicyResult] = OrderedDict()
        self._generation: Hashable = None

    def key(self, question: PolicyInput, generation: Hashable) -> bytes | None:
        if generation != self._generation:
            self._answers.clear()
            self._generation = generation
        try:
            return _canonical(question)
        except (TypeError, ValueError, RecursionError):
            return None

    def get(self, key: bytes) -> PolicyResult | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: PolicyResult) -> None:
        self._answers[key] = answer
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)


def _typed(found: Any, kind: type[_Part]) -> _Part:
    if not isinstance(found, kind):
        raise TypeError(f"expected a {kind.__name__}, got {type(found).__name__}")
    return found


async def _found(part: Any, request: PermissionRequest) -> Any:
    if not callable(part):
        return part
    found = part(request)
    return await found if inspect.isawaitable(found) else found


def _verdict(result: PolicyResult, tool_input: dict[str, Any]) -> PolicyVerdict:
    """The engine's answer as a verdict, its obligations met."""
    told = PolicyVerdict(
        result.decision.value, reason=result.reason or None, rule=result.rule, engine=result.engine, code=result.code
    )
    if result.decision is not PolicyDecision.ALLOW or not result.obligations:
        return told
    try:
        changed, approval = fulfil(result.obligations, tool_input)
    except ObligationError as error:
        return replace(told, decision="deny", reason=str(error), code="POLICY_OBLIGATION")
    if changed != tool_input:
        return replace(told, decision="modify", input=changed)  # judged anew: approval is asked for then
    return told if approval is None else replace(told, decision="ask", reason=approval)
