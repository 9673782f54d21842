"""What a policy is asked and what it answers: one canonical question for every engine.

The names and the shape of `PolicyInput.to_json()` are those that users of the drop-in know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

FailMode = Literal["deny", "allow"]
"""What an unreachable policy engine means. ``allow`` is for engines that advise: it never covers wrong answers."""


@dataclass(frozen=True, slots=True)
class PolicyPrincipal:
    """On whose behalf the agent acts. Servers take it from the credential."""

    id: str
    groups: list[str] = field(default_factory=list[str])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """As policies see it."""
        return {"id": self.id, "groups": self.groups, "attributes": self.attributes}


@dataclass(frozen=True, slots=True)
class PolicyAction:
    """What it wants to do: a tool, and the input that the tool would get."""

    name: Literal["tool_use"]
    tool_name: str
    tool_input: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """As policies see it."""
        return {"name": self.name, "tool_name": self.tool_name, "tool_input": self.tool_input}


@dataclass(frozen=True, slots=True)
class PolicyResource:
    """With what: the agent that acts. `attributes` say more of it, such as its engine."""

    type: str = "agent"
    agent_name: str = ""
    model: str = ""
    session_id: str = ""
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """As policies see it."""
        return {
            "type": self.type,
            "agent_name": self.agent_name,
            "model": self.model,
            "session_id": self.session_id,
            "attributes": self.attributes,
        }


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """The question. `context` holds ``risk`` (the call's risk class) and ``cwd`` (the folder that relative paths
    start from), and what a `context_resolver` adds.
    """

    principal: PolicyPrincipal
    action: PolicyAction
    resource: PolicyResource
    context: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """``{principal, action, resource, context}``, as OPA gets it under ``input``."""
        return {
            "principal": self.principal.to_json(),
            "action": self.action.to_json(),
            "resource": self.resource.to_json(),
            "context": self.context,
        }


class PolicyDecision(Enum):
    """``ask`` leaves the call to a person; ``abstain`` has no opinion: the next in the chain decides."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The answer.

    `rule` names what matched and `code` a fault (one of `POLICY_CODES`). `obligations` come with an ``allow`` or
    an ``ask`` (see `computeragent.policy.obligations`): one that is not understood denies.
    """

    decision: PolicyDecision
    reason: str = ""
    obligations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    engine: str = ""
    rule: str | None = None
    code: str | None = None
    policy_id: str | None = None


@runtime_checkable
class PolicyEngine(Protocol):
    """Judges tool calls. An exception denies.

    An engine whose answers depend on the question alone may have an attribute `generation`, which changes whenever
    its policies do: then answers are remembered until it changes.
    """

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002 - the name that users know
        """Judge one call."""
        ...

    async def aclose(self) -> None:
        """Free what the engine holds."""
        ...


POLICY_CODES: Mapping[str, str] = {
    "POLICY_UNAVAILABLE": "the policy engine could not be reached, refused, or failed to answer",
    "POLICY_TIMEOUT": "the policy engine did not answer in time",
    "POLICY_MALFORMED": "the policy engine's answer is not of the agreed shape",
    "POLICY_ERROR": "the policy engine, or a policy in it, failed while it judged",
    "POLICY_INVALID": "the policy cannot be read, parsed or validated",
    "POLICY_UNBOUND": "the policy that is bound to this agent could not be learned",
    "POLICY_RESOLVER": "who asks, for what, or in which context could not be found out",
    "POLICY_OBLIGATION": "an obligation of the policy is not understood or cannot be met",
}
"""Why a call was denied when it was no rule's decision: a fault's code and what it means."""


def denied_by_fault(engine: str, code: str, reason: str, *, fail_mode: FailMode = "deny") -> PolicyResult:
    """The answer of an engine that cannot judge. `fail_mode="allow"` covers an engine that is away, nothing else."""
    away = code in {"POLICY_UNAVAILABLE", "POLICY_TIMEOUT"}
    decision = PolicyDecision.ALLOW if away and fail_mode == "allow" else PolicyDecision.DENY
    return PolicyResult(decision, reason=reason, engine=engine, code=code)
