"""Programs and shell commands of a computer that is this machine: what they see of us, and that they end."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from computeragent.computer.types import CommandResult
from computeragent.errors import ComputerActionError
from computeragent.processes import kill_marked

MAX_OUTPUT = 1_000_000
"""Bytes kept of each of a command's two outputs."""
_COMMAND = "COMPUTERAGENT_COMMAND"
_DRAIN = 0.2  # seconds for what is in the pipe when a command has ended, and has left others running
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Of our own environment nothing but PATH, the user's name and the language: no keys, no tokens."""
    own = {name: os.environ[name] for name in ("USER", "LOGNAME", "TZ") if name in os.environ}
    path = os.environ.get("PATH") or _PATH
    return {"PATH": path, "SHELL": "/bin/sh", "LANG": "C.UTF-8", **own, "HOME": str(home), **extra}


class Programs:
    """Starts programs and commands with one environment, in one folder."""

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = dict(env)
        self._home = home
        self._started: set[asyncio.subprocess.Process] = set()

    async def launch(self, program: str, arguments: Sequence[str] = ()) -> None:
        """Start a program, in a session of its own, and go on. Raises `ComputerActionError` for one that is missing."""
        found = shutil.which(program, path=self._env["PATH"])
        if found is None:
            raise ComputerActionError(f"there is no program {program!r}", hint="It must be installed, and on PATH.")
        self._started = {each for each in self._started if each.returncode is None}
        self._started.add(await self._start([found, *arguments], asyncio.subprocess.DEVNULL, self._env))

    async def run_command(self, command: str, *, timeout: float = 60.0) -> CommandResult:
        """Run a shell command to its end. What it leaves in the background goes on; at the time limit nothing does."""
        mark = secrets.token_hex(8)
        outputs = [_Output(), _Output()]
        process: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(timeout):
                env = {**self._env, _COMMAND: mark}
                process = await self._start(["/bin/sh", "-c", command], outputs[0].inlet, env, outputs[1].inlet)
                for output in outputs:
                    await output.listen()
                await process.wait()
                await asyncio.wait([output.ended for output in outputs], timeout=_DRAIN)
                return CommandResult(outputs[0].text, outputs[1].text, process.returncode or 0)
        except BaseException as error:
            if process is not None:
                await asyncio.shield(_end(process, mark))
            if isinstance(error, TimeoutError):
                raise ComputerActionError(
                    f"the command was ended after {timeout:g} seconds", hint="Run it in the background, or wait longer."
                ) from None
            raise
        finally:
            for output in outputs:
                output.close()

    async def _start(
        self, command: list[str], stdout: int, env: Mapping[str, str], stderr: int | None = None
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout if stderr is None else stderr,
                env=env,
                cwd=self._home,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ComputerActionError(f"{command[0]} cannot be started: {error}") from None

    async def close(self) -> None:
        """Wait for what was launched, when it has been ended."""
        for process in self._started:
            with suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await process.wait()
        self._started.clear()


async def _end(process: asyncio.subprocess.Process, mark: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.to_thread(kill_marked, _COMMAND, mark)
    await process.wait()


class _Output:
    """A pipe that is read to its end, and of which the beginning is kept.

    Its own, and not asyncio's: a process counts as ended there only when its pipes are, which others may hold.
    """

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        self._open = True
        os.set_blocking(self._outlet, False)
        self._kept = bytearray()
        self._more = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def text(self) -> str:
        """What came, as text, cut where it is too long."""
        text = self._kept.decode("utf-8", "replace")
        return f"{text}\n[{self._more} more bytes]" if self._more else text

    async def listen(self) -> None:
        """The process has its end; close ours, and read."""
        os.close(self.inlet)
        self.inlet = -1
        asyncio.get_running_loop().add_reader(self._outlet, self._read)

    def close(self) -> None:
        """Stop reading."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._outlet)
            os.close(self._outlet)
            if self.inlet >= 0:
                os.close(self.inlet)

    def _read(self) -> None:
        try:
            data = os.read(self._outlet, 65536)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._outlet)
            if not self.ended.done():
                self.ended.set_result(None)
            return
        room = MAX_OUTPUT - len(self._kept)
        self._kept += data[:room]
        self._more += max(0, len(data) - room)
