"""Callers side by side, and a server that is killed: nothing crosses, nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from computeragent.responses import create_responses_server
from computeragent.responses.resolving import Offered
from computeragent.testing.models import ModelSimulator, parse_script
from loopback import loopback

from .conftest import Service
from .oracle import oracle
from .test_seed import free_port

pytestmark = pytest.mark.anyio
TURNS = """
rules:
  - match: write (\\w+)
    turns:
      - computer: {action: click, x: 450, y: 500}
      - computer: {action: type, text: "$1"}
      - "$1 is written."
  - match: look
    turns:
      - computer: {action: screenshot}
      - I see it.
  - match: wait
    turns:
      - computer: {action: wait, seconds: 40}
      - Done.
"""


async def test_four_desktops_at_once_share_neither_keys_nor_screens() -> None:
    words = ["alpha", "bravo", "charlie", "delta"]
    async with (
        loopback(create_responses_server()) as url,
        httpx2.AsyncClient(base_url=url, timeout=55) as client,
        ModelSimulator(parse_script(TURNS)) as simulator,
    ):

        async def ask(text: str, key: str, **fields: Any) -> dict[str, Any]:
            env = {"ANTHROPIC_API_KEY": key, "ANTHROPIC_BASE_URL": simulator.url}
            body = {"model": "anthropic/claude-sonnet-4-5", "input": text, "env": env, **fields}
            told = (await client.post("/responses", json=body)).json()
            assert told["success"], told
            assert key not in json.dumps(told)
            return told["result"]

        async def work(word: str) -> None:
            async with oracle() as page:
                computer = {"os_type": "linux", "display": "900x700", "page": page.url}
                seen = await ask(f"Please look for {word}", f"key-of-{word}", computer_kwargs=computer)
                await page.until(lambda: page.of("load"))
                more = {"previous_response_id": seen["id"], "computer_kwargs": computer}
                told = await ask(f"Please write {word}", f"key-of-{word}", **more)
                assert told["output_text"] == f"{word} is written."
                await page.until(lambda: "".join(event["key"] for event in page.of("keydown")) == word)

        await asyncio.gather(*(work(word) for word in words))
        for call in simulator.calls:
            (word,) = {each for each in words if each in call.text}
            assert call.api_key == f"key-of-{word}"
    assert not any("key-of" in value for value in os.environ.values())


async def test_a_server_that_is_killed_leaves_no_desktop_and_no_browser(tmp_path: Path) -> None:
    port, mark = free_port(), f"mark-{os.getpid()}-{time.time_ns()}"
    async with oracle() as page:
        with ModelSimulator.start_in_thread(parse_script(TURNS)) as simulator:
            env = {**os.environ, "COMPUTERAGENT_HOME": str(tmp_path), "MARK_OF_THE_TEST": mark}
            command = [sys.executable, "-m", "computeragent", "responses", "serve", "--no-auth", "--port", str(port)]
            with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                process.stderr.readline()
                keys = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": simulator.url}
                async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                    for kind in ("browser", "x11"):
                        body = {
                            "model": "anthropic/claude-sonnet-4-5",
                            "input": "Please wait",
                            "env": keys,
                            "background": True,
                            "computer_kwargs": {"provider_type": kind, "page": f"{page.url}/{kind}"},
                        }
                        answer = await client.post("/responses", json=body)
                        assert answer.status_code == 200, answer.text
                await page.until(lambda: len(page.of("load")) == 2)
                children = offspring(process.pid)
                assert {"Xvfb", "openbox"} <= {name for name, _ in children}
                assert any("chrom" in name for name, _ in children)
                process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(20):
        while left := [each for each in children if is_alive(*each)]:
            await asyncio.sleep(0.1)
    assert not left


def offspring(pid: int) -> list[tuple[str, int]]:
    """The programs that a process has started, and they; by name and pid."""
    parents: dict[int, list[tuple[str, int]]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        parents.setdefault(int(rest.split()[1]), []).append((name, int(entry.parent.name)))
    found: list[tuple[str, int]] = []
    pending = [pid]
    while pending:
        for child in parents.get(pending.pop(), []):
            found.append(child)
            pending.append(child[1])
    return found


def is_alive(name: str, pid: int) -> bool:
    """Whether a process of that name and pid is there, and no zombie."""
    try:
        found, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return found == name and rest.split()[0] != "Z"


async def test_more_callers_than_computers_are_served_one_after_the_other(service: Service) -> None:
    app = create_responses_server(offered=Offered(computers=1))
    async with loopback(app) as url, httpx2.AsyncClient(base_url=url, timeout=50) as client:
        asked = [client.post("/responses", json=service.body("Please press it")) for _ in range(2)]
        told = [answer.json()["result"] for answer in await asyncio.gather(*asked)]
        assert [each["status"] for each in told] == ["completed"] * 2


async def test_what_is_asked_counts_in_what_is_held(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("computeragent.responses.held.MAX_BYTES", 1_000_000)
    long = "Please remember " + "x" * 600_000
    kept = [(await service.ask(long, computer_kwargs={}))["id"] for _ in range(3)]
    status = [(await service.client.get(f"/responses/{each}")).status_code for each in kept]
    assert status == [404, 404, 200]
