"""The permission chain: policy, then a pending request that somebody answers, then denial at the time limit.

Every tool call of every engine passes here, and every decision becomes an event. Any fault denies.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from computeragent.errors import UnknownCallError
from computeragent.logs import Logger
from computeragent.policy.answers import parse_decision
from computeragent.policy.review import decision_event, review
from computeragent.policy.risk import classify
from computeragent.protocol_types import PermissionRequest, PolicyDecider, PolicyVerdict
from computeragent.wire.events import CaPermissionRequest, HarnessEvent
from computeragent.wire.requests import PermissionDecision

_REMEMBERED = 1_000  # calls of which a late answer is told who was first
_log = Logger("permissions")


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that waits for an answer: asked, and to be denied, at these epoch seconds."""

    request: CaPermissionRequest
    asked_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    told: Pending
    answer: asyncio.Future[tuple[PermissionDecision, str]]


class PermissionChain:
    """The chain of one session. `emit` appends an event; `turn` tells the current turn's index."""

    def __init__(
        self,
        *,
        session_id: str,
        policy: PolicyDecider | None,
        approval_timeout: float,
        emit: Callable[[HarnessEvent], object],
        turn: Callable[[], int | None],
    ) -> None:
        self._session_id = session_id
        self._policy = policy
        self._timeout = approval_timeout
        self._emit = emit
        self._turn = turn
        self._pending: dict[str, _Waiting] = {}
        self._settled: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._closed: str | None = None
        self._denied: tuple[int, str] = (0, "")

    @property
    def pending(self) -> list[str]:
        """The call ids that wait for an answer."""
        return list(self._pending)

    @property
    def waiting(self) -> list[Pending]:
        """The calls that wait for an answer, as they were asked."""
        return [each.told for each in self._pending.values()]

    async def ask(self, request: PermissionRequest) -> PermissionDecision:
        """Decide one tool call. Never raises: any fault denies."""
        asked = time.perf_counter()
        if request.risk is None:
            request = replace(request, risk=classify(request.tool_name, request.input))
        try:
            verdict, by = await review(request, self._policy, answer=self._wait, stopped=self._stopped())
        except asyncio.CancelledError:
            reason = self._closed or "the engine took the call back"
            self._record(request, PolicyVerdict("deny", reason=reason), "session", asked)
            raise
        except Exception as error:  # noqa: BLE001 - any fault denies
            _log.error("chain_failed", session=self._session_id, tool=request.tool_name, error=type(error).__name__)
            verdict, by = PolicyVerdict("deny", reason=f"the permission chain failed: {type(error).__name__}"), "fault"
        try:
            self._record(request, verdict, by, asked)
        except (TypeError, ValueError, RecursionError):  # an input that is no JSON cannot be recorded, so it cannot run
            verdict = PolicyVerdict("deny", reason="the tool's input cannot be expressed as JSON")
            self._record(replace(request, input={}), verdict, "fault", asked)
        if verdict.decision == "deny":
            return PermissionDecision(decision="deny", reason=verdict.reason or "denied")
        if verdict.decision == "modify":
            return PermissionDecision(decision="modify", input=verdict.input, reason=verdict.reason)
        return PermissionDecision(decision="allow", reason=verdict.reason)

    def decide(self, call_id: str, decision: PermissionDecision, by: str) -> None:
        """Answer a pending request; the first answer wins. Raises `UnknownCallError`, which says who was first where
        that is known, and `ValidationError` for a decision that is none: the request then still waits.
        """
        decision = parse_decision(decision)
        waiting = self._pending.pop(call_id, None)
        if waiting is None or waiting.answer.done():
            raise self._too_late(call_id)
        self._settle(call_id, decision.decision, by)
        waiting.answer.set_result((decision, by))

    def deny_pending(self, reason: str) -> None:
        """Deny everything that waits for an answer, or for the policy's word."""
        self._denied = (self._denied[0] + 1, reason)
        for call_id in list(self._pending):
            self.decide(call_id, PermissionDecision(decision="deny", reason=reason), "session")

    def close(self, reason: str) -> None:
        """Deny everything that waits, and everything from now on."""
        self._closed = reason
        self.deny_pending(reason)

    def _settle(self, call_id: str, decision: str, by: str) -> None:
        self._settled[call_id] = {"decision": decision, "decidedBy": by}
        self._settled.move_to_end(call_id)
        if len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)

    def _too_late(self, call_id: str) -> UnknownCallError:
        message = f"no pending permission request for callId {call_id!r} on session {self._session_id!r}"
        settled = self._settled.get(call_id)
        if settled is None:
            return UnknownCallError(message, hint="It was answered already, timed out, or its turn ended.")
        first = f"{settled['decision']} by {settled['decidedBy']}"
        return UnknownCallError(f"{message}: {first} was first", hint="The first answer wins.", details=dict(settled))

    def _stopped(self) -> Callable[[], str | None]:
        """Tells, from now on, why a call that is judged now may not run any more."""
        began = self._denied[0]
        return lambda: self._closed or (self._denied[1] if self._denied[0] != began else None)

    async def _wait(self, request: PermissionRequest, verdict: PolicyVerdict) -> tuple[PermissionDecision, str]:
        if request.call_id in self._pending:
            return PermissionDecision(decision="deny", reason="a call with this id is pending already"), "fault"
        asked = CaPermissionRequest(
            session_id=self._session_id,
            call_id=request.call_id,
            tool_name=request.tool_name,
            input=request.input,
            risk=request.risk,
            policy=(verdict.engine or "policy") if verdict.decision == "ask" else None,
            reason=verdict.reason if verdict.decision == "ask" else None,
            turn_index=self._turn(),
        )
        now = time.time()
        waiting = _Waiting(Pending(asked, now, now + self._timeout), asyncio.get_running_loop().create_future())
        self._pending[request.call_id] = waiting
        self._settled.pop(request.call_id, None)
        try:
            self._emit(asked)
            async with asyncio.timeout(self._timeout):
                return await waiting.answer
        except TimeoutError:
            self._settle(request.call_id, "deny", "timeout")
            return PermissionDecision(decision="deny", reason=f"nobody answered within {self._timeout:g} s"), "timeout"
        finally:
            self._pending.pop(request.call_id, None)

    def _record(self, request: PermissionRequest, verdict: PolicyVerdict, by: str, asked: float) -> None:
        self._emit(
            decision_event(
                self._session_id, request, verdict, by, seconds=time.perf_counter() - asked, turn_index=self._turn()
            )
        )
