"""A policy as plain data, so that it can travel with the session that it judges.

A field that a kind does not have is refused: a policy that is half understood would judge otherwise than meant.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class _Policy(
    Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, tag_field="kind"
):
    pass


class RulesPolicyConfig(_Policy, frozen=True, kw_only=True, tag="rules"):
    """Rules in YAML: their `text`, or the `path` of a file on the machine of the harness, which is watched."""

    text: str | None = None
    path: str | None = None


class CedarPolicyConfig(_Policy, frozen=True, kw_only=True, tag="cedar"):
    """Cedar policies: their `text` or the `path` of a watched file; entities, and a schema to check all against."""

    text: str | None = None
    path: str | None = None
    entities: list[dict[str, Any]] | None = None
    schema: str | None = None


class OpaPolicyConfig(_Policy, frozen=True, kw_only=True, tag="opa"):
    """A decision of an OPA server, at `url` or on a Unix `socket`. `timeout` in seconds.

    Answers are remembered for `cache_ttl` seconds. With `strict_builtin_errors` a built-in function that fails is an
    error, which denies, instead of undefined.
    """

    policy_path: str
    url: str | None = None
    socket: str | None = None
    headers: dict[str, str] = {}
    fail_mode: Literal["deny", "allow"] = "deny"
    timeout: float = 2.0
    cache_ttl: float = 0.0
    strict_builtin_errors: bool = False

    def __repr__(self) -> str:  # headers may hold a token
        return f"OpaPolicyConfig(policy_path={self.policy_path!r})"


class SrsPolicyConfig(_Policy, frozen=True, kw_only=True, tag="srs"):
    """A policy of an SRS service. `principal_id` is who acts, where no credential says so."""

    endpoint: str
    policy_id: str
    api_key: str = ""
    principal_id: str | None = None
    timeout: float = 10.0

    def __repr__(self) -> str:  # the key is a secret
        return f"SrsPolicyConfig(endpoint={self.endpoint!r}, policy_id={self.policy_id!r})"


PolicyConfig = RulesPolicyConfig | CedarPolicyConfig | OpaPolicyConfig | SrsPolicyConfig
