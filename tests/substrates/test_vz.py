"""Virtual machines, with a stand-in for ``tart`` that runs a real sshd (`tart_standin.py`). ssh, its forwarding, the
engine host and the Claude CLI are real; that a Mac isolates a machine is not shown here.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import listening

from computeragent import ComputerAgent
from computeragent.errors import EngineError, SubstrateError, ValidationError
from computeragent.protocol_types import PolicyVerdict
from computeragent.substrates.vz import VZSubstrate, VZVMSubstrate
from computeragent.testing.models import ModelSimulator, parse_script

FILES = f"/tmp -path {Path(__file__).parents[2]} -prune -o -type f"  # but for this checkout, if it is there
pytestmark = pytest.mark.anyio
INLINE = {"type": "inline", "manifest": {"name": "virtual", "version": "1"}}
HELLO = {"script": [[{"text": "hello"}], [{"text": "again"}]]}
SLOW = {"script": [[{"text": "one"}, {"delay": 30}], [{"text": "two"}]]}
KEY = "sk-canary-92b71f"
TOKEN = "token-canary-" + "7d" * 16
TART = Path(__file__).with_name("tart_standin.py")
Machines = Callable[..., VZSubstrate]


@pytest.fixture
def tart_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the stand-in's, with one image, ``base``, that lets ``key`` in."""
    for program in ("sshd", "ssh", "bwrap"):
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            if os.environ.get("CI"):
                pytest.fail(f"{program} is missing")
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("an sshd in a process space of its own needs root")
    Path("/run/sshd").mkdir(exist_ok=True)
    home = tmp_path / "tart"
    (home / "vms" / "base").mkdir(parents=True)
    for name in ("key", "host_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    with listening() as free:
        port = free.getsockname()[1]
    (home / "port").write_text(str(port))
    (home / "sshd_config").write_text(
        f"Port {port}\nHostKey /mnt/host_key\nAuthorizedKeysFile /mnt/key.pub\nStrictModes no\nUsePAM no\n"
        f"PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel QUIET\n"
    )
    program = tmp_path / "tart-program"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {TART} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("TART_HOME", str(home))
    return home


@pytest.fixture
def machines(tart_home: Path) -> Machines:
    """`machines(**options)`: a substrate on the stand-in."""

    def make(**options: Any) -> VZSubstrate:
        settings: dict[str, Any] = {
            "base_image": "base",
            "ssh_user": getpass.getuser(),
            "ssh_key": tart_home / "key",
            "ssh_port": int((tart_home / "port").read_text()),
            "python": sys.executable,
            "tart": tart_home.parent / "tart-program",
        }
        return VZSubstrate(**{**settings, **options})

    return make


def left(tart_home: Path) -> list[str]:
    return [each.name for each in (tart_home / "vms").iterdir() if each.name != "base"]


async def test_files_go_in_and_come_back(machines: Machines, tart_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "kept").write_text("x")
    (folder / "out").symlink_to("/etc")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("mine")
    async with ComputerAgent(source=str(folder), engine="scripted", options=HELLO, runtime=machines()) as agent:
        assert (await agent.chat("hi")).text == "hello"
        await agent.write_artifact("made/new.txt", "y")
        assert await agent.fetch_artifact_text("made/new.txt") == "y"
        assert await agent.fetch_artifact("missing") is None
        listed = sorted(each.path for each in await agent.list_workdir())
        assert listed == ["deep", "deep/kept", "made", "made/new.txt"]
        assert not (folder / "made").exists()
        assert len(left(tart_home)) == 1
    assert (folder / "made" / "new.txt").read_text() == "y"
    assert (folder / "deep" / "kept").read_text() == "x"
    assert (folder / "out").is_symlink()
    assert (folder / ".git" / "config").read_text() == "mine"
    assert left(tart_home) == []


async def _anything(request: Any) -> PolicyVerdict:
    del request
    return PolicyVerdict("allow")


@pytest.mark.e2e
async def test_claude_works_in_a_machine_that_holds_neither_key_nor_token(
    machines: Machines, tart_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeragent.substrates.vz.new_token", lambda: TOKEN)
    look = f"env; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; find {FILES}; "
    command = f"({look} find {FILES} -exec cat {{}} +) > said.txt; rm old.txt; echo x > new.txt"
    script = (
        f"- match: run\n  turns:\n    - tools: [{{name: Bash, input: {{command: {command!r}}}}}]\n    - text: done\n"
    )
    async with ModelSimulator(parse_script(script)) as sim:
        envs = {
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        source = {**INLINE, "files": {"old.txt": "x"}}
        runtime = machines()
        async with ComputerAgent(source=source, envs=envs, runtime=runtime, policy=_anything) as agent:
            assert (await agent.chat("run it")).text == "done"
            said = await agent.fetch_artifact("said.txt")
            assert await agent.fetch_artifact("old.txt") is None
    assert said is not None
    assert KEY.encode() not in said
    assert b"held-outside-the-sandbox" in said
    assert b"--token\n-\n" in said
    assert TOKEN.encode() not in said
    assert {call.headers["x-api-key"] for call in sim.calls} == {KEY}
    assert left(tart_home) == []


async def test_a_stopped_machine_is_an_honest_end_and_the_next_run_works(machines: Machines, tart_home: Path) -> None:
    runtime = machines()
    async with ComputerAgent(source=INLINE, engine="scripted", options=SLOW, runtime=runtime, session_id="v") as agent:
        async for event in (handle := agent.chat("hi")):
            if event.kind == "sdk_message" and "one" in str(event.payload):
                [name] = left(tart_home)
                stop = [tart_home.parent / "tart-program", "stop", name]
                await asyncio.to_thread(subprocess.run, stop, check=True)
        with pytest.raises(EngineError, match="the sandbox ended: the virtual machine has stopped"):
            await handle
        assert (await agent.chat("once more")).ended.reason == "complete"
    assert left(tart_home) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tart": "/nowhere/tart"}, "/nowhere/tart was not found"),
        ({"base_image": "none"}, 'tart clone fails: the specified VM "none" does not exist'),
        ({"base_image": None}, "vz needs a base image"),
        ({"ssh_key": "other_key"}, "does not let in: .*Permission denied"),
        ({"python": "no-such-python"}, "cannot be installed there with no-such-python"),
    ],
)
async def test_what_cannot_be_started_is_a_clear_error(
    machines: Machines, tart_home: Path, options: dict[str, Any], message: str
) -> None:
    if "ssh_key" in options:
        options = {"ssh_key": tart_home / options["ssh_key"]}
    runtime = machines(**options)
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        with pytest.raises(SubstrateError, match=message):
            await agent.chat("hi")
    assert left(tart_home) == []


async def test_machines_of_processes_that_are_gone_are_swept(machines: Machines, tart_home: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    for name in (f"computeragent-{gone.pid}-0123abcd", "computeragent-mine", f"computeragent-{os.getpid()}-0123abcd"):
        (tart_home / "vms" / name).mkdir()
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=machines()) as agent:
        await agent.chat("hi")
    assert sorted(left(tart_home)) == [f"computeragent-{os.getpid()}-0123abcd", "computeragent-mine"]


def test_its_other_name_and_its_settings() -> None:
    assert VZVMSubstrate is VZSubstrate
    with pytest.raises(ValidationError, match="ssh_key"):
        VZSubstrate(base_image="base", ssh_key="/nowhere/key")
    with pytest.raises(ValidationError, match="base_image"):
        VZSubstrate(base_image="-x")
