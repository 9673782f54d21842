"""OPA: what is asked, which answers count, and what a server does that is away."""

from __future__ import annotations

import gc
import json
import logging
import socket
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from tests.policy.servers import OpaServer, RegoCpp, answering, asked, misbehaving, serving, unused_port

from computeragent.errors import ValidationError
from computeragent.policy import PolicyAction, PolicyDecision, PolicyInput, PolicyJudge, PolicyPrincipal, PolicyResource
from computeragent.policy.breaker import Breaker
from computeragent.policy.opa import OpaPolicyEngine
from computeragent.protocol_types import PermissionRequest

pytestmark = pytest.mark.anyio

SAMPLE = Path(__file__).parents[2] / "examples" / "policies" / "computeragent.rego"
SHAPES = """package shapes
yes := true
no := {"allow": false, "reason": "because", "rule": "r1"}
capped := {"allow": true, "obligations": [{"kind": "cap", "argument": "timeout", "max": 10}]}
undefined_for_others := true if input.principal.id == "root"
"""


@pytest.fixture
def opa() -> Generator[tuple[OpaServer, str]]:
    server = OpaServer(RegoCpp(SAMPLE.read_text(), SHAPES))
    with serving(server.app()) as url:
        yield server, url


def call(tool: str = "Bash", **given: Any) -> PolicyInput:
    principal = PolicyPrincipal("alice", given.get("groups", ["engineer"]))
    action = PolicyAction("tool_use", tool, given.get("tool_input", {"command": "ls"}))
    return PolicyInput(principal, action, PolicyResource(agent_name="builder"), given.get("context", {}))


# ── What is asked and answered ──


@pytest.mark.parametrize(
    "path", ["computeragent/tools/allow", "computeragent.tools.allow", "/computeragent/tools/allow/"]
)
async def test_the_sample_policy_is_asked(opa: tuple[OpaServer, str], path: str):
    server, url = opa
    engine = OpaPolicyEngine(url=f"{url}/", policy_path=path, headers={"authorization": "Bearer s3cret"})
    assert (await engine.evaluate(call())).decision is PolicyDecision.ALLOW
    assert (await engine.evaluate(call(groups=[]))).decision is PolicyDecision.DENY
    assert (await engine.evaluate(call("Read", groups=[], tool_input={}))).decision is PolicyDecision.ALLOW
    assert (await engine.evaluate(call(tool_input={"command": "rm -fr /"}))).decision is PolicyDecision.DENY
    assert (await engine.evaluate(call(tool_input={"command": ["rm"]}))).decision is PolicyDecision.DENY
    assert server.asked[0] == {"input": call().to_json()}
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    assert len(server.clients) == 1, "the connection is kept"
    await engine.aclose()


async def test_an_object_tells_why(opa: tuple[OpaServer, str]):
    _, url = opa
    async with _engine(url, "shapes/no") as engine:
        result = await engine.evaluate(call())
    assert (result.decision, result.reason, result.rule, result.code) == (PolicyDecision.DENY, "because", "r1", None)
    async with _engine(url, "computeragent/tools/decision") as engine:
        result = await engine.evaluate(call(tool_input={"command": "rm -r x"}))
    assert (result.reason, result.rule) == ("nothing is deleted recursively", "computeragent/tools/decision")


async def test_obligations_of_an_allow_are_met(opa: tuple[OpaServer, str]):
    async with _engine(opa[1], "shapes/capped") as engine:
        verdict = await PolicyJudge(engine, principal=PolicyPrincipal("a"))(
            PermissionRequest("c1", "Bash", {"timeout": 99})
        )
    assert (verdict.decision, verdict.input) == ("modify", {"timeout": 10})


async def test_a_path_that_names_no_decision_denies_and_says_so(opa: tuple[OpaServer, str]):
    for path in ("no/such/thing", "shapes/undefined_for_others"):
        async with _engine(opa[1], path) as engine:
            result = await engine.evaluate(call())
        assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_MALFORMED")
        assert f"OPA has no decision at {path}" in result.reason


TRUTHY = ["false", "no", "true", [0], [True], 1, 0, None, {}, {"allow": "false"}, {"allow": 1}, {"allow": None}]
TRUTHY += [{"allow": [0]}, {"allow": {"allow": True}}, {"Allow": True}, {"allow": True, "reason": 5}]
TRUTHY += [{"allow": True, "obligations": {}}, {"allow": True, "obligations": ["redact"]}, {"allow": True, "rule": []}]


