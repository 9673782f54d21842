"""The requests that the documented system showed, as they stand, against `computeragent responses serve --no-auth`."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent.p2p import Peer, PeerOptions
from computeragent.testing.models import ModelSimulator, parse_script

SCRIPT = """
rules:
  - match: unicorn
    reply: There was a unicorn. It was fast. It slept.
  - match: what is in this image
    reply: A boardwalk.
  - match: Hello from P2P
    reply: Hello from here.
"""
TEXT = """
curl http://localhost:8000/responses \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "anthropic/claude-3-5-sonnet-20241022",
    "input": "Tell me a three sentence bedtime story about a unicorn.",
    "env": {"CUA_API_KEY": "override-key-for-this-request"}
  }'
"""
PICTURE = """
curl http://localhost:8000/responses \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "anthropic/claude-3-5-sonnet-20241022",
    "input": [
      {
        "role": "user",
        "content": [
          {"type": "input_text", "text": "what is in this image?"},
          {
            "type": "input_image",
            "image_url": "https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/Gfp-wisconsin-madison-the-nature-boardwalk.jpg/2560px-Gfp-wisconsin-madison-the-nature-boardwalk.jpg"
          }
        ]
      }
    ]
  }'
"""
MODEL = "anthropic/claude-3-5-sonnet-20241022"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def serving(
    tmp_path: Path, *flags: str, at: str = "peer://computer-agent-proxy"
) -> Iterator[tuple[str, ModelSimulator]]:
    """The command itself; the line that says where it is, and the model behind it."""
    with ModelSimulator.start_in_thread(parse_script(SCRIPT)) as simulator:
        env = {
            **os.environ,
            "COMPUTERAGENT_HOME": str(tmp_path / "home"),
            "ANTHROPIC_API_KEY": "key-of-anthropic",
            "ANTHROPIC_BASE_URL": simulator.url,
        }
        command = [sys.executable, "-m", "computeragent", "responses", "serve", "--no-auth", *flags]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                line = next(each for each in process.stderr if each.startswith(f"Agent proxy started at {at}"))
                yield line, simulator
            finally:
                process.terminate()
                assert process.wait(30) in {0, -15}


@pytest.mark.parametrize(
    ("command", "says"), [(TEXT, "There was a unicorn."), (PICTURE, "A boardwalk.")], ids=["text", "picture"]
)
def test_the_curl_commands_work_as_they_stand(command: str, says: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", at="http://127.0.0.1:") as (line, simulator):
        port = line.split(":")[2].partition(",")[0]
        words = shlex.split(command.replace("\\\n", " ").replace(":8000", f":{port}"))
        done = subprocess.run([*words, "-sS"], capture_output=True, text=True, timeout=30, check=True)
        told = json.loads(done.stdout)
        assert (told["success"], told["model"]) == (True, MODEL)
        assert told["result"]["output"][0]["content"][0]["text"].startswith(says)
        assert told["result"]["usage"]["output_tokens"] > 0
        if command is PICTURE:
            assert "boardwalk.jpg" in json.dumps(simulator.calls[-1].json)


def test_peers_are_told_the_secret_that_they_need(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "computeragent", "responses", "serve", "--mode", "p2p"]
    env = {**os.environ, "COMPUTERAGENT_HOME": str(tmp_path), "COMPUTERAGENT_RESPONSES_TOKEN": "sesame"}
    command += ["--signaling-port", str(free_port())]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(2)]
        process.terminate()
    assert any('{"secret": "sesame"}' in line for line in told)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["p2p", "both"])
async def test_the_peer_to_peer_sample_works_with_our_peer(mode: str, tmp_path: Path) -> None:
    port = free_port()
    flags = ("--mode", mode, "--signaling-port", str(port), "--port", "0")
    with serving(tmp_path, *flags):
        async with connected(port) as connection:
            await connection.send(json.dumps({"model": MODEL, "input": "Hello from P2P!"}))
            welcome, answer = [json.loads(await anext(aiter(connection))) for _ in range(2)]
        assert (welcome["type"], welcome["endpoints"]) == ("welcome", ["/responses"])
        assert answer["success"], answer
        assert answer["result"]["output_text"] == "Hello from here."


@pytest.mark.anyio
async def test_a_stream_comes_as_messages_and_a_peer_that_leaves_ends_its_work(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, "--mode", "p2p", "--signaling-port", str(port), "--no-welcome"):
        async with connected(port) as connection:
            request = {"model": MODEL, "input": "Tell me of a unicorn", "stream": True, "request_id": "r1"}
            await connection.send(request)
            events: list[Any] = []
            async with asyncio.timeout(30):
                async for event in connection:
                    events.append(event)
                    if event["type"] == "response.completed":
                        break
            assert {event["request_id"] for event in events} == {"r1"}
            assert events[0]["type"] == "response.created"
            await connection.send({"model": "human/human", "input": "never answered", "request_id": "r2"})
            await connection.send({"input": "no model", "request_id": "r3"})
            refused = await anext(aiter(connection))
            assert (refused["success"], refused["error"], refused["request_id"]) == (False, "Model is required", "r3")


def test_the_example_shows_every_way(tmp_path: Path) -> None:
    port = free_port()
    example = Path(__file__).parents[2] / "examples/responses.py"
    with serving(tmp_path, "--mode", "both", "--signaling-port", str(port), "--port", "0", at="http://") as (line, _):
        url = line.partition(",")[0].split()[-1]
        env = {**os.environ, "RESPONSES_URL": url, "SIGNALING_PORT": str(port), "RESPONSES_MODEL": MODEL}

        def shown(*how: str) -> str:
            command = [sys.executable, str(example), *how]
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=True).stdout

        over_http = shown()
        assert "health: {'status': 'healthy'}" in over_http
        assert "answer: There was a unicorn." in over_http
        assert "answer: A boardwalk." in over_http
        assert over_http.endswith("stream: response.completed\n")
        assert "There was a unicorn." in shown("p2p")
        first, *_ = shown("curl").splitlines()
        assert subprocess.run(shlex.split(first), capture_output=True, check=True).stdout == b'{"status":"healthy"}'


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Any]:
    peer = Peer(id="client", peer_options=PeerOptions(host="localhost", port=port))
    await peer.start()
    try:
        connection = peer.connect("computer-agent-proxy")
        yield connection
    finally:
        await peer.close()
