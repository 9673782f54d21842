"""The agent as a process of this machine: its pipes, its last words, and that nothing of it outlives its run."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from contextlib import suppress

from computeragent.engines.acp.launch import Launch
from computeragent.errors import EngineUnavailableError
from computeragent.logs import Logger
from computeragent.processes import kill_marked

RUN_MARK = "COMPUTERAGENT_RUN"
KEPT = 8_000
"""Characters of stderr that an error may carry."""

_CHUNK = 65_536
_LEAVE = 1.0
_log = Logger("engine.acp")


class AgentProcess:
    """One run's process, in a group of its own. `start` first."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._mark = secrets.token_hex(8)
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._stderr = ""

    async def start(self) -> None:
        """Start it. Raises `EngineUnavailableError` where the program cannot be run."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._launch.command,
                cwd=self._launch.cwd,
                env={**self._launch.environment, RUN_MARK: self._mark},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineUnavailableError(
                f"{self._launch.title} does not start: {error.strerror}",
                hint=f"Check that {self._launch.command[0]} is there and may be run.",
            ) from error
        self._listening = asyncio.create_task(self._listen())

    async def read(self) -> bytes:
        """The next bytes of stdout, none at the end."""
        assert self._process is not None
        assert self._process.stdout is not None
        return await self._process.stdout.read(_CHUNK)

    async def write(self, data: bytes) -> None:
        """Write to stdin. Raises `OSError` when nobody reads it any more."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def ended(self) -> int:
        """Wait until it has ended; its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def close(self, *, patience: float = _LEAVE) -> None:
        """End it and all that it started: it may leave by itself for `patience` seconds, once its stdin is closed."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if patience:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        # What left the group, such as a child with a session of its own, is found by its mark.
        await asyncio.to_thread(kill_marked, RUN_MARK, self._mark)
        if self._listening is not None:
            await self._listening

    async def last_words(self) -> str:
        """The end of what it said on stderr, without secrets; empty where it said nothing."""
        if self._process is not None and self._process.returncode is not None and self._listening is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._listening), _LEAVE)
        return self._launch.redacted(self._stderr).strip()[-KEPT:]

    def status(self) -> str:
        """How it ended, in words; empty while it lives."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return ""
        return f"it was killed by signal {-code}" if code < 0 else f"it exited with status {code}"

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(_CHUNK):
            text = chunk.decode("utf-8", "replace")
            # A secret that is cut by the bound would not be known any more: twice as much is kept than is told.
            self._stderr = (self._stderr + text)[-2 * KEPT :]
            _log.debug("stderr", text=self._launch.redacted(text))
