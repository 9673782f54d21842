"""The story of a harness run, told from its event log: the same events as the drop-in tells."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from computeragent.errors import ComputerAgentError
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.prices import TOKEN_KEYS
from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.seen import Result, from_payload
from computeragent.telemetry.story import Story
from computeragent.telemetry.trace_context import Parent
from computeragent.wire.events import (
    CaPermissionDecision,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    Recorded,
    SdkMessage,
)
from computeragent.wire.usage import UsageRollup

_NAMESPACE = uuid.UUID("6f1c1f0e-6d0e-5b7e-9d6a-6f2f6a0f4c11")


@dataclass(slots=True)
class RunFacts:
    """What the log does not say of a run: joins the payload of ``session_started``."""

    payload: dict[str, Any]
    agent_id: str | None = None
    agent_name: str | None = None
    agent_description: str | None = None


class RecordedRun:
    """One run of a session. Ids of events come from the session's and the log's, so reading again tells the same."""

    def __init__(self, session_id: str, facts: RunFacts, parent_of: Callable[[int], Parent | None]) -> None:
        self._story = Story(session_id, agent_id=facts.agent_id, agent_description=facts.agent_description)
        self._facts = facts
        self._parent_of = parent_of
        self._rollup = UsageRollup()

    def read(self, recorded: Recorded) -> list[TelemetryEvent]:
        """The events that one recorded event stands for."""
        at = round(recorded.at * 1e9)
        story, event = self._story, recorded.event
        told: list[TelemetryEvent] = []
        first_id = self._id(recorded, 0)
        match event:
            case CaSessionStarted():
                story.agent_name = self._facts.agent_name or event.identity.name
                identity = {"agent_version": event.identity.version, "agent_sha": event.identity.sha, "cwd": event.cwd}
                known = {key: value for key, value in identity.items() if value is not None}
                story.start(at, {"harness_mode": True, "engine": event.engine, **known, **self._facts.payload})
            case CaTurnStarted():
                self._rollup = UsageRollup(baseline=max(self._rollup.cumulative_usd or 0.0, self._rollup.baseline))
                text = event.message.text() if event.message is not None else None
                told = story.prompt(at, text, event_id=first_id, parent=self._parent_of(event.turn_index))
            case CaUsageSnapshot():
                self._rollup.absorb(event)
            case SdkMessage():
                told = self._message(at, event)
            case CaPermissionDecision():
                told = story.decision(at, decision_payload(event))
            case CaSessionEnded():
                told = story.end(at, cancelled=event.reason == "cancelled", failure=_failure(event))
            case _:
                pass
        for index, one in enumerate(told):
            if one.kind != "turn_started":
                one.event_id = self._id(recorded, index + 1)
            one.raw = event
        return told

    def leave(self, error: ComputerAgentError | None, at: int) -> list[TelemetryEvent]:
        """The end of a run whose log says none: it could not be read to its end, or is told no further."""
        failure = None if error is None else Trip(error.code, error.message)
        return self._story.end(at, cancelled=True, failure=failure)

    def _message(self, at: int, event: SdkMessage) -> list[TelemetryEvent]:
        seen = from_payload(event.payload)
        if isinstance(seen, Result) and not event.ends_turn:
            return []  # what an engine says last when its run is ended from outside is no outcome
        if event.ends_turn and not isinstance(seen, Result):
            seen = Result(subtype="success", is_error=False)
        if isinstance(seen, Result) and seen.usage is None:
            seen.usage = {key: getattr(self._rollup, key) for key in TOKEN_KEYS} if self._rollup.total_tokens else None
            if seen.total_cost_usd is None and self._rollup.cost_usd is not None:
                seen.total_cost_usd = (self._story.cost_usd or 0.0) + self._rollup.cost_usd
        return [] if seen is None else self._story.read(at, seen)

    def _id(self, recorded: Recorded, index: int) -> str:
        return uuid.uuid5(_NAMESPACE, f"{self._story.session_id}/{recorded.id}/{recorded.at}/{index}").hex


def decision_payload(event: CaPermissionDecision) -> dict[str, Any]:
    """A decision as the payload of a ``policy_decision``."""
    fields = {
        "engine": event.engine or event.decided_by,
        "decided_by": event.decided_by,
        "decision": event.decision,
        "reason": event.reason,
        "rule": event.rule,
        "code": event.code,
        "principal_id": event.principal,
        "latency_ms": event.latency_ms,
        "tool_name": event.tool_name,
        "tool_use_id": event.call_id,
        "tool_input": event.input,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _failure(event: CaSessionEnded) -> Trip | None:
    if event.reason in {"complete", "cancelled"}:
        return None
    kind = event.error_code or event.reason
    return Trip("budget_exceeded" if event.reason == "budget_exceeded" else kind, event.error_message or event.reason)
