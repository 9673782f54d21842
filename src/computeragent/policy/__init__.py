"""Policies: rules, Cedar, OPA and SRS behind one question, and the judge that fails closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.policy.authorizer import PolicyToolAuthorizer
    from computeragent.policy.cedar import CedarPolicyEngine
    from computeragent.policy.judge import PolicyJudge
    from computeragent.policy.opa import OpaPolicyEngine
    from computeragent.policy.rules import RulesPolicyEngine
    from computeragent.policy.srs import SrsPolicyEngine, srs_authorizer_from_env
    from computeragent.policy.types import (
        PolicyAction,
        PolicyDecision,
        PolicyEngine,
        PolicyInput,
        PolicyPrincipal,
        PolicyResource,
        PolicyResult,
    )

_HOMES = {
    "CedarPolicyEngine": "cedar",
    "OpaPolicyEngine": "opa",
    "PolicyAction": "types",
    "PolicyDecision": "types",
    "PolicyEngine": "types",
    "PolicyInput": "types",
    "PolicyJudge": "judge",
    "PolicyPrincipal": "types",
    "PolicyResource": "types",
    "PolicyResult": "types",
    "PolicyToolAuthorizer": "authorizer",
    "RulesPolicyEngine": "rules",
    "SrsPolicyEngine": "srs",
    "srs_authorizer_from_env": "srs",
}
__all__ = [
    "CedarPolicyEngine",
    "OpaPolicyEngine",
    "PolicyAction",
    "PolicyDecision",
    "PolicyEngine",
    "PolicyInput",
    "PolicyJudge",
    "PolicyPrincipal",
    "PolicyResource",
    "PolicyResult",
    "PolicyToolAuthorizer",
    "RulesPolicyEngine",
    "SrsPolicyEngine",
    "srs_authorizer_from_env",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
