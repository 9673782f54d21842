"""Policies of an SRS service: the policy bound to an agent is fetched, and the service judges each call by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote

import msgspec
from anyio import to_thread

from computeragent import discovery
from computeragent.errors import ValidationError
from computeragent.policy.breaker import Breaker
from computeragent.policy.http import (
    PolicyFaultError,
    PolicyService,
    Reply,
    checked_base,
    checked_fail_mode,
    checked_headers,
    checked_timeout,
)
from computeragent.policy.principals import process_user
from computeragent.policy.types import (
    FailMode,
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
    denied_by_fault,
)
from computeragent.wire.encoding import from_json, to_json

if TYPE_CHECKING:
    import httpx2

    from computeragent.policy.authorizer import PolicyToolAuthorizer

POLICY_TTL = 60.0
"""Seconds after which a policy and its binding are fetched again, so that edits take effect."""

_SECTIONS = ("cedar_guardrail", "opa_guardrail")
_LARGEST = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Bound:
    """What judges the agent: a policy and its sections, or no policy at all."""

    policy_id: str | None
    until: float
    sections: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)


class SrsPolicyEngine:
    """Has an SRS service judge calls by the policy that is bound to an agent.

    *Direct*, with `endpoint` and `policy_id`: the service itself is asked, under ``{endpoint}/v1``, with the key in
    ``x-api-key``. *Through AgentOS*, with `agentos_base` (the ingest URL without ``/events``), or with neither, where
    discovery tells it: AgentOS says which policy is bound to `agent_name`, and asks the service on our behalf. An agent
    that has no policy there is not judged: the engine abstains. While it cannot be learned which policy is bound, every
    call is denied.

    Args:
        endpoint: The service's URL, in direct mode.
        policy_id: The policy, in direct mode.
        api_key: The service's key.
        agentos_base: AgentOS's ingest base.
        agentos_token: The ``cak_`` key for AgentOS. Default: the process's own.
        agent_name: The agent, as bindings and policies name it. Default: the name in the question.
        fail_mode: ``allow`` lets calls pass while the service is away. Not knowing the policy denies all the same.
        timeout: Seconds for each request.
        client: An `httpx2.AsyncClient` to use instead of one of its own; it stays open.
        policy_ttl: Seconds after which the binding and the policy are fetched again.

    """

    name = "srs"

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        policy_id: str | None = None,
        api_key: str = "",
        agentos_base: str | None = None,
        agentos_token: str | None = None,
        agent_name: str = "",
        fail_mode: FailMode = "deny",
        timeout: float = 10.0,
        client: httpx2.AsyncClient | None = None,
        policy_ttl: float = POLICY_TTL,
    ) -> None:
        if bool(endpoint) != bool(policy_id):
            raise ValidationError("an SRS endpoint and a policy_id go together", hint="Give both, or agentos_base.")
        self._fail_mode: FailMode = checked_fail_mode(self.name, fail_mode)
        self._policy_id = policy_id
        self._agent_name = agent_name
        self._ttl = checked_timeout(policy_ttl)
        self._bindings: dict[str, _Bound] = {}
        token = agentos_token or discovery.agent_key() or ""
        if endpoint:
            headers = {"x-api-key": api_key} if api_key else {}
        else:
            headers = {"authorization": f"Bearer {token}"} if token else {}
        checked_headers(headers)
        base = f"{checked_base(endpoint)}/v1" if endpoint else agentos_base
        self._service = partial(PolicyService, timeout=checked_timeout(timeout), headers=headers, client=client)
        self._policies: PolicyService | None = None
        self._judge: PolicyService | None = None
        if base:
            self._connect(base)

    @classmethod
    def from_env(cls, *, agent_name: str = "", **overrides: Any) -> Self:
        """The engine that the environment describes. `overrides` are arguments of the constructor.

        ``SRS_BASE_URL`` with ``SRS_POLICY_ID`` (and ``SRS_API_KEY``) ask the service directly. Otherwise AgentOS is
        asked, where ``AGENTOS_INGEST_URL`` or the discovery document says it is. Raises `ValidationError` when neither
        is configured.
        """
        given: dict[str, Any] = {"agent_name": agent_name}
        endpoint, policy = _variable("SRS_BASE_URL"), _variable("SRS_POLICY_ID")
        if endpoint and policy:
            given |= {"endpoint": endpoint, "policy_id": policy, "api_key": _variable("SRS_API_KEY")}
        elif (ingest := discovery.override("ingest")) is not None:
            given["agentos_base"] = _ingest_base(ingest)
        elif not discovery.configured("ingest") and not overrides:
            raise ValidationError(
                "no SRS service is configured",
                hint="Set AGENTOS_DISCOVERY_URL, or SRS_BASE_URL with SRS_POLICY_ID and SRS_API_KEY.",
            )
        return cls(**(given | overrides))

    def __repr__(self) -> str:
        place = self._policies.place if self._policies else "by discovery"
        return f"SrsPolicyEngine({place!r}, policy_id={self._policy_id!r}, agent_name={self._agent_name!r})"

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002 - the name that users know
        """Judge one call. Never raises: a fault is a denial with a code."""
        agent = self._agent_name or input.resource.agent_name
        try:
            bound = await self._binding(agent)
        except PolicyFaultError as fault:
            reason = f"the policy that is bound to this agent could not be learned: {fault.reason}"
            return denied_by_fault(self.name, "POLICY_UNBOUND", reason)
        if bound.policy_id is None or self._judge is None:
            return PolicyResult(PolicyDecision.ABSTAIN, reason="no policy is bound to this agent", engine=self.name)
        try:
            return await self._judged(self._judge, bound, input, agent)
        except PolicyFaultError as fault:
            return fault.denial(self.name, self._fail_mode)

    async def aclose(self) -> None:
        """Close the connections."""
        for service in (self._policies, self._judge):
            if service is not None:
                await service.aclose()

    def _connect(self, base: str) -> None:
        """Policies and judgements are two services: what fails for one may work for the other."""
        self._policies = self._service(base, largest=_LARGEST, breaker=Breaker(failures=1, shortest=0.5))
        self._judge = self._service(base)

    async def _binding(self, agent: str) -> _Bound:
        """The policy that judges an agent, fetched when it is not known or known for too long.

        Raises `PolicyFaultError`.
        """
        known = self._bindings.get(agent)
        if known is not None and monotonic() < known.until:
            return known
        self._bindings.pop(agent, None)
        if self._policies is None:
            base = await self._discovered()
            if base is None:
                return self._kept(agent, None)
            self._connect(base)
        service = self._policies
        assert service is not None
        policy_id = self._policy_id or await self._bound_policy(service, agent)
        if policy_id is None:
            return self._kept(agent, None)
        reply = await service.ask("GET", f"/rai/policies/{_segment(policy_id)}")
        if reply.status == 404:
            raise PolicyFaultError("POLICY_UNBOUND", f"{service.place} has no policy {policy_id!r}")
        policy = _object(service, reply)
        return self._kept(agent, policy_id, {name: policy[name] for name in _SECTIONS if policy.get(name) is not None})

    async def _bound_policy(self, service: PolicyService, agent: str) -> str | None:
        """The id of the policy that AgentOS binds to an agent; None when it says that there is none."""
        if not agent:
            raise PolicyFaultError("POLICY_UNBOUND", "the agent has no name to find its policy by: give agent_name")
        reply = await service.ask("GET", f"/policy-config/{_segment(agent)}")
        if reply.status == 404:
            return None
        answer = _object(service, reply)
        binding: object = answer.get("policy", ...)
        policy_id = cast("Mapping[str, Any]", binding).get("policyId", ...) if isinstance(binding, Mapping) else binding
        if policy_id is None or (isinstance(policy_id, str) and policy_id):
            return policy_id
        raise PolicyFaultError("POLICY_UNBOUND", f"{service.place} did not say which policy is bound to the agent")

    async def _discovered(self) -> str | None:
        """The ingest base that the discovery document names; None when it says that there is none."""
        ingest = await to_thread.run_sync(discovery.endpoint, "ingest")
        if ingest is not None:
            return _ingest_base(ingest)
        if discovery.document_url() is None:
            raise PolicyFaultError("POLICY_UNBOUND", "neither an endpoint nor AGENTOS_DISCOVERY_URL is set")
        if not discovery.known():
            raise PolicyFaultError("POLICY_UNBOUND", "the discovery document could not be read")
        return None

    def _kept(self, agent: str, policy_id: str | None, sections: dict[str, Any] | None = None) -> _Bound:
        bound = _Bound(policy_id, monotonic() + self._ttl, sections or {})
        self._bindings[agent] = bound
        return bound

    async def _judged(self, service: PolicyService, bound: _Bound, asked: PolicyInput, agent: str) -> PolicyResult:
        try:
            body = to_json(
                {
                    **bound.sections,
                    "tool_name": asked.action.tool_name,
                    "tool_args": asked.action.tool_input,
                    "principal_id": asked.principal.id,
                    "bundle_id": agent,
                    "bundle_name": agent,
                }
            )
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"the policy's question cannot be expressed as JSON: {error}"
            raise PolicyFaultError("POLICY_ERROR", reason) from None
        answer = _object(service, await service.ask("POST", "/guardrails/evaluate-tool-call", body))
        allowed, reason, by = answer.get("allowed"), answer.get("reason"), answer.get("denied_by")
        if not isinstance(allowed, bool):
            kind = type(allowed).__name__
            raise PolicyFaultError("POLICY_MALFORMED", f"{service.place} gave a {kind} for allowed, not true or false")
        rule = by if isinstance(by, str) and by else None
        told = (
            reason if isinstance(reason, str) and reason else ("" if allowed else f"denied by {rule or 'the policy'}")
        )
        return PolicyResult(
            PolicyDecision.ALLOW if allowed else PolicyDecision.DENY,
            reason=told or ("" if allowed else f"denied by {rule or bound.policy_id}"),
            engine=self.name,
            rule=rule or bound.policy_id,
            policy_id=bound.policy_id,
        )


def srs_authorizer_from_env(agent_name: str = "") -> PolicyToolAuthorizer | None:
    """What the environment configures as a `can_use_tool` (see `SrsPolicyEngine.from_env`); None when it is nothing.

    The principal is ``SRS_PRINCIPAL_ID``, or the user of this process.
    """
    try:
        engine = SrsPolicyEngine.from_env(agent_name=agent_name)
    except ValidationError:
        if discovery.configured("ingest") or _variable("SRS_BASE_URL"):
            raise
        return None
    from computeragent.policy.authorizer import PolicyToolAuthorizer

    named = _variable("SRS_PRINCIPAL_ID")
    principal = PolicyPrincipal(named) if named else process_user()
    resource = PolicyResource(agent_name=agent_name)

    def who(_: object) -> PolicyPrincipal:
        return principal

    def what(_: object) -> PolicyResource:
        return resource

    return PolicyToolAuthorizer(engine=engine, principal_resolver=who, resource_resolver=what)


def _object(service: PolicyService, reply: Reply) -> dict[str, Any]:
    """The object that an answer is. Raises `PolicyFaultError`."""
    if reply.status != 200:
        raise service.refusal(reply.status, hint="is it an SRS service?")
    try:
        answer: object = from_json(reply.data)
    except (msgspec.DecodeError, RecursionError):
        raise PolicyFaultError("POLICY_MALFORMED", f"the answer of {service.place} is not JSON") from None
    if not isinstance(answer, dict):
        raise PolicyFaultError("POLICY_MALFORMED", f"the answer of {service.place} is not an object")
    return cast("dict[str, Any]", answer)


def _ingest_base(ingest: str) -> str:
    return ingest.rstrip("/").removesuffix("/events")


def _segment(name: str) -> str:
    """A name as one step of a path. Raises `PolicyFaultError` for one that would be a step to elsewhere."""
    if name in {".", ".."}:
        raise PolicyFaultError("POLICY_UNBOUND", f"{name!r} cannot name an agent or a policy")
    return quote(name, safe="")


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
