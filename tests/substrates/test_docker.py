"""Real containers, of a Docker engine that the tests start. The model is simulated, nothing else is."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.substrates import docker_engine

from computeragent import ComputerAgent
from computeragent.errors import EngineError, SubstrateError, ValidationError
from computeragent.substrates import container
from computeragent.substrates.docker import DockerSubstrate
from computeragent.substrates.mounts import interpreter_paths
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = pytest.mark.anyio
INLINE = {"type": "inline", "manifest": {"name": "contained", "version": "1"}}
HELLO = {"script": [[{"text": "hello"}], [{"text": "again"}]]}
SLOW = {"script": [[{"text": "one"}, {"delay": 30}], [{"text": "two"}]]}
KEY = "sk-canary-50c2e9"
Contained = Callable[..., DockerSubstrate]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Docker engine. Where none can be started these tests say so and are skipped, also in CI."""
    try:
        with docker_engine.running() as running:
            yield running
    except docker_engine.NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def contained(address: str) -> Iterator[Contained]:
    """`contained(**options)`: a substrate on the tests' engine. At the end no container may be left."""
    yield lambda **options: DockerSubstrate(docker_host=address, **options)
    assert containers(address) == []


def containers(address: str) -> list[Any]:
    with closing(container.Engine.connect(address)) as engine:
        return [each.id for each in engine._client.containers.list(all=True)]


def kill(address: str) -> None:
    with closing(container.Engine.connect(address)) as engine:
        for each in engine._client.containers.list():
            each.kill()


async def test_a_run_works_on_its_folder_and_leaves_nothing(contained: Contained, address: str, tmp_path: Path) -> None:
    agent_folder = tmp_path / "agent"
    agent_folder.mkdir()
    (agent_folder / "kept").write_text("x")
    async with ComputerAgent(source=str(agent_folder), engine="scripted", options=HELLO, runtime=contained()) as agent:
        assert (await agent.chat("hi")).text == "hello"
        assert (await agent.chat("more")).text == "again"
        assert len(containers(address)) == 1
        await agent.write_artifact("made", "y")
    found = {path.name: path.stat().st_uid for path in agent_folder.iterdir()}
    assert found == {"kept": os.geteuid(), "made": os.geteuid()}


PROBE = """
import json, os, socket, urllib.request
def reached(address):
    try:
        socket.create_connection(address, 1)
        return True
    except OSError:
        return False
def written(folder):
    try:
        open(f"{folder}/probe", "w").close()
        return True
    except OSError:
        return False
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "root": os.getuid() == 0,
    "rights": [status["CapEff"].strip("0"), status["NoNewPrivs"]],
    "written": [f for f in ("/", "/usr", "/etc", "/session", "/session/source", "/tmp", "/home/agent") if written(f)],
    "reached": [a for a in (("1.1.1.1", 53), ("169.254.169.254", 80)) if reached(a)],
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "seen": [p for p in PLANTED if os.path.exists(p)],
    "door": os.listdir("/run/computeragent"),
    "environment": [open(f"/proc/{p}/environ").read() for p in os.listdir("/proc") if p.isdigit()
                    and os.access(f"/proc/{p}/environ", os.R_OK)],
}))
"""


@pytest.mark.e2e
async def test_claude_works_in_a_container_that_holds_no_key(contained: Contained, tmp_path: Path) -> None:
    planted = [tmp_path / "host-secret", Path.home() / ".computeragent-canary"]
    command = "python3 probe.py 2>&1 | tee said.json; find /session/state -type f -exec cat {} + > state.txt"
    script = (
        f"- match: run\n  turns:\n    - tools: [{{name: Bash, input: {{command: {command!r}}}}}]\n    - text: done\n"
    )
    try:
        for path in planted:
            path.write_text("x")
        files = {"probe.py": f"PLANTED = {[*map(str, planted), '/var/run/docker.sock', '/etc/shadow']}\n{PROBE}"}
        async with ModelSimulator(parse_script(script)) as sim:
            envs = {
                "ANTHROPIC_BASE_URL": sim.url,
                "ANTHROPIC_API_KEY": KEY,
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            }
            source = {**INLINE, "files": files}
            async with ComputerAgent(source=source, envs=envs, runtime=contained(), policy=_anything) as agent:
                assert (await agent.chat("run it")).text == "done"
                said, state = await agent.fetch_artifact_text("said.json"), await agent.fetch_artifact_text("state.txt")
    finally:
        for path in planted:
            path.unlink(missing_ok=True)
    assert said is not None
    assert state is not None
    assert KEY not in said + state
    found = json.loads(said)
    assert "held-outside-the-sandbox" in str(found.pop("environment"))
    assert found == {
        "root": False,
        "rights": ["", "1"],
        "written": ["/session/source", "/tmp", "/home/agent"],
        "reached": [],
        "interfaces": ["lo"],
        "seen": [],
        "door": [],
    }
    assert {call.headers["x-api-key"] for call in sim.calls} == {KEY}


