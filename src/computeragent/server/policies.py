"""The policies that requests bring along, and what goes past them: what a caller may say, and for whom they judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from computeragent.discovery import without_credentials
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

_UNGATED = frozenset({"clipath", "extraargs", "settings", "plugins", "hooks"})


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


def allowed_options(options: Mapping[str, Any], principal: Principal) -> dict[str, Any]:
    """An engine's options, if this caller may set them. Raises `ValidationError` for what would go past the gate."""
    if not principal.local:
        for name in options:
            if name.replace("_", "").lower() in _UNGATED:
                raise ValidationError(
                    f"option {name!r} is for whoever runs this server", hint="It starts programs that no policy sees."
                )
    return dict(options)


def policy_secrets(policy: PolicyConfig | None) -> list[str]:
    """What of a policy nobody else may see."""
    match policy:
        case SrsPolicyConfig(api_key=key) if key:
            return [key]
        case OpaPolicyConfig(headers=headers):
            return list(headers.values())
        case _:
            return []


def without_secrets(policy: PolicyConfig) -> tuple[PolicyConfig, list[str]]:
    """A policy as it may be kept, and the names of what it has lost."""
    match policy:
        case SrsPolicyConfig():
            kept = replace(policy, api_key="", endpoint=without_credentials(policy.endpoint))
            return kept, ["policy.apiKey"] if policy.api_key else []
        case OpaPolicyConfig():
            kept = replace(policy, headers={}, url=None if policy.url is None else without_credentials(policy.url))
            return kept, ["policy.headers"] if policy.headers else []
        case _:
            return policy, []


def on_behalf_of(principal: Principal, policy: PolicyConfig | None) -> PolicyPrincipal:
    """Who acts: the credential says so. Whoever runs the server may say of an SRS policy that it is somebody else."""
    named = policy.principal_id if isinstance(policy, SrsPolicyConfig) else None
    return PolicyPrincipal(named if named and principal.local else principal.id)
