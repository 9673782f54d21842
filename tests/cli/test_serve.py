"""`computeragent serve`: a token of its own, a line that works when it is pasted, and a clean end."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from .conftest import Cli


@contextmanager
def serving(cli: Cli, *args: str, port: int = 0, end: int = signal.SIGINT) -> Iterator[tuple[list[str], int]]:
    """A server that is ready: what it said, and its port. In the end it gets the signal `end`."""
    if not port:
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
        run.send_signal(end)
        run.communicate(timeout=20)
    assert run.returncode in {0, 130, -end}


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


def test_a_port_that_is_taken_is_an_error_and_nothing_is_announced(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for kind in ("harness", "sandboxes"):
            error, hint = cli.fails("serve", "--kind", kind, "--port", str(taken.getsockname()[1]))
            assert "cannot listen on 127.0.0.1" in error
            assert "--port" in hint


def test_any_free_port_is_announced(cli: Cli) -> None:
    run = cli.start("serve", "--port", "0", "--no-auth")
    try:
        assert run.stderr is not None
        found = re.search(r"harness on (http://127.0.0.1:(\d+))", run.stderr.readline().decode())
        assert found is not None
        assert int(found[2])
        assert httpx2.get(f"{found[1]}/health").json()["ok"]
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_stopped_ends_its_runs_and_their_streams(cli: Cli, signalled: int) -> None:
    body = {
        "source": {"type": "inline", "manifest": {"name": "a"}},
        "harness": "scripted",
        "options": {"script": [[{"text": "one"}, {"delay": 600}]]},
        "message": "go",
    }
    run = cli.start("serve", "--port", "0", "--no-auth")
    assert run.stderr is not None
    url = run.stderr.readline().decode().split()[2].rstrip(",")
    said = b""
    with httpx2.stream("POST", f"{url}/v1/sessions", json=body, timeout=30) as stream:
        for chunk in stream.iter_bytes():
            if b'"one"' in chunk and b'"one"' not in said:
                run.send_signal(signalled)
            said += chunk
    assert b'"kind":"ca_session_ended"' in said
    assert b'"reason":"cancelled"' in said
    _, told = run.communicate(timeout=20)
    assert b"Traceback" not in told
    assert b"ERROR" not in told


def test_it_lets_in_whom_the_control_plane_vouches_for(cli: Cli) -> None:
    with introspecting() as url:
        cli.env["AGENTOS_INTROSPECTION_SECRET"] = "of-the-service"
        with serving(cli, "--introspect", url) as (said, port):
            assert "of-the-service" not in "".join(said)
            place = f"http://127.0.0.1:{port}/v1/sessions"
            for token, status in (("cak_good", 200), ("cak_other", 401)):
                assert httpx2.get(place, headers={"authorization": f"Bearer {token}"}).status_code == status


def test_introspection_without_its_secret_does_not_start(cli: Cli) -> None:
    told = cli.fails("serve", "--introspect", "http://127.0.0.1:1/introspect")
    assert "AGENTOS_INTROSPECTION_SECRET" in told[1]


@contextmanager
def introspecting() -> Iterator[str]:
    """A control plane that knows one key."""

    class Plane(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            key = json.loads(self.rfile.read(int(self.headers["content-length"])))["key"]
            known = self.headers["authorization"] == "Bearer of-the-service" and key == "cak_good"
            self.send_response(200)
            self.end_headers()
            answer = {"active": True, "principal": "p", "permissions": ["agents:run"]} if known else {"active": False}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Plane) as plane:
        threading.Thread(target=plane.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{plane.server_port}/introspect"
        plane.shutdown()


def test_agents_run_in_jails_where_it_is_told_to(cli: Cli) -> None:
    with serving(cli, "--runtime", "bwrap", "--pool", "1") as (said, _):
        line = next(line for line in said if line.startswith("try:")).removeprefix("try: ")
        body = {"source": {"type": "inline", "manifest": {"name": "a"}}, "harness": "scripted", "message": "Hi"}
        answer = paste(line, json.dumps(body))
        assert "You said: Hi" in answer
        assert '"reason":"complete"' in answer
    refused = cli("serve", "--port", "0", "--runtime", "local", "--pool", "2")
    assert refused.returncode == 1
    assert "pool" in refused.stderr
