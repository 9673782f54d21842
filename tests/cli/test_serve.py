"""`computeragent serve`: a token of its own, a line that works when it is pasted, and a clean end."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from .conftest import Cli


@contextmanager
def serving(cli: Cli, *args: str) -> Iterator[tuple[list[str], int]]:
    """A server that is ready: what it said, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = cli.start("serve", "--port", str(port), *args)
    said: list[str] = []
    try:
        assert run.stderr is not None
        while not any(line.startswith("try:") for line in said):
            line = run.stderr.readline().decode()
            assert line, said
            said.append(line.rstrip())
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield said, port
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)
    assert run.returncode in {0, 130, -2}


def paste(line: str, body: str) -> str:
    """What comes back when a line for curl is used with another body: with curl itself where it is installed."""
    command = [*shlex.split(line)[:-1], body]
    if shutil.which("curl"):
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    header = dict([command[command.index("-H") + 1].split(": ", 1)]) if "-H" in command else {}
    (url,) = [part for part in command if part.startswith("http://")]
    return httpx2.post(url, content=body, headers=header, timeout=30).text


def test_the_line_that_it_prints_works(cli: Cli) -> None:
    with serving(cli) as (said, _):
        line = next(line for line in said if line.startswith("try:")).removeprefix("try: ")
        body = {
            "source": {"type": "inline", "manifest": {"name": "a"}},
            "harness": "scripted",
            "message": "Reply: PING",
        }
        kinds = re.findall(r"^event: (\w+)$", paste(line, json.dumps(body)), re.MULTILINE)
        assert kinds[0] == "ca_session_started"
        assert kinds[-1] == "ca_session_ended"
        token_file = cli.state / "keys" / "harness-token"
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert token_file.read_text().strip() in line
        listed = cli("sessions", "ls").stdout
        assert "complete" in listed  # the server's sessions are this machine's


def test_without_a_token_it_says_so_and_stays_on_loopback(cli: Cli) -> None:
    with serving(cli, "--no-auth") as (said, port):
        assert any("without authentication" in line for line in said)
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/sessions").json() == {"sessions": []}
    error, hint = cli.fails("serve", "--no-auth", "--host", "0.0.0.0")
    assert "everybody" in error
    assert "127.0.0.1" in hint
