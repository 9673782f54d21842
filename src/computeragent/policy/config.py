"""A policy in any of its spellings: a file, plain data, an engine, a decider. And what becomes of it in a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from computeragent.errors import ValidationError
from computeragent.policy.judge import PolicyJudge
from computeragent.policy.principals import process_user
from computeragent.policy.types import PolicyEngine, PolicyPrincipal, PolicyResource
from computeragent.protocol_types import PermissionRequest, PolicyDecider, PolicyVerdict
from computeragent.wire.policy import (
    CedarPolicyConfig,
    OpaPolicyConfig,
    PolicyConfig,
    RulesPolicyConfig,
    SrsPolicyConfig,
)

_KINDS = {"rules": RulesPolicyConfig, "cedar": CedarPolicyConfig, "opa": OpaPolicyConfig, "srs": SrsPolicyConfig}
_BY_SUFFIX: dict[str, Callable[[str], PolicyConfig]] = {
    ".yaml": lambda path: RulesPolicyConfig(path=path),
    ".yml": lambda path: RulesPolicyConfig(path=path),
    ".cedar": lambda path: CedarPolicyConfig(path=path),
}
_SPELLINGS = (
    "Use the path of a .yaml or .cedar file, a mapping such as {'kind': 'rules', 'path': 'policy.yaml'}, a "
    "PolicyEngine, or an async callable that takes a PermissionRequest and returns a PolicyVerdict."
)

_RANK = {"abstain": 0, "allow": 1, "ask": 2}

AnyPolicy = str | Path | Mapping[str, Any] | PolicyConfig | PolicyEngine | PolicyDecider
"""What `ComputerAgent(policy=…)` takes."""


def read_policy(given: AnyPolicy) -> PolicyConfig | PolicyEngine | PolicyDecider:
    """A policy as a session request carries it. Raises `ValidationError` for what cannot be one."""
    if isinstance(given, str | Path):
        return _file(Path(given))
    if isinstance(given, Mapping):
        return parse_policy(given)
    if isinstance(given, PolicyConfig | PolicyEngine) or callable(given):
        return given
    raise ValidationError(f"policy cannot be a {type(given).__name__}", hint=_SPELLINGS)


def parse_policy(given: Mapping[str, Any]) -> PolicyConfig:
    """A policy from plain data. Raises `ValidationError`; what it says names no values, which may be secrets."""
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValidationError("policy.kind names no kind of policy", hint=f"Use one of: {', '.join(sorted(_KINDS))}.")
    try:
        return msgspec.convert(dict(given), _KINDS[kind])
    except msgspec.ValidationError as error:
        fields = ", ".join(_KINDS[kind].__struct_encode_fields__)
        raise ValidationError(f"policy: {error}", hint=f"A policy of kind {kind} has: {fields}.") from None


def make_engine(config: PolicyConfig, *, agent_name: str = "") -> PolicyEngine:
    """The engine that a configuration describes. Raises `ValidationError` for a policy that cannot be read."""
    match config:
        case RulesPolicyConfig(text=text, path=path):
            _one_of(text=text, path=path)
            from computeragent.policy.rules import RulesPolicyEngine

            return RulesPolicyEngine(text=text, path=path)
        case CedarPolicyConfig(text=text, path=path, entities=entities, schema=schema):
            _one_of(text=text, path=path)
            from computeragent.policy.cedar import CedarPolicyEngine

            return CedarPolicyEngine(policies=text, path=path, entities=entities, schema=schema)
        case OpaPolicyConfig() as opa:
            _one_of(url=opa.url, socket=opa.socket)
            from computeragent.policy.opa import OpaPolicyEngine

            return OpaPolicyEngine(
                url=opa.url or "http://opa",
                socket=opa.socket,
                policy_path=opa.policy_path,
                headers=opa.headers,
                fail_mode=opa.fail_mode,
                timeout=opa.timeout,
                cache_ttl=opa.cache_ttl,
                strict_builtin_errors=opa.strict_builtin_errors,
            )
        case SrsPolicyConfig() as srs:
            if not srs.endpoint.strip() or not srs.policy_id.strip():  # an engine without both asks somebody else
                raise ValidationError("an SRS policy has an endpoint and a policyId", hint="Neither may be empty.")
            from computeragent.policy.srs import SrsPolicyEngine

            return SrsPolicyEngine(
                endpoint=srs.endpoint,
                policy_id=srs.policy_id,
                api_key=srs.api_key,
                agent_name=agent_name,
                timeout=srs.timeout,
            )


def check_policy(config: PolicyConfig) -> None:
    """Raise `ValidationError` unless a policy that travels can be read; services are not asked."""
    if isinstance(config, RulesPolicyConfig | CedarPolicyConfig):
        make_engine(config)


class SessionPolicy:
    """The policies of one session as one decider: each of them must let a call pass.

    The first ``deny`` stands. A changed input goes back to the chain, which has it judged anew by all. ``ask`` wins
    over ``allow``, and ``abstain`` has no opinion.
    """

    def __init__(self, policies: Sequence[PolicyDecider], owned: Sequence[PolicyEngine] = ()) -> None:
        self._policies = policies
        self._owned = owned

    async def __call__(self, request: PermissionRequest) -> PolicyVerdict:
        """Judge one call."""
        strongest = PolicyVerdict("abstain")
        for policy in self._policies:
            verdict = await policy(request)
            rank = _RANK.get(str(getattr(verdict, "decision", "")))
            if rank is None:  # a denial, a changed input, or no verdict at all
                return verdict
            if rank > _RANK[strongest.decision]:
                strongest = verdict
        return strongest

    async def aclose(self) -> None:
        """Close the engines that were made for this session."""
        for engine in self._owned:
            await engine.aclose()


def session_policy(
    policies: Sequence[PolicyConfig | PolicyEngine | PolicyDecider | None],
    *,
    principal: PolicyPrincipal | None,
    resource: PolicyResource,
    cwd: str,
) -> SessionPolicy | None:
    """What judges the calls of a session; None without a policy. Raises `ValidationError` for an unreadable one."""
    deciders: list[PolicyDecider] = []
    owned: list[PolicyEngine] = []
    for policy in policies:
        if policy is None:
            continue
        if not isinstance(policy, PolicyConfig | PolicyEngine):
            deciders.append(policy)
            continue
        engine, who = policy, principal
        if isinstance(policy, PolicyConfig):
            engine = make_engine(policy, agent_name=resource.agent_name)
            owned.append(engine)
            if isinstance(policy, SrsPolicyConfig) and who is None and policy.principal_id is not None:
                who = PolicyPrincipal(policy.principal_id)
        assert isinstance(engine, PolicyEngine)
        deciders.append(PolicyJudge(engine, principal=who or process_user(), resource=resource, context={"cwd": cwd}))
    return SessionPolicy(deciders, owned) if deciders else None


def shared_policy(given: AnyPolicy) -> PolicyEngine | PolicyDecider:
    """The policy of many sessions, made once. Raises `ValidationError`."""
    policy = read_policy(given)
    return make_engine(policy) if isinstance(policy, PolicyConfig) else policy


def _file(path: Path) -> PolicyConfig:
    described = _BY_SUFFIX.get(path.suffix)
    if described is None:
        hint = "Use a .yaml or .cedar file. A .rego file is for an OPA server: {'kind': 'opa', 'url': …}."
        raise ValidationError(f"{path.name} is no policy file that is known here", hint=hint)
    return described(str(path))


def _one_of(**given: object) -> None:
    names = " or ".join(given)
    if sum(value is not None for value in given.values()) != 1:
        raise ValidationError(f"a policy has either {names}", hint="Give one of them.")
