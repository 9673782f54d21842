"""Where an agent runs: in this process, or on a server of either kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from computeragent import discovery, plugins
from computeragent.agent_input import AgentInput, is_http_url, require_here
from computeragent.discovery import agent_key
from computeragent.errors import NotRemotableError, ValidationError
from computeragent.eventlog import EventLog
from computeragent.harness import LocalHarness
from computeragent.harness.git_credential_client import is_configured, resolve_git_credential
from computeragent.policy.types import PolicyEngine
from computeragent.protocol_types import Harness, SessionRequest, Substrate
from computeragent.references import RegisteredAgent, heard, require_ingest, resolve_agent
from computeragent.settings import home, setting
from computeragent.telemetry.audit import AuditSink
from computeragent.telemetry.pipeline import Pipeline
from computeragent.wire.identity import InlineSource

KINDS = ("auto", "protocol", "server")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a caller said about where an agent runs, and what of this process goes with it."""

    runtime: str | Substrate | None
    harness_url: str | None
    harness_kind: str | None
    harness_token: str | None
    harness_auth: tuple[str, str] | None
    asks: bool
    event_log: EventLog | None
    progress: Callable[[str], None] | None
    telemetry: Pipeline | None
    audit_sinks: Sequence[AuditSink]


def place(given: AgentInput, where: Placement) -> tuple[Harness, AgentInput]:
    """The harness for an agent, and the agent as that place takes it. Raises for what can be seen at once."""
    kind = setting("harness_kind", where.harness_kind, "auto")
    if kind not in KINDS:
        raise ValidationError(f"harness_kind {kind!r} is unknown", hint=f"Use one of: {', '.join(KINDS)}.")
    url = where.harness_url or _url_of_environment(where.runtime, given.engine)
    if url is None:
        return _here(given, where)
    if not is_http_url(url):
        shown = url.rpartition("@")[2]  # a password may be before it
        raise ValidationError(f"harness_url {shown!r} is not an http(s) URL", hint="Such as http://127.0.0.1:7700.")
    return _there(url, cast("Any", kind), given, where), given


async def complete(given: AgentInput, where: Placement, harness: Harness) -> SessionRequest:
    """What opens the agent's session; an agent without a source is looked up by its id."""
    if given.agent_id is not None and isinstance(harness, LocalHarness):
        await heard(given.agent_id, where.telemetry)
    if given.source is not None:
        return given.request()
    assert given.agent_id is not None
    return given.request(await resolve_agent(given.agent_id, token=where.harness_token))


def _here(given: AgentInput, where: Placement) -> tuple[Harness, AgentInput]:
    require_here(given)
    if given.agent_id is not None:
        require_ingest(given.agent_id, where.telemetry)
    chosen = where.runtime or "local"
    substrate = plugins.resolve_substrate(chosen) if isinstance(chosen, str) else chosen
    plugins.substrates.check(substrate)
    if given.git_credentials is None and is_configured(where.harness_token):
        resolver = partial(resolve_git_credential, token=where.harness_token)
        given = replace(given, git_credentials=resolver)
    harness = LocalHarness(
        log=where.event_log,
        substrate=substrate,
        progress=where.progress,
        telemetry=where.telemetry,
        audit_sinks=where.audit_sinks,
        policy=_bound(given, where),
        owns_policy=True,
    )
    return harness, given


def _bound(given: AgentInput, where: Placement) -> PolicyEngine | None:
    """The policy of an agent that brings none along: that of ``SRS_*``, or a registered agent's at AgentOS.

    Raises `ValidationError` where the environment says half of it.
    """
    if given.policy is not None:
        return None
    said = [name for name in ("SRS_BASE_URL", "SRS_POLICY_ID") if os.environ.get(name, "").strip()]
    if len(said) < 2 and (given.agent_id is None or not discovery.configured("ingest")):
        if said:  # half a policy is no reason to run without one
            hint = "Set SRS_BASE_URL and SRS_POLICY_ID, or neither."
            raise ValidationError(f"{said[0]} alone names no policy", hint=hint)
        return None
    from computeragent.policy.srs import SrsPolicyEngine

    return SrsPolicyEngine.from_env(agentos_token=where.harness_token)


def _there(url: str, kind: Literal["auto", "protocol", "server"], given: AgentInput, where: Placement) -> Harness:
    """A harness at an address. Raises `NotRemotableError` at once for what cannot travel there."""
    from computeragent.client.probing import ProbedHarness
    from computeragent.client.remote import request_body
    from computeragent.client.sandbox import sandbox_body

    if where.runtime is not None and not isinstance(where.runtime, str):
        raise NotRemotableError("runtime is an object of this process", hint="Name one that the server has.")
    example = given.request(RegisteredAgent("", InlineSource(manifest={})))
    (sandbox_body(example, where.runtime) if kind == "server" else request_body(example))
    make = partial(_client, url, where)
    return ProbedHarness(url, make) if kind == "auto" else make(kind)


def _client(url: str, where: Placement, kind: Literal["protocol", "server"]) -> Harness:
    from computeragent.client import ComputerAgentServerClient, HarnessClient, RemoteHarness, SandboxHarness
    from computeragent.client.telling import Telling

    auth = where.harness_auth or _basic_of_environment()
    token = where.harness_token or (None if auth else agent_key() or own_token_of(url, kind))
    telling = Telling(where.telemetry, where.audit_sinks)
    runtime = cast("str | None", where.runtime)
    if kind == "server":
        client = ComputerAgentServerClient(base_url=url, token=token, auth=auth)
        return SandboxHarness(client, runtime=runtime, asks=where.asks, telling=telling)
    if runtime not in {None, "local"}:
        raise NotRemotableError(
            f"runtime={runtime!r}: a harness server chooses where agents run",
            hint="Leave runtime out, or use a sandbox server (harness_kind='server').",
        )
    return RemoteHarness(HarnessClient(base_url=url, token=token, auth=auth), telling)


def _url_of_environment(runtime: object, engine: object) -> str | None:
    """The server that the environment names, unless the caller said where or what runs."""
    if runtime is not None or not (engine is None or isinstance(engine, str)):
        return None
    return setting("harness_url")


def _basic_of_environment() -> tuple[str, str] | None:
    """A user and password for servers that know no keys, unless there is a key."""
    user, password = os.environ.get("API_AUTH_USER"), os.environ.get("API_AUTH_PASS")
    return (user, password) if user and password and agent_key() is None else None


def own_token_of(url: str, kind: Literal["protocol", "server"]) -> str | None:
    """The token that a server of this account on this machine has made for itself."""
    if urlsplit(url).hostname not in _LOOPBACK:
        return None
    name = "sandboxes-token" if kind == "server" else "harness-token"
    try:
        return (home("keys") / name).read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
