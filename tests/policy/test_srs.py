"""SRS: which policy is bound, what it says, and that not knowing it never lets a call pass."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from tests.policy.servers import SrsService, answering, misbehaving, serving, unused_port

from computeragent import discovery
from computeragent.errors import ValidationError
from computeragent.policy import (
    PolicyAction,
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    srs_authorizer_from_env,
)
from computeragent.policy.srs import SrsPolicyEngine

pytestmark = pytest.mark.anyio

CEDAR = {
    "enabled": True,
    "policies": [
        {"id": "all", "policy_text": "permit(principal, action, resource);"},
        {"id": "rm", "policy_text": 'forbid(principal, action, resource) when { context.command like "*rm -rf*" };'},
        {"id": "off", "policy_text": "forbid(principal, action, resource);", "enabled": False},
    ],
}
REGO = """package guardrail
default allow := false
allow if { input.request.tool_name != "WebFetch"; input.metadata.principal_id == "alice" }
"""
OPA = {
    "enabled": True,
    "source": "managed",
    "mode": "enforce",
    "managed_policies": [{"policy_id": "o1", "hooks": ["tool_input"], "rego_content": REGO}],
}
FORBID_ALL = {"enabled": True, "policies": [{"id": "no", "policy_text": "forbid(principal, action, resource);"}]}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    for name in list(os.environ):
        if name.startswith(("SRS_", "AGENTOS_")) or name == "COMPUTERAGENT_HARNESS_TOKEN":
            monkeypatch.delenv(name)
    discovery.forget()
    yield
    discovery.forget()


@pytest.fixture
def srs() -> Generator[tuple[SrsService, str]]:
    service = SrsService(
        policies={"pol_1": {"cedar_guardrail": CEDAR, "opa_guardrail": OPA}},
        bindings={"builder": "pol_1", "free": None},
    )
    with serving(service.app()) as url:
        yield service, url


def call(tool: str = "Bash", user: str = "alice", agent: str = "", **tool_input: Any) -> PolicyInput:
    return PolicyInput(
        PolicyPrincipal(user), PolicyAction("tool_use", tool, tool_input), PolicyResource(agent_name=agent)
    )


@asynccontextmanager
async def direct(url: str, **given: Any) -> AsyncGenerator[SrsPolicyEngine]:
    engine = SrsPolicyEngine(**({"endpoint": url, "policy_id": "pol_1", "api_key": "srs-key"} | given))
    try:
        yield engine
    finally:
        await engine.aclose()


def agentos(url: str, **given: Any) -> Any:
    base = f"{url}/agentos/api/ingest"
    through = {"endpoint": None, "policy_id": None, "agentos_base": base, "agentos_token": "cak_token"}
    return direct(url, **(through | {"agent_name": "builder"} | given))


# ── What the service says ──


async def test_cedar_and_rego_judge_in_direct_mode(srs: tuple[SrsService, str]):
    service, url = srs
    async with direct(url, agent_name="builder") as engine:
        allowed = await engine.evaluate(call(command="ls"))
        assert (allowed.decision, allowed.policy_id) == (PolicyDecision.ALLOW, "pol_1")
        denied = await engine.evaluate(call(command="rm -rf /"))
        assert (denied.decision, denied.rule, denied.code) == (PolicyDecision.DENY, "cedar", None)
        assert (await engine.evaluate(call("WebFetch", url="x"))).rule == "opa"
        assert (await engine.evaluate(call(user="bob", command="ls"))).reason == "opa policy o1 said no"
    method, path, body = service.asked[1]
    assert (method, path) == ("POST", "/v1/guardrails/evaluate-tool-call")
    assert body == {
        "cedar_guardrail": CEDAR,
        "opa_guardrail": OPA,
        "tool_name": "Bash",
        "tool_args": {"command": "ls"},
        "principal_id": "alice",
        "bundle_id": "builder",
        "bundle_name": "builder",
    }
    assert service.paths().count("/v1/rai/policies/pol_1") == 1, "the policy is fetched once"


async def test_agentos_says_which_policy_is_bound(srs: tuple[SrsService, str]):
    service, url = srs
    async with agentos(url) as engine:
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
        assert (await engine.evaluate(call(command="rm -rf /"))).decision is PolicyDecision.DENY
    base = "/agentos/api/ingest"
    evaluate = f"{base}/guardrails/evaluate-tool-call"
    assert service.paths() == [f"{base}/policy-config/builder", f"{base}/rai/policies/pol_1", evaluate, evaluate]


async def test_the_question_names_the_agent_where_the_engine_does_not(srs: tuple[SrsService, str]):
    async with agentos(srs[1], agent_name="") as engine:
        assert (await engine.evaluate(call(agent="builder", command="rm -rf /"))).rule == "cedar"
        assert (await engine.evaluate(call(agent="free", command="ls"))).decision is PolicyDecision.ABSTAIN
        unnamed = await engine.evaluate(call(command="ls"))
    assert (unnamed.decision, unnamed.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")


async def test_an_absent_section_is_not_sent(srs: tuple[SrsService, str]):
    service, url = srs
    service.policies["pol_1"] = {"cedar_guardrail": None}
    async with direct(url) as engine:
        assert (await engine.evaluate(call())).decision is PolicyDecision.ALLOW
    assert not {"cedar_guardrail", "opa_guardrail"} & service.asked[-1][2].keys()


@pytest.mark.parametrize(
    "answer", [{"allowed": "true"}, {"allowed": 1}, {"allowed": [0]}, {"allowed": None}, {}, [True]]
)
async def test_only_true_allows(srs: tuple[SrsService, str], answer: Any):
    service, url = srs
    service.answer = answer or {"reason": "nothing"}
    async with direct(url, fail_mode="allow") as engine:
        result = await engine.evaluate(call())
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_MALFORMED")


# ── Which policy is bound ──


@pytest.mark.parametrize("agent", ["free", "unknown"])
async def test_an_agent_without_a_policy_is_not_judged(srs: tuple[SrsService, str], agent: str):
    async with agentos(srs[1], agent_name=agent) as engine:
        result = await engine.evaluate(call(command="rm -rf /"))
    assert (result.decision, result.code) == (PolicyDecision.ABSTAIN, None)


@pytest.mark.parametrize("fail_mode", ["deny", "allow"])
async def test_a_binding_that_cannot_be_fetched_denies_until_it_can(srs: tuple[SrsService, str], fail_mode: Any):
    service, url = srs
    service.down = 503
    async with agentos(url, fail_mode=fail_mode) as engine:
        for _ in range(3):
            result = await engine.evaluate(call(command="ls"))
            assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")
        assert len(service.asked) == 1, "it is asked again after a pause, not with every call"
        service.down = None
        _no_pause(engine)
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
        assert (await engine.evaluate(call(command="rm -rf /"))).decision is PolicyDecision.DENY


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"policy": {}}', b'{"policy": {"policyId": ""}}', b'{"policy": {"policyId": 5}}', b"[]", b"<html>"],
)
async def test_a_binding_that_is_not_understood_denies(body: bytes):
    with misbehaving(answering(body)) as url:
        async with agentos(url) as engine:
            result = await engine.evaluate(call())
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")


async def test_a_bound_policy_that_does_not_exist_denies(srs: tuple[SrsService, str]):
    service, url = srs
    service.bindings["builder"] = "pol_gone"
    for mode in (agentos(url), direct(url, policy_id="pol_gone")):
        async with mode as engine:
            result = await engine.evaluate(call())
        assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")
        assert "pol_gone" in result.reason


async def test_a_wrong_key_denies_and_says_what_to_check(srs: tuple[SrsService, str]):
    async with direct(srs[1], api_key="wr0ng") as engine:
        result = await engine.evaluate(call())
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")
    assert "check the credentials" in result.reason


async def test_an_edited_policy_takes_effect(srs: tuple[SrsService, str], monkeypatch: pytest.MonkeyPatch):
    service, url = srs
    now = _clock(monkeypatch)
    async with agentos(url) as engine:
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
        service.policies["pol_1"] = {"cedar_guardrail": FORBID_ALL}
        now[0] += 59
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
        now[0] += 2
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.DENY
        service.bindings["builder"] = None
        now[0] += 61
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ABSTAIN
        service.bindings["builder"] = "pol_1"
        now[0] += 61
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.DENY


async def test_a_policy_that_expired_and_cannot_be_fetched_denies(
    srs: tuple[SrsService, str], monkeypatch: pytest.MonkeyPatch
):
    service, url = srs
    now = _clock(monkeypatch)
    async with agentos(url) as engine:
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
        service.down = 500
        now[0] += 61
        assert (await engine.evaluate(call(command="ls"))).code == "POLICY_UNBOUND"
        service.down = None
        _no_pause(engine)
        assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW


async def test_a_judgement_that_fails_denies_unless_it_only_advises(srs: tuple[SrsService, str]):
    service, url = srs
    for fail_mode, decision in (("deny", PolicyDecision.DENY), ("allow", PolicyDecision.ALLOW)):
        service.down = None
        async with direct(url, fail_mode=fail_mode) as engine:
            assert (await engine.evaluate(call(command="ls"))).code is None
            service.down = 503
            result = await engine.evaluate(call(command="ls"))
        assert (result.decision, result.code) == (decision, "POLICY_UNAVAILABLE")


@pytest.mark.parametrize("name", ["..", "../../secrets", "a/b?c#d", "ünï"])
async def test_names_stay_one_step_of_the_path(srs: tuple[SrsService, str], name: str):
    service, url = srs
    service.bindings["builder"] = name
    async with agentos(url) as engine:
        assert (await engine.evaluate(call())).code == "POLICY_UNBOUND"
    assert all(path.startswith("/agentos/api/ingest/") for path in service.paths())
    assert "/agentos/api/ingest/rai" not in service.paths()


# ── From the environment ──


async def test_the_environment_names_a_service(srs: tuple[SrsService, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRS_BASE_URL", srs[1])
    monkeypatch.setenv("SRS_POLICY_ID", "pol_1")
    monkeypatch.setenv("SRS_API_KEY", "srs-key")
    engine = SrsPolicyEngine.from_env(agent_name="builder", timeout=5.0)
    assert (await engine.evaluate(call(command="rm -rf /"))).rule == "cedar"
    await engine.aclose()


@pytest.mark.parametrize("by", ["AGENTOS_INGEST_URL", "AGENTOS_DISCOVERY_URL"])
async def test_agentos_is_found(srs: tuple[SrsService, str], monkeypatch: pytest.MonkeyPatch, by: str):
    route = "ingest/events" if by == "AGENTOS_INGEST_URL" else "discovery"
    monkeypatch.setenv(by, f"{srs[1]}/agentos/api/{route}")
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", "cak_token")
    engine = SrsPolicyEngine.from_env(agent_name="builder")
    assert (await engine.evaluate(call(command="rm -rf /"))).rule == "cedar"
    assert (await engine.evaluate(call(command="ls"))).decision is PolicyDecision.ALLOW
    await engine.aclose()


async def test_a_discovery_document_that_cannot_be_read_denies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENTOS_DISCOVERY_URL", f"http://127.0.0.1:{unused_port()}/discovery")
    engine = SrsPolicyEngine.from_env(agent_name="builder", fail_mode="allow")
    result = await engine.evaluate(call())
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_UNBOUND")


async def test_a_discovery_document_without_an_ingest_means_no_policies(monkeypatch: pytest.MonkeyPatch):
    with misbehaving(answering(b'{"endpoints": {"api": "http://127.0.0.1:1/v1"}}')) as url:
        monkeypatch.setenv("AGENTOS_DISCOVERY_URL", f"{url}/discovery")
        result = await SrsPolicyEngine.from_env(agent_name="builder").evaluate(call())
    assert result.decision is PolicyDecision.ABSTAIN


def test_nothing_configured_is_no_authorizer_and_no_engine(monkeypatch: pytest.MonkeyPatch):
    assert srs_authorizer_from_env("builder") is None
    with pytest.raises(ValidationError, match="no SRS service is configured"):
        SrsPolicyEngine.from_env(agent_name="builder")
    monkeypatch.setenv("SRS_BASE_URL", "http://srs")
    with pytest.raises(ValidationError):
        srs_authorizer_from_env("builder")


async def test_the_environment_makes_an_authorizer(srs: tuple[SrsService, str], monkeypatch: pytest.MonkeyPatch):
    from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

    service, url = srs
    monkeypatch.setattr("computeragent.policy.authorizer._told", lambda _: None)  # no telemetry to the stand-in
    monkeypatch.setenv("AGENTOS_INGEST_URL", f"{url}/agentos/api/ingest/events")
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", "cak_token")
    monkeypatch.setenv("SRS_PRINCIPAL_ID", "alice")
    authorizer = srs_authorizer_from_env("builder")
    assert authorizer is not None
    told = await authorizer("Bash", {"command": "ls"}, ToolPermissionContext())
    assert isinstance(told, PermissionResultAllow)
    told = await authorizer("Bash", {"command": "rm -rf /"}, ToolPermissionContext())
    assert isinstance(told, PermissionResultDeny)
    assert service.asked[-1][2]["principal_id"] == "alice"
    await authorizer.engine.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_runs_on_both_event_loops(srs: tuple[SrsService, str], backend: str):
    async def ask() -> str | None:
        async with agentos(srs[1]) as engine:
            return (await engine.evaluate(call(command="rm -rf /"))).rule

    assert anyio.run(ask, backend=backend) == "cedar"


async def test_keys_are_never_told(srs: tuple[SrsService, str], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    told = ""
    for mode in (agentos(srs[1], agentos_token="cak_5ecret"), direct(srs[1], api_key="s3cret")):
        async with mode as engine:
            told += repr(engine) + (await engine.evaluate(call())).reason
    told += caplog.text
    assert "HTTP 401" in told
    assert "cak_5ecret" not in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "http://srs"},
        {"policy_id": "p"},
        {"endpoint": "srs", "policy_id": "p"},
        {"endpoint": "http://srs", "policy_id": "p", "api_key": "s3cret\n"},
        {"agentos_base": "http://a", "timeout": -1},
        {"agentos_base": "http://a", "policy_ttl": 0},
        {"agentos_base": "http://a", "fail_mode": "open"},
    ],
)
def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any]):
    with pytest.raises(ValidationError) as caught:
        SrsPolicyEngine(**given)
    assert "s3cret" not in str(caught.value)


def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("computeragent.policy.srs.monotonic", lambda: now[0])
    return now


def _no_pause(engine: SrsPolicyEngine) -> None:
    assert engine._policies is not None
    engine._policies.breaker.succeeded()
