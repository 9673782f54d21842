"""Runs an engine in a real harness and records everything that it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from computeragent.eventlog import MemoryEventLog
from computeragent.harness import LocalHarness, LocalSession
from computeragent.protocol_types import LocalSource, PermissionRequest, SessionRequest
from computeragent.testing.conformance.plan import EngineCase, Plan
from computeragent.wire.events import CaPermissionRequest, HarnessEvent, Recorded, SdkMessage
from computeragent.wire.requests import PermissionDecision, UserInput

Answer = Callable[[PermissionRequest], PermissionDecision | None]


class ConformanceError(AssertionError):
    """An engine breaks one or more invariants; the message names them."""


def allow(_: PermissionRequest) -> PermissionDecision:
    """Allow every call."""
    return PermissionDecision(decision="allow")


def check(condition: object, message: str) -> None:
    """Raise `ConformanceError` unless the condition holds."""
    if not condition:
        raise ConformanceError(message)


class Probe:
    """One invariant's view of the engine under test, with a workspace of its own.

    `limit` is how many seconds one session may take before the invariant counts as broken.
    """

    def __init__(self, case: EngineCase, workspace: Path, *, limit: float = 45.0) -> None:
        self._case = case
        self._limit = limit
        self.workspace = workspace

    @asynccontextmanager
    async def session(self, plan: Plan, **request: Any) -> AsyncGenerator[LocalSession]:
        """A live session whose engine follows the plan. `request` goes to `SessionRequest`."""
        async with asyncio.timeout(self._limit), self._case.prepare(plan, self.workspace) as prepared:
            harness = LocalHarness(log=MemoryEventLog())
            session = await harness.open(
                SessionRequest(
                    source=LocalSource(path=str(self.workspace)),
                    engine=prepared.engine,
                    options=prepared.options,
                    envs=prepared.envs,
                    **request,
                )
            )
            try:
                yield session
            finally:
                await harness.close()

    async def play(self, plan: Plan, *, answer: Answer = allow, **request: Any) -> list[Recorded]:
        """Run the whole plan, one message after another, and return every event of the run."""
        async with self.session(plan, **request) as session:
            stream = session.events()
            for number in range(len(plan.turns)):
                await session.send(UserInput(content=Plan.message(number)))
            await session.end_input()
            return [recorded async for recorded in self.answering(session, stream, answer)]

    async def answering(self, session: LocalSession, stream: Any, answer: Answer) -> AsyncGenerator[Recorded]:
        """The stream's events, with every permission request answered as it comes."""
        async for recorded in stream:
            event = recorded.event
            if isinstance(event, CaPermissionRequest):
                decision = answer(PermissionRequest(event.call_id, event.tool_name, event.input, event.risk))
                if decision is not None:
                    await session.decide(event.call_id, decision)
            yield recorded

    async def turn(self, session: LocalSession, text: str | UserInput, answer: Answer = allow) -> list[HarnessEvent]:
        """Send one message and return its turn's events."""
        stream = session.events(session.newest)
        index = await session.send(text if isinstance(text, UserInput) else UserInput(content=text))
        found: list[HarnessEvent] = []
        async for recorded in self.answering(session, stream, answer):
            found.append(recorded.event)
            if recorded.event.kind == "ca_session_ended" or ends(recorded.event, index):
                break
        stream.close()
        return found

    async def until(self, session: LocalSession, kind: str) -> HarnessEvent:
        """Wait for the first event of a kind in the current run."""
        stream = session.events()
        async for recorded in stream:
            if recorded.event.kind == kind:
                stream.close()
                return recorded.event
        raise ConformanceError(f"the run ended without {kind}")


def ends(event: HarnessEvent, turn: int) -> bool:
    """Whether the event ends this turn."""
    return isinstance(event, SdkMessage) and event.ends_turn and event.turn_index == turn


def kinds(events: list[Recorded]) -> list[str]:
    """The kinds of the events, in order."""
    return [recorded.event.kind for recorded in events]


def said(events: list[Recorded]) -> str:
    """Everything in the engine's messages, as one text to search in."""
    return "\n".join(bytes(r.event.raw).decode() for r in events if isinstance(r.event, SdkMessage))
