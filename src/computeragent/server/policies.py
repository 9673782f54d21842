"""The policies that requests bring along: what of them a caller may say, and for whom they judge."""

from __future__ import annotations

from computeragent.errors import ValidationError
from computeragent.policy_types import PolicyPrincipal
from computeragent.server.auth import Principal
from computeragent.wire.policy import (
    CedarPolicyConfig,
    OpaPolicyConfig,
    PolicyConfig,
    RulesPolicyConfig,
    SrsPolicyConfig,
)


def allowed_policy(policy: PolicyConfig | None, principal: Principal) -> PolicyConfig | None:
    """The policy, if this caller may name it. Raises `ValidationError` for files of the server."""
    match policy:
        case RulesPolicyConfig(path=str()) | CedarPolicyConfig(path=str()) | OpaPolicyConfig(socket=str()):
            if not principal.local:
                raise ValidationError(
                    "policies in files of this server are its own to name", hint="Send the text of the policy."
                )
        case _:
            pass
    return policy


def on_behalf_of(principal: Principal, policy: PolicyConfig | None) -> PolicyPrincipal:
    """Who acts: the credential says so. Whoever runs the server may say of an SRS policy that it is somebody else."""
    named = policy.principal_id if isinstance(policy, SrsPolicyConfig) else None
    return PolicyPrincipal(named if named and principal.local else principal.id)
