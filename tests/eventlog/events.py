"""Short ways to make events."""

from __future__ import annotations

from computeragent.protocol_types import EngineCapabilities
from computeragent.wire.events import (
    AgentIdentity,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    SdkMessage,
    raw_payload,
)
from computeragent.wire.requests import UserInput

CAPABILITIES = EngineCapabilities(
    streaming_input=True, partial_messages=False, permission_callback=True, sessions=True, budget=True
)


def started(session_id: str = "s", agent: str = "tester") -> CaSessionStarted:
    identity = AgentIdentity(name=agent, version="1")
    return CaSessionStarted(session_id=session_id, engine="scripted", identity=identity, capabilities=CAPABILITIES)


def turn(index: int, text: str = "hello", session_id: str = "s") -> CaTurnStarted:
    return CaTurnStarted(session_id=session_id, turn_index=index, message=UserInput(content=text))


def said(text: str = "x", *, ends: bool = False, session_id: str = "s") -> SdkMessage:
    return SdkMessage(session_id=session_id, raw=raw_payload({"type": "x", "text": text}), ends_turn=ends)


def spent(cost: float, semantic: str | None = "cumulative", tokens: int = 0) -> CaUsageSnapshot:
    return CaUsageSnapshot(session_id="s", cost_usd=cost, cost_semantic=semantic, input_tokens=tokens)  # type: ignore[arg-type]


def ended(session_id: str = "s", reason: str = "complete") -> CaSessionEnded:
    return CaSessionEnded(session_id=session_id, reason=reason)  # type: ignore[arg-type]