@pytest.mark.parametrize("fail_mode", ["deny", "allow"])
@pytest.mark.parametrize("result", TRUTHY, ids=json.dumps)
async def test_only_true_allows(result: Any, fail_mode: Any):
    with misbehaving(answering(json.dumps({"result": result}).encode())) as url:
        async with _engine(url, fail_mode=fail_mode) as engine:
            answer = await engine.evaluate(call())
    assert (answer.decision, answer.code) == (PolicyDecision.DENY, "POLICY_MALFORMED")


async def test_a_question_that_is_no_json_denies():
    engine = OpaPolicyEngine(url="http://127.0.0.1:1", policy_path="a")
    for odd in ({"a": object()}, {(1, 2): 3}):
        result = await engine.evaluate(call(context=odd))
        assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_ERROR")


async def test_half_a_surrogate_pair_can_be_asked_about(opa: tuple[OpaServer, str]):
    async with _engine(opa[1], "shapes/yes") as engine:
        assert (await engine.evaluate(call(tool_input={"command": "\ud800", "n": 10**30}))).code is None


# ── Ways to reach it ──


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_event_loops_and_one_engine_in_several_runs(opa: tuple[OpaServer, str], backend: str):
    engine = OpaPolicyEngine(url=opa[1], policy_path="shapes/yes")

    async def twice() -> list[str]:
        return [(await engine.evaluate(call())).decision.value for _ in range(2)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a run that ends leaves its connection to the collector
        assert [anyio.run(twice, backend=backend) for _ in range(3)] == [["allow", "allow"]] * 3
        anyio.run(engine.aclose, backend=backend)
        gc.collect()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_unix_socket(tmp_path: Path, backend: str):
    place = str(tmp_path / "opa.sock")
    with serving(OpaServer(RegoCpp(SHAPES)).app(), uds=place):
        engine = OpaPolicyEngine(socket=place, policy_path="shapes/yes")

        async def ask() -> PolicyDecision:
            decision = (await engine.evaluate(call())).decision
            await engine.aclose()
            return decision

        assert anyio.run(ask, backend=backend) is PolicyDecision.ALLOW
    assert place in repr(engine)


async def test_a_client_of_ones_own_stays_open(opa: tuple[OpaServer, str]):
    async with httpx2.AsyncClient(headers={"x-mine": "1"}, follow_redirects=True) as client:
        engine = OpaPolicyEngine(url=opa[1], policy_path="shapes/yes", client=client)
        assert (await engine.evaluate(call())).decision is PolicyDecision.ALLOW
        await engine.aclose()
        assert not client.is_closed
        assert opa[0].headers[0]["x-mine"] == "1"


async def test_the_older_httpx_works_as_a_client(opa: tuple[OpaServer, str]):
    httpx = pytest.importorskip("httpx")
    async with httpx.AsyncClient() as client:
        engine = OpaPolicyEngine(url=opa[1], policy_path="shapes/yes", client=client)
        assert (await engine.evaluate(call())).decision is PolicyDecision.ALLOW
        away = OpaPolicyEngine(url=f"http://127.0.0.1:{unused_port()}", policy_path="a", client=client)
        assert (await away.evaluate(call())).code == "POLICY_UNAVAILABLE"


async def test_a_connection_that_ends_as_it_is_used_again_is_not_a_fault():
    connections: list[Any] = []

    def answer_once(connection: Any) -> None:
        connections.append(connection)
        asked(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"result": true}')
        asked(connection)
        connection.shutdown(socket.SHUT_RDWR)

    with misbehaving(answer_once) as url:
        async with _engine(url) as engine:
            assert [(await engine.evaluate(call())).decision for _ in range(3)] == [PolicyDecision.ALLOW] * 3
    assert len(connections) == 3


# ── A server that is away ──


async def test_a_server_that_is_away_is_left_alone_for_a_while():
    port = unused_port()
    async with _engine(f"http://127.0.0.1:{port}") as engine:
        now = [100.0]
        engine._service.breaker = Breaker(failures=3, clock=lambda: now[0])
        reasons = [(await engine.evaluate(call())).reason for _ in range(5)]
        assert [("in a row" in reason) for reason in reasons] == [False, False, False, True, True]
        now[0] += 1.1
        assert "cannot be reached" in (await engine.evaluate(call())).reason, "one caller tries"
        assert "asked again in 2.0 s" in (await engine.evaluate(call())).reason, "the pause grows"
        with serving(OpaServer(RegoCpp("package a\nb := true")).app()) as url:
            engine._service.base = url
            now[0] += 2.1
            assert [(await engine.evaluate(call())).decision for _ in range(3)] == [PolicyDecision.ALLOW] * 3


def test_one_caller_tries_and_calls_from_before_tell_nothing_new():
    now = [0.0]
    breaker = Breaker(failures=2, shortest=1.0, longest=3.0, clock=lambda: now[0])
    early = [breaker.start(1.0)[1] for _ in range(10)]
    now[0] = 0.5
    for began in early:
        breaker.failed(began)
    assert breaker.start(5.0)[0] == 1.0
    now[0] = 1.6
    wait, began = breaker.start(5.0)
    assert wait == 0.0
    assert breaker.start(5.0)[0] == 5.0, "others wait while one tries"
    breaker.failed(began)
    assert breaker.start(5.0)[0] == 2.0
    now[0] += 2.1
    breaker.failed(breaker.start(5.0)[1])
    assert breaker.start(5.0)[0] == 3.0, "no longer than the longest"
    now[0] += 3.1
    assert breaker.start(5.0)[0] == 0.0
    now[0] += 5.1
    assert breaker.start(5.0)[0] == 0.0, "one that never tells how it went is not waited for"
    breaker.succeeded()
    assert [breaker.start(5.0)[0] for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize(
    ("status", "code", "away"),
    [
        ("503 Unavailable", "POLICY_UNAVAILABLE", True),
        ("429 Too Many", "POLICY_UNAVAILABLE", True),
        ("500 Internal", "POLICY_ERROR", False),
        ("401 Unauthorized", "POLICY_UNAVAILABLE", False),
        ("404 Not Found", "POLICY_UNAVAILABLE", False),
        ("302 Found", "POLICY_UNAVAILABLE", False),
    ],
)
async def test_fail_mode_allow_covers_only_a_server_that_is_away(status: str, code: str, away: bool):
    with misbehaving(answering(b'{"result": true}', status, "location: /")) as url:
        async with _engine(url, fail_mode="allow") as engine:
            result = await engine.evaluate(call())
    assert (result.decision is PolicyDecision.ALLOW, result.code) == (away, code)
    assert status.split(maxsplit=1)[0] in result.reason


async def test_fail_mode_allow_is_loud(caplog: pytest.LogCaptureFixture):
    async with _engine(f"http://127.0.0.1:{unused_port()}", fail_mode="allow") as engine:
        assert "every tool call is allowed" in caplog.text
        result = await engine.evaluate(call())
    assert (result.decision, result.code) == (PolicyDecision.ALLOW, "POLICY_UNAVAILABLE")


# ── Secrets, arguments, memory ──


async def test_secrets_are_never_told(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    url = f"http://user:pa55@127.0.0.1:{unused_port()}/base"
    engine = OpaPolicyEngine(url=url, policy_path="a", headers={"authorization": "Bearer s3cret"})
    told = repr(engine) + (await engine.evaluate(call())).reason + caplog.text
    await engine.aclose()
    assert "127.0.0.1" in told
    assert "s3cret" not in told
    assert "pa55" not in told


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"url": "opa:8181"},
        {"url": "ftp://opa"},
        {"url": "http://opa/?q=1"},
        {"url": "http://opa:99999"},
        {"url": "http://opa", "policy_path": "./"},
        {"url": "http://opa", "timeout": 0},
        {"url": "http://opa", "timeout": float("nan")},
        {"url": "http://opa", "fail_mode": "open"},
        {"url": "http://opa", "headers": {"authorization": "Bearer s3cret\n"}},
    ],
)
def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any]):
    with pytest.raises(ValidationError) as caught:
        OpaPolicyEngine(**({"policy_path": "a"} | given))
    assert "s3cret" not in str(caught.value)


async def test_answers_are_remembered_only_where_asked_for(opa: tuple[OpaServer, str]):
    server, url = opa
    request = PermissionRequest("c1", "Bash", {"command": "ls"})
    for ttl, questions in ((0.0, 3), (3600.0, 1)):
        server.asked.clear()
        engine = OpaPolicyEngine(url=url, policy_path="shapes/yes", cache_ttl=ttl)
        judge = PolicyJudge(engine, principal=PolicyPrincipal("alice"))
        assert [(await judge(request)).decision for _ in range(3)] == ["allow"] * 3
        assert len(server.asked) == questions
        await engine.aclose()


@asynccontextmanager
async def _engine(url: str, path: str = "a/b", **given: Any) -> AsyncGenerator[OpaPolicyEngine]:
    engine = OpaPolicyEngine(url=url, policy_path=path, **given)
    try:
        yield engine
    finally:
        await engine.aclose()
