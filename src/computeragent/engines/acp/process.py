"""The agent as a process of this machine: its pipes, its last words, and that nothing of it outlives its run."""

from __future__ import annotations

import asyncio
import codecs
import os
import secrets
import signal
from asyncio.subprocess import SubprocessStreamProtocol
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


class _Pipes(SubprocessStreamProtocol):
    """The streams, and when the program itself has ended: `wait` waits for whoever else has its pipes open, too."""

    def __init__(self) -> None:
        super().__init__(limit=_CHUNK, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class AgentProcess:
    """One run's process, in a group of its own. `start` first."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._mark = secrets.token_hex(8)
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._stderr = ""

    async def start(self) -> None:
        """Start it. Raises `EngineUnavailableError` where the program cannot be run."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, pipes = await loop.subprocess_exec(
                _Pipes,
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
        self._process, self._exited = asyncio.subprocess.Process(self._transport, pipes, loop), pipes.exited
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
        await self._exited.wait()
        assert self._process is not None
        return self._process.returncode or 0

    async def close(self, *, patience: float = _LEAVE) -> None:
        """End it and all that it started: it may leave by itself for `patience` seconds, once its stdin is closed."""
        process, transport = self._process, self._transport
        if process is None or transport is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if patience:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._exited.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # What left the group, such as a child with a session of its own, is found by its mark.
        await asyncio.to_thread(kill_marked, RUN_MARK, self._mark)
        await self._exited.wait()
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=_LEAVE)  # somebody without the mark may have it open
            self._listening.cancel()
        transport.close()

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
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        line = ""
        while chunk := await self._process.stderr.read(_CHUNK):
            text = decoder.decode(chunk)
            # A secret that is cut would not be known any more: twice as much is kept than is told, and lines are
            # logged whole.
            self._stderr = (self._stderr + text)[-2 * KEPT :]
            whole, end, line = (line + text).rpartition("\n")
            if end:
                _log.debug("stderr", text=self._launch.redacted(whole))
            line = line[-2 * KEPT :]
        if line:
            _log.debug("stderr", text=self._launch.redacted(line)[-KEPT:])
