"""A real Redis server of a test's own, on a Unix socket, which can be killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class RedisServer:
    """`url` is where it is; `stop` kills it, `start` starts it again on what it had written."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)]
        self._command += ["--save", "", *settings]
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it; returns when it takes commands."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while self._answer("ping") != "PONG":
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.005)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str) -> str:
        """Do something behind everybody's back; the answer as redis-cli shows it."""
        return self._answer(*words)

    def _answer(self, *words: str) -> str:
        command = ["redis-cli", "-s", str(self.socket), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def require_redis() -> None:
    """Skip where there is no Redis server; in CI that is a failure."""
    if shutil.which("redis-server") and shutil.which("redis-cli"):
        return
    reason = "redis-server is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running_redis(*settings: str) -> Iterator[RedisServer]:
    """A server while the block runs. The folder's name is short: socket paths may have 107 bytes."""
    require_redis()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), *settings)
        try:
            yield server
        finally:
            server.stop()
