"""Cloud sandboxes, with the official SDK and a stand-in of E2B's wire (`e2b_cloud.py`), whose commands run for real.
That E2B itself behaves so is not shown here.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import listening, loopback
from tests.substrates.e2b_cloud import Cloud

from computeragent import ComputerAgent
from computeragent.errors import EngineError, SubstrateError, ValidationError
from computeragent.protocol_types import PolicyVerdict
from computeragent.substrates.e2b import E2BSubstrate
from computeragent.substrates.shipping import wheel
from computeragent.testing.models import ModelSimulator, parse_script

FILES = f"/tmp -path {Path(__file__).parents[2]} -prune -o -type f"  # but for this checkout, if it is there
pytestmark = pytest.mark.anyio
INLINE = {"type": "inline", "manifest": {"name": "clouded", "version": "1"}}
HELLO = {"script": [[{"text": "hello"}], [{"text": "again"}]]}
SLOW = {"script": [[{"text": "one"}, {"delay": 30}], [{"text": "two"}]]}
KEY, API_KEY = "sk-canary-b417d0", "e2b_canary_77f0"
TOKEN = "token-canary-" + "7d" * 16
Clouded = Callable[..., E2BSubstrate]


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    made = Cloud(tmp_path / "cloud", API_KEY)
    async with loopback(made.app) as url:
        for name in ("E2B_API_URL", "E2B_SANDBOX_URL"):
            monkeypatch.setenv(name, url)
        monkeypatch.setenv("E2B_HTTP_VERSION", "1.1")
        yield made
        assert made.sandboxes == {}
        await made.close()


@pytest.fixture
def clouded(cloud: Cloud) -> Clouded:
    """`clouded(**options)`: a substrate on the stand-in."""
    del cloud

    def make(**options: Any) -> E2BSubstrate:
        with listening() as free:
            port = free.getsockname()[1]
        return E2BSubstrate(**{"api_key": API_KEY, "python": sys.executable, "port": port, **options})

    return make


async def _anything(request: Any) -> PolicyVerdict:
    del request
    return PolicyVerdict("allow")


async def test_files_go_in_and_come_back(clouded: Clouded, cloud: Cloud, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "kept").write_text("x")
    runtime = clouded(template_id="mine", timeout=600, network="none")
    async with ComputerAgent(source=str(folder), engine="scripted", options=HELLO, runtime=runtime) as agent:
        assert (await agent.chat("hi")).text == "hello"
        await agent.write_artifact("made/new.txt", "y")
        assert await agent.fetch_artifact_text("kept") == "x"
        assert len(cloud.sandboxes) == 1
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) == ["kept", "made", "made/new.txt"]
    [asked] = cloud.created
    assert (asked["templateID"], asked["timeout"], asked["allow_internet_access"]) == ("mine", 600, False)
    assert asked["network"] == {"allowPublicTraffic": False}


@pytest.mark.e2e
async def test_claude_works_in_a_sandbox_that_holds_no_secret(
    clouded: Clouded, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeragent.substrates.e2b.new_token", lambda: TOKEN)
    look = f"env; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; find {FILES}; "
    command = f"({look} find {FILES} -exec cat {{}} +) > said.txt; rm old.txt"
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
        async with ComputerAgent(source=source, envs=envs, runtime=clouded(), policy=_anything) as agent:
            assert (await agent.chat("run it")).text == "done"
            said = await agent.fetch_artifact("said.txt")
            assert await agent.fetch_artifact("old.txt") is None
    assert said is not None
    for secret in (KEY, API_KEY, TOKEN):
        assert secret.encode() not in said
    assert b"held-outside-the-sandbox" in said
    assert {call.headers["x-api-key"] for call in sim.calls} == {KEY}


async def test_nobody_else_is_let_in(clouded: Clouded, cloud: Cloud) -> None:
    import httpx2

    runtime = clouded()
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        await agent.chat("hi")
        [sandbox] = cloud.sandboxes.values()
        port = next(each.headers["e2b-sandbox-port"] for each in cloud.seen if each.url.path == "/about")
        assert {each.headers.get("e2b-traffic-access-token") for each in cloud.seen if each.url.path == "/about"} == {
            sandbox.traffic_token
        }
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as stranger:
            for path in ("/about", "/v1/health", "/v1/sessions", "/carry/source", "/errands", "/docs"):
                for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}"}):
                    assert (await stranger.get(path, headers=headers)).status_code == 401


async def test_a_sandbox_whose_time_is_up_is_an_honest_end(clouded: Clouded, cloud: Cloud) -> None:
    runtime = clouded()
    async with ComputerAgent(source=INLINE, engine="scripted", options=SLOW, runtime=runtime, session_id="e") as agent:
        async for event in (handle := agent.chat("hi")):
            if event.kind == "sdk_message" and "one" in str(event.payload):
                await cloud.kill(next(iter(cloud.sandboxes)))
        with pytest.raises(EngineError, match="the sandbox ended"):
            await handle
        assert (await agent.chat("once more")).ended.reason == "complete"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": None}, "E2B needs an API key"),
        ({"api_key": "wrong"}, "E2B makes no sandbox: .*Invalid API key"),
        ({"template_id": "missing"}, "E2B makes no sandbox: .*'missing' not found"),
        ({"python": "no-such-python"}, "cannot be installed there with no-such-python"),
    ],
)
async def test_what_cannot_be_started_is_a_clear_error(
    clouded: Clouded, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    runtime = clouded(**options)
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=runtime) as agent:
        with pytest.raises(SubstrateError, match=message):
            await agent.chat("hi")


async def test_a_boot_that_is_cancelled_leaves_nothing(clouded: Clouded, cloud: Cloud) -> None:
    async with ComputerAgent(source=INLINE, engine="scripted", options=HELLO, runtime=clouded()) as agent:
        for pause in (0.01, 0.1, 0.5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(pause):
                    await agent.chat("hi")
    assert cloud.sandboxes == {}


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="timeout"):
        E2BSubstrate(timeout=0)
    with pytest.raises(ValidationError, match="network"):
        E2BSubstrate(network="host")  # type: ignore[arg-type]


def test_the_package_that_travels_can_be_installed(tmp_path: Path) -> None:
    name, content = wheel()
    (tmp_path / name).write_bytes(content)
    target = tmp_path / "there"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target]
    subprocess.run([*pip, tmp_path / name], check=True, timeout=50)
    look = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import computeragent.substrates.gate as g; print(g.__file__)"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == str(target / "computeragent" / "substrates" / "gate.py")
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert any(each.endswith("/entry_points.txt") for each in archive.namelist())