async def _anything(request: Any) -> Any:
    from computeragent.protocol_types import PolicyVerdict

    del request
    return PolicyVerdict("allow")


async def test_a_killed_container_is_an_honest_end_and_the_next_run_works(contained: Contained, address: str) -> None:
    runtime = contained()
    async with ComputerAgent(source=INLINE, engine="scripted", options=SLOW, runtime=runtime, session_id="k") as agent:
        async for event in (handle := agent.chat("hi")):
            if event.kind == "sdk_message" and "one" in str(event.payload):
                await asyncio.to_thread(kill, address)
        with pytest.raises(EngineError, match="the sandbox ended: it was killed by SIGKILL"):
            await handle
        assert (await agent.chat("once more")).ended.reason == "complete"


async def test_one_that_needs_too_much_memory_says_so(contained: Contained) -> None:
    runtime = contained(memory=16 * 1024 * 1024)
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        with pytest.raises((SubstrateError, EngineError), match="it used up its memory"):
            await agent.chat("hi")


async def test_a_boot_that_is_cancelled_leaves_nothing(contained: Contained, address: str) -> None:
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=contained()) as agent:
        for pause in (0.05, 0.3, 0.6):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(pause):
                    await agent.chat("hi")
            await agent.cancel()
    assert await asyncio.to_thread(containers, address) == []


def _archive(*links: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(entry)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(address: str) -> None:
    """``tiny:1``, which has links to a system that is mounted, and ``bare:1``, which has no system."""
    with closing(container.Engine.connect(address)) as engine:
        engine.import_image(
            "tiny:1", _archive(*(each for each in ("bin", "lib", "lib64") if Path("/", each).is_symlink()))
        )
        engine.import_image("bare:1", _archive("nothing"))


async def test_on_a_network_it_works_within_its_limits(contained: Contained, address: str) -> None:
    runtime = contained(network="bridge", memory=512 * 1024 * 1024, cpus=1.5, pids=200, tmp_size=64 * 1024 * 1024)
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        assert (await agent.chat("hi")).text == "hello"
        with closing(container.Engine.connect(address)) as engine:
            [made] = engine._client.containers.list()
        host = made.attrs["HostConfig"]
    assert list(made.attrs["NetworkSettings"]["Networks"]) == ["bridge"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (512 * 1024 * 1024, 1_500_000_000, 200)
    assert KEY not in str(made.attrs)


@pytest.mark.usefixtures("images")
async def test_an_image_is_shown_this_interpreter_or_has_its_own(contained: Contained) -> None:
    system = [path for path in ("/usr", "/lib", "/lib64") if Path(path).is_dir() and not Path(path).is_symlink()]
    own = {"python": sys.executable, "bind": [*system, *interpreter_paths()]}
    for options in ({"bind": system}, own):
        runtime = contained(image="tiny:1", **options)
        async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
            assert (await agent.chat("hi")).text == "hello"


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"docker_host": "unix:///nowhere/d.sock"}, "no Docker engine answers at unix:///nowhere/d.sock"),
        ({"docker_host": "tcp://10.0.0.1:2376"}, "may be another machine's"),
        ({"image": "nobody/has-this:1"}, "has no image 'nobody/has-this:1'"),
        ({"image": "bare:1"}, "the Docker engine refuses|the container could not start"),
        ({"network": "nowhere"}, "nowhere"),
        ({"runtime": "nothing"}, "nothing"),
    ],
)
async def test_what_cannot_be_started_is_a_clear_error(address: str, options: dict[str, Any], message: str) -> None:
    runtime = DockerSubstrate(**{"docker_host": address, **options})
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        with pytest.raises(SubstrateError, match=message):
            await agent.chat("hi")
    assert containers(address) == []


def test_options_that_isolate_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="not a container's own"):
        DockerSubstrate(network="host")
    with pytest.raises(ValidationError, match="interpreter of an image"):
        DockerSubstrate(python="python3")


async def test_what_a_killed_process_leaves_is_swept(contained: Contained, address: str, tmp_path: Path) -> None:
    program = f"""
        import asyncio
        from computeragent import ComputerAgent
        from computeragent.substrates.docker import DockerSubstrate
        async def main():
            runtime = DockerSubstrate(docker_host={address!r})
            async with ComputerAgent(source={INLINE!r}, engine="scripted", options={SLOW!r}, runtime=runtime) as agent:
                async for event in agent.chat("hi"):
                    if event.kind == "sdk_message":
                        print("runs", flush=True)
        asyncio.run(main())
    """
    env = {**os.environ, "COMPUTERAGENT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"runs\n"
        process.send_signal(signal.SIGKILL)
    [left] = containers(address)
    with closing(container.Engine.connect(address)) as engine:
        folder = Path(engine._client.containers.get(left).labels["computeragent.folder"])
    assert folder.is_dir()
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=contained()) as agent:
        await agent.chat("hi")
        assert left not in containers(address)
    assert not folder.exists()
