"""What Cedar and OPA cost a tool call, each beside what it is made of in the same run. Microseconds, median and p99."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import cedarpy
import httpx2

from computeragent.policy import (
    CedarPolicyEngine,
    OpaPolicyEngine,
    PolicyAction,
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
)
from computeragent.wire.encoding import to_json

POLICIES = 22
ANSWER = b'{"result": {"allow": true}}'
# The least that answers HTTP: what is measured is the way there and back, in a process of its own as OPA is.
SERVER = """
import asyncio, sys
answer = sys.argv[2].encode()
reply = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(answer) + answer
class Server(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.seen = transport, b""
    def data_received(self, data):
        head, end, body = (self.seen + data).partition(b"\\r\\n\\r\\n")
        length = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:")]
        if end and len(body) >= int(length[0].split(b":")[1]):
            self.seen = b""
            self.transport.write(reply)
        else:
            self.seen += data
async def main():
    loop = asyncio.get_running_loop()
    tcp = await loop.create_server(Server, "127.0.0.1", 0)
    await loop.create_unix_server(Server, sys.argv[1])
    print(tcp.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def cedar(rounds: int) -> None:
    """22 policies, beside cedarpy that is given texts each time, and beside cedarpy with all parsed before."""
    anyio.run(_cedar, rounds)


def opa(rounds: int) -> None:
    """Over a kept connection, on TCP and on a Unix socket, beside a bare request of httpx2."""
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "opa.sock")
        server = subprocess.Popen([sys.executable, "-c", SERVER, socket, ANSWER.decode()], stdout=subprocess.PIPE)
        assert server.stdout is not None
        try:
            anyio.run(_opa, rounds, f"http://127.0.0.1:{int(server.stdout.readline())}", socket)
        finally:
            server.kill()
            server.communicate()


async def _cedar(rounds: int) -> None:
    text = _policies()
    engine = CedarPolicyEngine(policies=text)
    question = _question()
    uid = {"User": "alice", "Action": "toolUse", "Agent": "coder"}
    parents = {"User": [{"type": "Group", "id": "engineers"}], "Action": [], "Agent": []}
    entities = to_json(
        [{"uid": {"type": kind, "id": name}, "attrs": {}, "parents": parents[kind]} for kind, name in uid.items()]
    ).decode()
    request = {
        "principal": 'User::"alice"',
        "action": 'Action::"toolUse"',
        "resource": 'Agent::"coder"',
        "context": {**question.context, "tool_name": "Bash", "tool_input": question.action.tool_input},
    }
    parsed, held = cedarpy.PolicySet.from_str(text), cedarpy.Entities.from_json_str(entities)

    async def ours() -> bool:
        return (await engine.evaluate(question)).decision is PolicyDecision.ALLOW

    async def naive() -> bool:
        return cedarpy.is_authorized(request, text, entities).allowed

    async def by_hand() -> bool:
        return cedarpy.is_authorized(request, parsed, held).allowed

    await _shown(f"cedar, {POLICIES} policies", ours, rounds, "p99 ≤ 120")
    await _shown("  beside: cedarpy with everything parsed before", by_hand, rounds)
    await _shown("  beside: naive cedarpy, texts each time", naive, rounds // 10)


async def _opa(rounds: int, url: str, socket: str) -> None:
    question = _question()
    over_tcp = OpaPolicyEngine(url=url, policy_path="computeragent/tools/decision")
    over_unix = OpaPolicyEngine(socket=socket, policy_path="computeragent/tools/decision")
    body = to_json({"input": question.to_json()})

    async def tcp() -> bool:
        return (await over_tcp.evaluate(question)).decision is PolicyDecision.ALLOW

    async def unix() -> bool:
        return (await over_unix.evaluate(question)).decision is PolicyDecision.ALLOW

    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:

        async def bare() -> bool:
            answer = await client.post(f"{url}/v1/data/computeragent/tools/decision", content=body)
            return answer.json()["result"]["allow"]

        await _shown("opa over a kept connection", tcp, rounds // 5, "p99 ≤ 2000")
        await _shown("opa over a Unix socket", unix, rounds // 5, "p99 ≤ 2000")
        await _shown("  beside: a bare post of httpx2", bare, rounds // 5)
    await over_tcp.aclose()
    await over_unix.aclose()


def _policies() -> str:
    forbids = [
        f'@id("no-{n}") forbid(principal, action, resource) when {{ context.tool_input has command && '
        f'context.tool_input.command like "*forbidden-{n}*" }};'
        for n in range(POLICIES - 2)
    ]
    permits = [
        'permit(principal, action, resource) when { action.tool == "Read" };',
        'permit(principal in Group::"engineers", action == Action::"toolUse", resource);',
    ]
    return "\n".join(forbids + permits)


def _question() -> PolicyInput:
    given = {"command": "git log --oneline | head -5", "timeout": 60_000, "description": "Show the last commits"}
    return PolicyInput(
        PolicyPrincipal("alice", ["engineers"]),
        PolicyAction("tool_use", "Bash", given),
        PolicyResource(agent_name="coder", model="m"),
        {"risk": "low", "cwd": "/nowhere/shop"},
    )


async def _shown(name: str, ask: Callable[[], Awaitable[bool]], rounds: int, goal: str = "") -> None:
    times: list[int] = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        await ask()
        times.append(time.perf_counter_ns() - started)
    times.sort()
    print(f"{name:<58}{times[len(times) // 2] / 1000:>9.1f}{times[len(times) * 99 // 100] / 1000:>9.1f}   {goal}")


if __name__ == "__main__":
    cedar(5_000)
    opa(5_000)
