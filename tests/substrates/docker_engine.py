"""A Docker engine of the tests' own: dockerd with its data in a temporary folder, and networks and mounts apart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from computeragent.errors import SubstrateError
from computeragent.substrates.container import Engine

_PATIENCE = 30.0


class NoEngineError(Exception):
    """No engine can be started here; says why."""


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a running engine. Raises `NoEngineError`."""
    program = shutil.which("dockerd")
    if program is None:
        raise NoEngineError("dockerd is not installed")
    if os.geteuid() != 0:
        raise NoEngineError("dockerd needs root")
    folder = Path(tempfile.mkdtemp(prefix="ca-dockerd-"))
    address = f"unix://{folder}/d.sock"
    # An engine changes the bridges and the firewall of the network that it is in.
    command = ["unshare", "--net", "--mount", program, "--data-root", folder / "data", "--exec-root", folder / "exec"]
    command += ["-p", folder / "pid", "-H", address]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(process, address, folder / "log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            Engine.connect(address).close()
        except SubstrateError as error:
            if process.poll() is not None or time.monotonic() > until:
                said = " / ".join(log.read_text("utf-8", "replace").splitlines()[-3:])
                raise NoEngineError(f"dockerd does not start here: {said or error}") from error
            time.sleep(0.1)
        else:
            return
