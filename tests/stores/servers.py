"""Database servers of the tests' own, gone with them: a PostgreSQL, and a stand-in for MongoDB."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: float(each.parent.name))
    return shutil.which(name) or next((str(each / name) for each in reversed(versions) if (each / name).exists()), None)


class Postgres:
    """A running server."""

    def __init__(self, folder: Path, server: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.server = server

    def url(self, schema: str) -> str:
        """Where a schema of its own is."""
        self.sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        return f"postgresql://postgres@/postgres?host={self.folder}&search_path={schema}"

    def sql(self, statement: str) -> str:
        """What a statement prints."""
        command = ["psql", "-h", str(self.folder), "-U", "postgres", "-Atqc", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start one, as a user that is not root. Skips where none is installed; in CI that fails."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ca-pg-"))
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres", "postgres")
    data = str(folder / "data")
    try:
        subprocess.run(
            [*user, initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=folder,
        )
        options = [
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=",
            "-c",
            "max_connections=400",
            "-c",
            f"unix_socket_directories={folder}",
        ]
        log = (folder / "log").open("wb")
        with (
            log,
            subprocess.Popen([*user, server, "-D", data, *options], stdout=log, stderr=log, cwd=folder) as running,
        ):
            made = Postgres(folder, running)
            for _ in range(200):
                try:
                    made.sql("SELECT 1")
                    break
                except subprocess.CalledProcessError:
                    time.sleep(0.05)
            try:
                yield made
            finally:
                running.send_signal(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mongo() -> Iterator[str]:
    """The address of a `mongo_wire` in a process of its own."""
    program = Path(__file__).with_name("mongo_wire.py")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield f"mongodb://127.0.0.1:{int(running.stdout.readline())}"
        finally:
            running.kill()
