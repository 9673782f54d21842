"""Whole sessions in jails: the real CLI, its memory, its keys, its judge, and its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import EngineError, NotRemotableError, SubstrateError, ValidationError
from computeragent.protocol_types import PolicyVerdict
from computeragent.substrates import cgroups
from computeragent.substrates.bwrap import BwrapSubstrate
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = pytest.mark.anyio
INLINE = {"type": "inline", "manifest": {"name": "jailed", "version": "1"}}
HELLO = {"script": [[{"text": "hello"}], [{"text": "again"}]]}
KEY = "sk-canary-8d1f6c"


@asynccontextmanager
async def claude(script: str, **agent: Any) -> AsyncIterator[tuple[ComputerAgent, ModelSimulator]]:
    async with ModelSimulator(parse_script(script)) as sim:
        envs = {
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        agent.setdefault("source", INLINE)
        agent.setdefault("runtime", BwrapSubstrate())
        async with ComputerAgent(envs=envs, **agent) as made:
            yield made, sim


def bash(*commands: str) -> str:
    calls = "\n".join(f"    - tools: [{{name: Bash, input: {{command: {command!r}}}}}]" for command in commands)
    return f"- match: run\n  turns:\n{calls}\n    - text: done\n- match: remember\n  reply: I do.\n"


def outputs(result: Any) -> str:
    return str([m["message"]["content"] for m in result.messages if m.get("type") == "user"])


@pytest.mark.e2e
async def test_the_key_stays_outside_and_the_model_is_reached() -> None:
    look = "env; strings /proc/[0-9]*/environ; find /session/state -type f -exec cat {} +; echo made > made.txt"
    async with claude(bash(look)) as (agent, sim):
        result = await agent.chat("run it")
        assert result.text == "done"
        assert KEY not in outputs(result)
        assert "held-outside-the-sandbox" in outputs(result)
        assert await agent.fetch_artifact_text("made.txt") == "made\n"
    assert {call.headers["x-api-key"] for call in sim.calls} == {KEY}


@pytest.mark.e2e
async def test_a_session_goes_on_in_a_new_jail_with_its_history(tmp_path: Path) -> None:
    store = {"kind": "sqlite", "options": {"path": str(tmp_path / "memory.db")}}
    chosen: dict[str, Any] = {"session_id": "goes-on", "session_store": store}
    async with claude(bash("echo 1"), **chosen) as (agent, _):
        await agent.chat("remember the number 4711")
    async with claude(bash("echo 1"), **chosen) as (agent, sim):
        result = await agent.chat("remember it still?")
        assert result.text == "I do."
    assert "4711" in str(sim.calls[-1].json["messages"])


@pytest.mark.e2e
async def test_a_jailed_agent_cannot_approve_itself() -> None:
    probe = r"""
import json, os, re, socket
def say(connection):
    body = json.dumps({"decision": "allow"}).encode()
    for call in ("wanted", "*"):
        head = f"POST /v1/sessions/self/permission/{call} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
    connection.settimeout(1)
    print("ANSWER", connection.recv(200))
for each in os.listdir("/proc"):
    if each.isdigit() and int(each) != os.getpid():
        try:
            print("DESCRIPTORS", each, os.listdir(f"/proc/{each}/fd"))
        except OSError:
            pass
for name in set(re.findall(r"\s(\S*/host)$", open("/proc/net/unix").read(), re.M)):
    try:
        connection = socket.socket(socket.AF_UNIX); connection.connect(name); say(connection)
    except OSError as error:
        print("REFUSED", error)
for line in open("/proc/net/tcp").readlines()[1:]:
    if line.split()[3] == "0A":
        try:
            say(socket.create_connection(("127.0.0.1", int(line.split()[1].split(":")[1], 16)), 1))
        except OSError as error:
            print("REFUSED", error)
