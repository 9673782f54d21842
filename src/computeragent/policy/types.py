"""What a policy is asked and what it answers, at the import path that users know."""

from computeragent.policy_types import (
    POLICY_CODES,
    FailMode,
    PolicyAction,
    PolicyDecision,
    PolicyEngine,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
    denied_by_fault,
)

__all__ = [
    "POLICY_CODES",
    "FailMode",
    "PolicyAction",
    "PolicyDecision",
    "PolicyEngine",
    "PolicyInput",
    "PolicyPrincipal",
    "PolicyResource",
    "PolicyResult",
    "denied_by_fault",
]
