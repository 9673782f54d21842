"""Whatever goes wrong with a policy, the call is denied, the denial is in the log with a code, and nothing happened.

Every row is a session of the harness with the scripted engine, which would write a file. Services fail on real sockets.
Engines in this process cannot fail as a service does: they get what is nearest to it.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.policy.servers import OpaServer, RegoCpp, asked, misbehaving, serving, unused_port

from computeragent.engines.scripted import ScriptedEngine
from computeragent.harness import LocalHarness
from computeragent.policy import (
    CedarPolicyEngine,
    OpaPolicyEngine,
    PolicyEngine,
    PolicyJudge,
    PolicyPrincipal,
    PolicyResult,
    RulesPolicyEngine,
    SrsPolicyEngine,
    review,
)
from computeragent.protocol_types import PolicyDecider, UserInput
from computeragent.wire.events import CaPermissionDecision
from puppets import drain, request

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SCRIPT = [[{"tool": "Write", "input": {"file_path": "trace.txt", "content": "it happened"}}]]
POLICY = b'{"cedar_guardrail": {"enabled": true, "policies": []}}'
ALLOWED = b'{"result": true, "allowed": true}'
After = Callable[[socket.socket], None]


@dataclass
class Table:
    """Makes the policies of one row, and frees what they need."""

    tmp_path: Path
    patch: pytest.MonkeyPatch
    stack: ExitStack
    asked: threading.Event = field(default_factory=threading.Event)

    def healthy(self, name: str) -> PolicyEngine:
        """An engine that would allow the call."""
        match name:
            case "rules":
                return RulesPolicyEngine(text="version: 1\ndefault: allow\nrules: []\n")
            case "cedar":
                return CedarPolicyEngine(policies="permit(principal, action, resource);")
            case _:
                return self.service(name, reply(ALLOWED))

    def service(self, name: str, after: After, *, found: bytes = POLICY, status: str = "200 OK", **given: Any) -> Any:
        """An engine whose service does `after` when it is asked to judge. SRS finds its policy first."""

        def behave(connection: socket.socket) -> None:
            while data := asked(connection):
                head = data.partition(b"\r\n")[0]
                if head.startswith(b"GET"):
                    reply(found, status)(connection)
                elif b"/elsewhere" in head:
                    reply(ALLOWED)(connection)
                else:
                    self.asked.set()
                    after(connection)

        return self.at(name, self.stack.enter_context(misbehaving(behave)), **given)

    def at(self, name: str, url: str, **given: Any) -> Any:
        given = {"timeout": 0.3, "fail_mode": "deny"} | given
        if name == "opa":
            return OpaPolicyEngine(url=url, policy_path="tools/allow", **given)
        return SrsPolicyEngine(endpoint=url, policy_id="pol_1", api_key="k", agent_name="a", **given)

    def evaluator(self, name: str, does: Callable[..., Any]) -> PolicyEngine:
        """An engine of this process whose evaluator does this in place of its work."""
        engine = self.healthy(name)
        place = {"rules": "computeragent.policy.rules.engine._evaluate", "cedar": "cedarpy.is_authorized"}[name]
        self.patch.setattr(place, does)
        return engine

    def file(self, name: str) -> tuple[PolicyEngine, Path]:
        """An engine that watches a file, which forbids the call."""
        if name == "rules":
            path = self.tmp_path / "policy.yaml"
            path.write_text("version: 1\ndefault: deny\nrules: []\n")
        else:
            path = self.tmp_path / "policy.cedar"
            path.write_text('@id("no") forbid(principal, action, resource);')
        self.patch.setattr("computeragent.policy.files.LOOK_AGAIN", 0.0)
        engine: Any = RulesPolicyEngine(path) if name == "rules" else CedarPolicyEngine(path=path)
        engine._file._every = 0.0
        return engine, path


def reply(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> After:
    head = [f"HTTP/1.1 {status}", f"content-length: {length or len(body)}", *headers, "", ""]
    return lambda connection: connection.sendall("\r\n".join(head).encode() + body)


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def then(*steps: After) -> After:
    def after(connection: socket.socket) -> None:
        for step in steps:
            step(connection)

    return after


def raising(error: BaseException) -> Callable[..., Any]:
    def evaluator(*_: Any, **__: Any) -> Any:
        raise error

    return evaluator


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


class Answers:
    """An engine around another, whose answer is something else."""

    def __init__(self, engine: PolicyEngine, answer: Any) -> None:
        self.name = engine.name  # type: ignore[attr-defined]
        self._answer = answer

    async def evaluate(self, _: Any) -> Any:
        return self._answer

    async def aclose(self) -> None: ...


def ask(engine: PolicyEngine, **given: Any) -> PolicyDecider:
    return PolicyJudge(engine, **({"principal": PolicyPrincipal("alice")} | given))


# ── The rows: what makes a policy that fails, for a service and for an engine in this process ──


def refused(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        return ask(table.at(name, f"http://127.0.0.1:{unused_port()}"))
    return ask(table.evaluator(name, raising(ConnectionRefusedError("no"))))


def unresolved(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        table.patch.setattr(socket, "getaddrinfo", raising(socket.gaierror(-2, "Name or service not known")))
        return ask(table.at(name, "http://policy.invalid"))
    return ask(table.evaluator(name, raising(LookupError("no such name"))))


def service_or(after: After, evaluator: Callable[..., Any]) -> Callable[[Table, str], PolicyDecider]:
    def row(table: Table, name: str) -> PolicyDecider:
        if name in {"opa", "srs"}:
            return ask(table.service(name, after))
        return ask(table.evaluator(name, evaluator))

    return row


def silent(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        return ask(table.service(name, hang))
    table.patch.setattr(review, "POLICY_TIMEOUT", 0.2)
    return ask(table.healthy(name), context=lambda _: anyio.sleep_forever())


def stalled(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        return ask(table.service(name, then(reply(ALLOWED[:5], length=len(ALLOWED)), hang)))
    table.patch.setattr(review, "POLICY_TIMEOUT", 0.2)
    return ask(table.healthy(name), resource=lambda _: anyio.sleep_forever())


def wrong_type(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        body = json.dumps({"result": {"allow": "true"}, "allowed": "true"}).encode()
        return ask(table.service(name, reply(body)))
    return ask(Answers(table.healthy(name), PolicyResult("allow")))  # type: ignore[arg-type]


def nothing_decided(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        return ask(table.service(name, reply(b"{}")))
    return ask(Answers(table.healthy(name), None))


def broken_policy(table: Table, name: str) -> PolicyDecider:
    if name == "opa":
        server = OpaServer(RegoCpp("package tools\nallow if {"))
        return ask(table.at(name, table.stack.enter_context(serving(server.app())), timeout=5.0))
    if name == "srs":
        return ask(table.service(name, reply(ALLOWED), found=b'["no policy"]'))
    engine, path = table.file(name)
    path.write_text("permit(((: [")
    return ask(engine)


def vanished_policy(table: Table, name: str) -> PolicyDecider:
    if name == "opa":
        server = OpaServer(RegoCpp("package other\nallow := true"))
        return ask(table.at(name, table.stack.enter_context(serving(server.app())), timeout=5.0))
    if name == "srs":
        return ask(table.service(name, reply(ALLOWED), found=b"{}", status="404 Not Found"))
    engine, path = table.file(name)
    path.unlink()
    return ask(engine)


def engine_raises(table: Table, name: str) -> PolicyDecider:
    if name in {"opa", "srs"}:
        engine = table.service(name, reply(ALLOWED))
        service = engine._service if name == "opa" else engine._judge
        table.patch.setattr(service, "_client", raising(RuntimeError("a bug")))
        return ask(engine)
    return ask(table.evaluator(name, raising(RuntimeError("a bug"))))


def resolver_raises(table: Table, name: str) -> PolicyDecider:
    return ask(table.healthy(name), principal=raising(KeyError("who?")))


def expired(table: Table, name: str) -> PolicyDecider:
    """SRS: the binding has expired and cannot be fetched again. Others: the credential of who asks has."""
    if name == "srs":
        return ask(table.service(name, reply(ALLOWED), found=b"", status="503 Unavailable"))
    return ask(table.healthy(name), principal=raising(PermissionError("expired")))


FAULTS: dict[str, tuple[Callable[[Table, str], PolicyDecider], str, str, str, str]] = {
    # kind: (what makes it, and the code with rules, cedar, opa, srs)
    "connection refused": (refused, "POLICY_ERROR", "POLICY_ERROR", "POLICY_UNAVAILABLE", "POLICY_UNBOUND"),
    "name not resolved": (unresolved, "POLICY_ERROR", "POLICY_ERROR", "POLICY_UNAVAILABLE", "POLICY_UNBOUND"),
    "bytes that are not HTTP": (
        service_or(then(lambda c: c.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n"), hang_up), raising(UnicodeError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_MALFORMED", "POLICY_MALFORMED"),
    ),
    "hung up": (
        service_or(hang_up, raising(EOFError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_UNAVAILABLE", "POLICY_UNAVAILABLE"),
    ),
    "HTTP 500": (
        service_or(reply(ALLOWED, "500 Error"), raising(ZeroDivisionError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_ERROR", "POLICY_ERROR"),
    ),
    "HTTP 401": (
        service_or(reply(ALLOWED, "401 Unauthorized"), raising(PermissionError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_UNAVAILABLE", "POLICY_UNAVAILABLE"),
    ),
    "redirected": (
        service_or(reply(ALLOWED, "307 Elsewhere", "location: /elsewhere"), returning(True)),
        *("POLICY_MALFORMED", "POLICY_ERROR", "POLICY_UNAVAILABLE", "POLICY_UNAVAILABLE"),
    ),
    "no answer": (silent, "POLICY_TIMEOUT", "POLICY_TIMEOUT", "POLICY_TIMEOUT", "POLICY_TIMEOUT"),
    "stalled in the answer": (stalled, "POLICY_TIMEOUT", "POLICY_TIMEOUT", "POLICY_TIMEOUT", "POLICY_TIMEOUT"),
    "answer cut off": (
        service_or(then(reply(ALLOWED, length=999), hang_up), raising(MemoryError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_MALFORMED", "POLICY_MALFORMED"),
    ),
    "half of the JSON": (
        service_or(reply(ALLOWED[:-1]), returning(None)),
        *("POLICY_MALFORMED", "POLICY_ERROR", "POLICY_MALFORMED", "POLICY_MALFORMED"),
    ),
    "an answer of the wrong type": (wrong_type, *(["POLICY_MALFORMED"] * 4)),
    "no decision in the answer": (nothing_decided, *(["POLICY_MALFORMED"] * 4)),
    "an answer without end": (
        service_or(reply(b" " * 1_100_000 + ALLOWED), raising(RecursionError())),
        *("POLICY_ERROR", "POLICY_ERROR", "POLICY_MALFORMED", "POLICY_MALFORMED"),
    ),
    "the policy is broken": (broken_policy, "last good", "last good", "POLICY_ERROR", "POLICY_UNBOUND"),
    "the policy is gone": (vanished_policy, "last good", "last good", "POLICY_MALFORMED", "POLICY_UNBOUND"),
    "the engine raises": (engine_raises, *(["POLICY_ERROR"] * 4)),
    "who asks is not known": (resolver_raises, *(["POLICY_RESOLVER"] * 4)),
    "expired": (expired, "POLICY_RESOLVER", "POLICY_RESOLVER", "POLICY_RESOLVER", "POLICY_UNBOUND"),
}
ENGINES = ("rules", "cedar", "opa", "srs")
ROWS = [
    pytest.param(make, name, code, id=f"{name}-{kind}")
    for kind, (make, *codes) in FAULTS.items()
    for name, code in zip(ENGINES, codes, strict=True)
]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Table]:
    with ExitStack() as stack:
        yield Table(tmp_path, monkeypatch, stack)


async def run(folder: Path, policy: Any) -> CaPermissionDecision:
    """Play the script under a policy; the decision that the session's log has of its one call."""
    folder.mkdir()
    harness = LocalHarness()
    session = await harness.open(request(folder, ScriptedEngine(SCRIPT), policy=policy))
    await session.send(UserInput(content="write it"))
    await session.end_input()
    events = [recorded.event for recorded in await drain(session.events())]
    await harness.close()
    (decision,) = [event for event in events if isinstance(event, CaPermissionDecision)]
    assert (decision.tool_name, decision.input) == ("Write", SCRIPT[0][0]["input"])
    return decision