"""

    async def judge(request: Any) -> PolicyVerdict:
        if "forbidden" in str(request.input):
            return PolicyVerdict("deny", reason="the policy says no")
        return PolicyVerdict("allow")

    async with claude(
        bash("nohup python3 probe.py > said.txt 2>&1; cat said.txt", "echo x > forbidden.txt"),
        source={**INLINE, "files": {"probe.py": probe}},
        session_id="self",
        policy=judge,
    ) as (agent, _):
        events = [event async for event in agent.chat("run it")]
        said = await agent.fetch_artifact_text("said.txt")
        assert said is not None
        assert await agent.fetch_artifact("forbidden.txt") is None
    decided = [event for event in events if event.kind == "ca_permission_decision"]
    assert [each.decision for each in decided] == ["allow", "deny"]
    assert '{"ok":true}' not in said
    assert all(b"200 OK" not in line.encode() for line in said.splitlines() if line.startswith("ANSWER"))


async def test_memory_processes_and_the_jail_itself_end_with_the_session() -> None:
    substrate = BwrapSubstrate()
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=substrate) as agent:
        await agent.chat("hi")
        before = jails()
        assert before
    assert not jails() & before


async def test_a_killed_jail_is_an_honest_end_and_the_next_run_works() -> None:
    script = {"script": [[{"text": "one"}, {"delay": 30}], [{"text": "two"}]]}
    already = jails()
    async with ComputerAgent(
        source=INLINE, engine="scripted", options=script, runtime="bwrap", session_id="killed-jail"
    ) as agent:
        async for event in (handle := agent.chat("hi")):
            if event.kind == "sdk_message" and "one" in str(event.payload):
                for pid in jails() - already:
                    os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="the sandbox ended: it was killed by SIGKILL"):
            await handle
        result = await agent.chat("once more")
        assert result.ended.reason == "complete"


async def test_a_boot_that_is_cancelled_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    folders = {"workspace": tmp_path / "source", "state_dir": tmp_path / "state"}
    for each in folders.values():
        each.mkdir()
    substrate = BwrapSubstrate()

    async def boot(patience: float) -> None:
        booting = asyncio.ensure_future(substrate.boot(**folders, envs={}, limits={}))
        await asyncio.wait({booting}, timeout=patience)
        booting.cancel()
        with suppress(asyncio.CancelledError):
            await (await booting).close()

    await boot(30)
    gc.collect()  # what other tests left to it
    before = len([*Path("/proc/self/fd").iterdir()])
    async with asyncio.timeout(40):
        for moment in range(24):
            await boot(moment / 2000)
    gc.collect()
    assert len([*Path("/proc/self/fd").iterdir()]) <= before
    assert not jails()


async def test_interrupt_and_cancel_reach_the_engine() -> None:
    script = {"script": [[{"text": "one"}, {"delay": 30}], [{"text": "two"}]]}
    async with ComputerAgent(source=INLINE, engine="scripted", options=script, runtime="bwrap") as agent:
        handle = agent.chat("hi")
        async for event in handle:
            if event.kind == "sdk_message" and "one" in str(event.payload):
                await handle.cancel()
        result = await agent.chat("next")
        assert result.text == "two"
        await agent.cancel()


@pytest.mark.skipif(not cgroups.available(), reason="this machine lets this user make no control groups")
@pytest.mark.e2e
async def test_a_hog_is_killed_and_the_error_says_why() -> None:
    hog = BwrapSubstrate(memory=700 * 1024 * 1024)
    eat = 'python3 -c "x = [bytes([1]) * (10_000_000 + each) for each in range(1_000)]"'
    async with claude(bash(eat), runtime=hog) as (agent, _):
        async for _ in (handle := agent.chat("run it")):
            pass
        try:
            told = outputs(await handle)
        except EngineError as error:
            told = error.message
    # The kernel chooses whom it kills: the hog, or the engine host.
    assert "Killed" in told or "137" in told or "used up its memory" in told


async def test_what_cannot_travel_is_refused_at_once() -> None:
    async with ComputerAgent(source=INLINE, engine=ScriptedEngine(), runtime="bwrap") as agent:
        with pytest.raises(NotRemotableError, match="object of this process"):
            await agent.chat("hi")
    async with ComputerAgent(source=INLINE, engine="scripted", options={"script": [print]}, runtime="bwrap") as agent:
        with pytest.raises(NotRemotableError, match="'script'"):
            await agent.chat("hi")


async def test_no_bubblewrap_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no permissions to create a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    for program, message in ((tmp_path / "none", "was not found"), (broken, "no permissions to create")):
        async with ComputerAgent(source=INLINE, engine="scripted", runtime=BwrapSubstrate(bwrap=program)) as agent:
            with pytest.raises(SubstrateError, match=message):
                await agent.chat("hi")
    with pytest.raises(ValidationError, match="does not exist"):
        BwrapSubstrate(bind=[tmp_path / "nothing"])


async def test_pooled_jails_serve_sessions_and_keep_them_apart(state_folder: Path) -> None:
    async def one(number: int, substrate: BwrapSubstrate) -> list[str]:
        source = {**INLINE, "files": {f"own-{number}": "x"}}
        async with ComputerAgent(source=source, engine="scripted", options=HELLO, runtime=substrate) as agent:
            assert (await agent.chat("hi")).text == "hello"
            await agent.write_artifact("later", "x")
            return sorted(entry.path for entry in await agent.list_workdir())

    async with BwrapSubstrate(pool=2) as substrate:
        found = await asyncio.gather(*(one(number, substrate) for number in range(5)))
    assert found == [["agent.yaml", "later", f"own-{number}"] for number in range(5)]
    assert not list((state_folder / "work").glob("spare-*"))


def jails() -> set[int]:
    """The bubblewrap processes that this process has started."""
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if name == "bwrap" and int(parent) == os.getpid() and state != "Z":
            found.add(int(entry.parent.name))
    return found


def test_a_read_only_folder_moves_into_a_spare_jail(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from computeragent.substrates.bwrap import _move_in
if os.geteuid() == 0:  # root is not refused
    os.chown({str(tmp_path)!r}, 65534, 65534)
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
own, spare = (Path({str(tmp_path)!r}, each) for each in ("own", "spare"))
for each in (own, spare):
    for name in ("source", "state"):
        (each / name).mkdir(parents=True)
(own / "source/cache").mkdir()
(own / "source/cache/file").touch()
(own / "source/cache").chmod(0o555)
_move_in(spare, own)
print((own / "source/cache/file").exists(), oct((own / "source/cache").stat().st_mode), spare.exists())
"""
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.split() == ["True", "0o40555", "False"], done.stderr


@pytest.mark.skipif(not cgroups.available(), reason="this machine lets this user make no control groups")
def test_groups_of_processes_that_were_killed_are_swept() -> None:
    left = cgroups.make(cgroups.Limits(pids=10))
    assert left is not None
    folders = [each.parent for each in left.entries]
    dead = [each.with_name(f"computeragent-999999999-{each.name[-6:]}") for each in folders]
    for folder, renamed in zip(folders, dead, strict=True):
        renamed.mkdir()
        folder.rmdir()
    fresh = cgroups.make(cgroups.Limits(pids=10))
    assert fresh is not None
    fresh.remove()
    assert not any(each.exists() for each in dead)


async def test_folders_of_spares_that_were_killed_are_swept(state_folder: Path) -> None:
    left = state_folder / "work" / "spare-999999999-abc"
    left.mkdir(parents=True)
    async with BwrapSubstrate(pool=1):
        assert not left.exists()
        assert len(list((state_folder / "work").glob("spare-*"))) == 1
