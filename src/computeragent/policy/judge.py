"""The judge: turns a tool call into a policy's question and the policy's answer into a verdict of the chain."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from copy import copy
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
        self._parts: tuple[Any, ...] = (principal, resource or PolicyResource(), copy(context))
        self._fixed = not any(callable(part) for part in self._parts)
        self._memory = _Memory()

    async def __call__(self, request: PermissionRequest) -> PolicyVerdict:
        """Judge one call. Never raises."""
        if not self._fixed:
            return await self.judge(request, *self._parts)
        # The call alone makes the question: what is remembered is found without asking it.
        generation: Hashable | None = getattr(self.engine, "generation", None)
        key = self._memory.key(generation, request.input, request.tool_name, request.risk)
        known = None if key is None else self._memory.get(key)
        return known or await self._ask(self._question(request, *self._parts), request, key, generation)

    async def judge(self, request: PermissionRequest, principal: Any, resource: Any, context: Any) -> PolicyVerdict:
        """Judge one call, asked by others than this judge's own. Never raises."""
        try:
            parts = [await _found(part, request) for part in (principal, resource, context)]
        except Exception as error:  # noqa: BLE001 - a question that cannot be asked is a denial
            return await self._ask(error, request)
        question = self._question(request, *parts)
        generation: Hashable | None = getattr(self.engine, "generation", None)
        key = None if isinstance(question, Exception) else self._memory.key(generation, question)
        known = None if key is None else self._memory.get(key)
        return known or await self._ask(question, request, key, generation)

    def _question(self, request: PermissionRequest, principal: Any, resource: Any, context: Any) -> Any:
        """The question, or why it cannot be made."""
        try:
            return PolicyInput(
                _typed(principal, PolicyPrincipal),
                PolicyAction("tool_use", request.tool_name, request.input),
                _typed(resource, PolicyResource),
                {"risk": request.risk, **dict(context or {})},
            )
        except Exception as error:  # noqa: BLE001 - a question that cannot be asked is a denial
            return error

    async def _ask(
        self,
        question: PolicyInput | Exception,
        request: PermissionRequest,
        key: Hashable | None = None,
        generation: Hashable | None = None,
    ) -> PolicyVerdict:
        """The engine's word as a verdict, remembered by `key` unless the policy has changed meanwhile."""
        if isinstance(question, Exception):
            _log.error("resolver_failed", tool=request.tool_name, error=repr(question))
            reason = f"the policy's question could not be made: {type(question).__name__}"
            return _verdict(denied_by_fault(self.name, "POLICY_RESOLVER", reason), request.input)
        try:
            result: object = await self.engine.evaluate(question)
        except Exception as error:  # noqa: BLE001 - an engine that fails denies
            _log.error("engine_failed", engine=self.name, tool=request.tool_name, error=repr(error))
            result = denied_by_fault(self.name, "POLICY_ERROR", f"the policy engine failed: {type(error).__name__}")
        if not isinstance(result, PolicyResult) or not isinstance(result.decision, PolicyDecision):  # pyright: ignore[reportUnnecessaryIsInstance]
            result = denied_by_fault(self.name, "POLICY_MALFORMED", "the policy engine's answer is no PolicyResult")
        verdict = _verdict(result, request.input)
        verdict = replace(verdict, engine=verdict.engine or self.name, principal=question.principal.id)
        if key is not None and getattr(self.engine, "generation", None) == generation:
            self._memory.put(key, verdict)
        return verdict


class _Memory:
    """Verdicts by what makes the question: the newest `REMEMBERED`, of one generation of the policy."""

    def __init__(self) -> None:
        self._verdicts: OrderedDict[Hashable, PolicyVerdict] = OrderedDict()
        self._generation: Hashable = None

    def key(self, generation: Hashable | None, asked: Any, *more: Hashable) -> Hashable | None:
        """What a verdict is remembered by; None where none may be."""
        if generation is None:
            return None
        if generation != self._generation:
            self._verdicts.clear()
            self._generation = generation
        try:
            return (_canonical(asked), *more)
        except (TypeError, ValueError, RecursionError):
            return None

    def get(self, key: Hashable) -> PolicyVerdict | None:
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def put(self, key: Hashable, verdict: PolicyVerdict) -> None:
        if verdict.code is not None or verdict.input is not None:
            return  # a fault may be over at the next call, and an input is the tool's to do with as it likes
        self._verdicts[key] = verdict
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)


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
    if result.decision not in {PolicyDecision.ALLOW, PolicyDecision.ASK} or not result.obligations:
        return told
    try:
        changed, approval = fulfil(result.obligations, tool_input)
    except ObligationError as error:
        return replace(told, decision="deny", reason=str(error), code="POLICY_OBLIGATION")
    if changed != tool_input:
        return replace(told, decision="modify", input=changed)  # judged anew: approval is asked for then
    if approval is None or result.decision is PolicyDecision.ASK:
        return told
    return replace(told, decision="ask", reason=approval)
