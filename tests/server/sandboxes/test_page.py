"""The page of the docs, line by line, against `computeragent serve --kind sandboxes` as a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "sandbox-server.md"


def test_the_pages_lines_for_curl_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "API_AUTH_USER": "agentos", "API_AUTH_PASS": "a-password"}
    process = subprocess.Popen(
        [sys.executable, "-m", "computeragent", "serve", "--kind", "sandboxes", "--port", str(port)],
        env=env,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while "try:" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        token = re.search(r"Bearer (\S+)'", said)
        assert token is not None
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        url = f"http://127.0.0.1:{port}"
        assert httpx2.get(f"{url}/tasks").status_code == 401
        assert httpx2.get(f"{url}/tasks", auth=("agentos", "a-password")).json() == {"tasks": []}
        assert httpx2.get(f"{url}/tasks", auth=("agentos", "wrong")).status_code == 401
        if shutil.which("curl") is None:
            pytest.fail("this test needs curl")
        (script,) = re.findall(r"```sh\n(auth=.*?)```", PAGE.read_text(), re.DOTALL)
        done = subprocess.run(
            ["sh", "-euc", script],
            env={**os.environ, "URL": url, "TOKEN": token[1]},
            capture_output=True,
            text=True,
            timeout=40,
            check=True,
        )
        assert done.stdout.count("event: ca_done") == 3
        assert "event: ca_error" not in done.stdout
        assert '"nextSince"' in done.stdout
        assert "milk" in done.stdout
        assert '"restored":true' in done.stdout
        assert '"error":{' not in done.stdout
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode in {0, 130, -2}
    assert list((Path(os.environ["COMPUTERAGENT_HOME"])).glob("sandboxes/*/work/*/*")) == []


def test_without_authentication_it_serves_loopback_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "computeragent", "serve", "--kind", "sandboxes", "--no-auth", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "error[VALIDATION]" in done.stderr