@pytest.mark.parametrize("name", ENGINES)
async def test_a_healthy_policy_lets_the_call_happen(table: Table, name: str):
    engine = table.healthy(name)
    decision = await run(table.tmp_path / "work", ask(engine))
    await engine.aclose()
    assert (decision.decision, decision.engine, decision.code) == ("allow", name, None)
    assert (table.tmp_path / "work" / "trace.txt").read_text() == "it happened"


@pytest.mark.parametrize(("make", "name", "code"), ROWS)
async def test_a_fault_denies(table: Table, make: Any, name: str, code: str):
    judge = make(table, name)
    decision = await run(table.tmp_path / "work", judge)
    await judge.engine.aclose()
    assert not (table.tmp_path / "work" / "trace.txt").exists()
    assert decision.decision == "deny"
    assert decision.reason
    assert decision.decided_by == "policy"
    if code == "last good":
        assert (decision.code, decision.engine) == (None, name)
    else:
        assert decision.code == code
    if code != "POLICY_TIMEOUT" or name in {"opa", "srs"}:  # the chain's own limit knows no engine
        assert decision.engine == name


@pytest.mark.parametrize("name", ENGINES)
async def test_a_call_that_is_taken_back_while_it_is_judged_does_not_happen(table: Table, name: str):
    began = anyio.Event()

    async def slow(_: Any) -> dict[str, Any]:
        began.set()
        await anyio.sleep_forever()
        return {}

    judge = ask(table.healthy(name), context=slow)
    if name in {"opa", "srs"}:
        judge = ask(table.service(name, hang, timeout=30.0), context=lambda _: began.set() or {})
    folder = table.tmp_path / "work"
    folder.mkdir()
    harness = LocalHarness(grace=0.05)
    session = await harness.open(request(folder, ScriptedEngine(SCRIPT), policy=judge))
    await session.send(UserInput(content="write it"))
    await began.wait()
    if name in {"opa", "srs"}:
        while not table.asked.is_set():
            await anyio.sleep(0.005)
    await session.cancel()
    events = [recorded.event for recorded in await drain(session.events())]
    await harness.close()
    await judge.engine.aclose()  # type: ignore[attr-defined]
    (decision,) = [event for event in events if isinstance(event, CaPermissionDecision)]
    assert (decision.decision, decision.decided_by) == ("deny", "session")
    assert not (folder / "trace.txt").exists()


def test_the_table_in_the_docs_is_this_one():
    rows = [
        "| " + " | ".join([kind, *(code.removeprefix("POLICY_").lower() for code in codes)]) + " |"
        for kind, (_, *codes) in FAULTS.items()
    ]
    page = (ROOT / "docs" / "policy-engines.md").read_text("utf-8")
    missing = "\n".join(row for row in rows if row not in page)
    assert not missing, f"docs/policy-engines.md lacks\n{missing}"
