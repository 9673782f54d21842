"""`SandboxProcess`: what `exec_remote` of our sandboxes returns."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from typing import Self

import anyio
from inspect_ai.util import ExecCompleted, ExecOutput, ExecRemoteProcess, ExecStderr, ExecStdout

from computeragent.swe.sandboxes.command import Command, Stream

KEPT = 10 * 1024**2
"""Characters of output that wait for a reader. Where nobody reads, the oldest go; a slow reader is waited for."""


class SandboxProcess(ExecRemoteProcess):
    """A running command: `ExecRemoteProcess` without polling. Iterate it for its output and its end."""

    def __init__(self, command: Command, *, stdin_open: bool, first_input: bytes | None = None) -> None:
        self._command = command
        self._stdin_open = stdin_open
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._events: deque[ExecStdout | ExecStderr] = deque()
        self._waiting = 0
        self._iterated = self._read = self._told = self._was_killed = False
        self._news = asyncio.Event()
        command.read(self._take)
        self._feeding = asyncio.ensure_future(self._feed(first_input))
        self._ending = asyncio.ensure_future(self._end())

    @property
    def pid(self) -> int:
        """The process id inside, which is its group's and its session's too."""
        return self._command.pid

    def __aiter__(self) -> Self:
        """Itself, once. Raises `RuntimeError` the second time."""
        if self._iterated:
            raise RuntimeError("a process can be iterated once")
        self._iterated = True
        return self

    async def __anext__(self) -> ExecOutput:
        """The next output, then its end. A caller that is cancelled ends the process."""
        self._read = True
        try:
            while True:
                if self._events:
                    event = self._events.popleft()
                    self._waiting -= len(event.data)
                    if self._waiting < KEPT // 2:
                        self._command.resume()
                    return event
                if self._was_killed or self._told:
                    raise StopAsyncIteration
                if self._ending.done():
                    self._told = True
                    return ExecCompleted(exit_code=self._ending.result())
                self._news.clear()
                await self._news.wait()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self.kill()
            raise

    async def write_stdin(self, data: str | bytes) -> None:
        """Write to its standard input. Raises `RuntimeError` when that is not open, or the process has ended."""
        self._require_open()
        if self._was_killed or self._command.exit_code is not None:
            raise RuntimeError("Cannot write to stdin: process has terminated")
        await asyncio.shield(self._feeding)
        try:
            await self._command.write(data.encode() if isinstance(data, str) else data)
        except BrokenPipeError as error:
            raise RuntimeError("Cannot write to stdin: it is closed") from error

    async def close_stdin(self) -> None:
        """End its standard input; does nothing the second time. Raises `RuntimeError` when it was never open."""
        self._require_open()
        await asyncio.shield(self._feeding)
        self._command.close_stdin()

    async def kill(self) -> None:
        """End it with all that descends from it; does nothing when it has ended. Returns when they are gone."""
        if self._was_killed or self._ending.done():
            return
        self._was_killed = True
        await self._command.kill()
        await asyncio.wait({self._ending})
        self._news.set()

    def _require_open(self) -> None:
        if not self._stdin_open:
            raise RuntimeError("write_stdin() and close_stdin() need stdin_open=True in ExecRemoteStreamingOptions")

    async def _feed(self, first: bytes | None) -> None:
        try:
            await self._command.write(first or b"")
        except BrokenPipeError:
            return
        if not self._stdin_open:
            self._command.close_stdin()

    async def _end(self) -> int:
        code = await self._command.finished()
        for name in ("stdout", "stderr"):
            self._add(name, self._decoders[name].decode(b"", final=True))
        self._command.let_go()
        self._news.set()
        return code

    def _take(self, stream: Stream, data: bytes) -> None:
        self._add(stream, self._decoders[stream].decode(data))

    def _add(self, stream: Stream, text: str) -> None:
        if not text:
            return
        self._events.append(ExecStdout(text) if stream == "stdout" else ExecStderr(text))
        self._waiting += len(text)
        if self._waiting > KEPT:
            if self._read:
                self._command.pause()
            else:
                while self._waiting > KEPT:
                    self._waiting -= len(self._events.popleft().data)
        self._news.set()
