"""Agents by reference: an id that the control plane knows, in place of a source."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from computeragent import discovery
from computeragent.control_plane import Answer, ask
from computeragent.errors import (
    ControlPlaneError,
    InsufficientPermissionError,
    UnauthorizedError,
    UnknownAgentError,
    ValidationError,
)
from computeragent.identity.sources import parse_source
from computeragent.telemetry.config import configured_pipeline
from computeragent.telemetry.pipeline import Pipeline
from computeragent.wire.identity import IdentitySource


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent as it is registered."""

    agent_id: str
    source: IdentitySource
    name: str | None = None
    harness: str | None = None
    model: str | None = None


async def resolve_agent(agent_id: str, *, api_base: str | None = None, token: str | None = None) -> RegisteredAgent:
    """Look an agent up by its id, or by the registry's own id of it.

    Raises `UnknownAgentError` when it is not registered, or not for this key's group; `UnauthorizedError` and
    `InsufficientPermissionError` for the key; `ControlPlaneError` when nobody answers or nothing is configured.
    """
    answer = await ask("agents/resolve", {"agentId": agent_id}, api_base=api_base, token=token)
    if answer.status != 200:
        raise _refusal(agent_id, answer)
    found = {name: _text(answer.body.get(name)) for name in ("name", "harness", "model")}
    source: Any = answer.body.get("source")
    if not source:
        raise UnknownAgentError(
            f"agent {agent_id!r} is registered without a source that can be run", hint="Pass source= as well."
        )
    try:
        return RegisteredAgent(agent_id, parse_source(source), **found)
    except ValidationError as error:
        raise ControlPlaneError(
            f"the source of agent {agent_id!r} cannot be read: {error.message}", hint="Register it again."
        ) from error


def require_ingest(agent_id: str, pipeline: Pipeline | None) -> None:
    """Raise `ValidationError` when runs of a registered agent would be told to nobody.

    Asks the discovery document, unless an event loop runs here that would have to wait: there `heard` asks later.
    """
    if pipeline is not None or configured_pipeline() is not None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        is_there = discovery.endpoint("ingest") is not None
    else:
        is_there = discovery.configured("ingest")
    if not is_there:
        raise _unheard(agent_id)


async def heard(agent_id: str, pipeline: Pipeline | None) -> None:
    """The same, with the discovery document asked without blocking the loop."""
    if (
        pipeline is None
        and configured_pipeline() is None
        and not await to_thread.run_sync(discovery.endpoint, "ingest")
    ):
        raise _unheard(agent_id)


def _unheard(agent_id: str) -> ValidationError:
    return ValidationError(
        f"agent_id={agent_id!r}, and no AgentOS that hears of its runs",
        hint="Set AGENTOS_DISCOVERY_URL or AGENTOS_INGEST_URL, pass telemetry_pipeline=, or leave agent_id out.",
    )


def _refusal(agent_id: str, answer: Answer) -> Exception:
    hint = "Check COMPUTERAGENT_HARNESS_TOKEN and the roles of that key."
    if answer.status == 401:
        return UnauthorizedError("the control plane does not know this key", hint=hint)
    if answer.status == 403:
        return InsufficientPermissionError(f"this key may not look agents up: {answer.told}", hint=hint)
    if answer.status == 404:
        return UnknownAgentError(
            f"no agent {agent_id!r} is registered, or not for this key's group",
            hint="Check agent_id, or run it once with source= to register it.",
        )
    return ControlPlaneError(f"agent {agent_id!r} could not be looked up: {answer.told}", hint="Try again later.")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
