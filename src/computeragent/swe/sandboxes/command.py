"""A command that runs in a sandbox, as the host holds it: its pipes, its end, and how it is ended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

_CHUNK = 1 << 16
_KILL_WITHIN = 15.0
_LONGEST_LINE = 1 << 16
_QUIET = 0.5  # seconds without output, when what a command left behind holds its pipes
_PATIENCE = 2.0
KILLED = 137
"""The exit code of what was killed, as shells have it."""

Stream = Literal["stdout", "stderr"]


class Command:
    """A command in a sandbox. Its output is read all the time, and goes to `sink`.

    `exit_code` is None while it runs, and above 128 for a signal, as shells have it.
    """

    def __init__(self, warden: socket.socket, stdin: int | None, streams: Mapping[int, Stream]) -> None:
        self.pid = 0
        self.exit_code: int | None = None
        self.sink: Callable[[Stream, bytes], None] = _nowhere
        self._warden = warden
        self._stdin = stdin
        self._said = bytearray()
        self._first: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._exited, self._drained, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._amount = 0
        self._writing = asyncio.Lock()
        self._streams = dict(streams)
        if not streams:
            self._drained.set()
        self._paused, self._wanted = False, True
        self._loop = asyncio.get_running_loop()
        warden.setblocking(False)
        self._loop.add_reader(warden, self._listen)
        for each in self._streams:
            os.set_blocking(each, False)
        if stdin is not None:
            os.set_blocking(stdin, False)

    async def first(self) -> dict[str, Any] | None:
        """Whether it has started; None when the sandbox has ended."""
        said = await self._first
        if said is not None:
            self.pid = said.get("pid", 0)
        return said

    def read(self, sink: Callable[[Stream, bytes], None]) -> None:
        """Give all output to `sink` from now on."""
        self.sink = sink
        self._resume()

    def pause(self) -> None:
        """Let output wait in the pipes."""
        if not self._paused:
            self._paused = True
            for each in self._streams:
                self._loop.remove_reader(each)

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        for each in self._streams:
            self._loop.add_reader(each, self._take, each)

    async def write(self, data: bytes) -> None:
        """Write to its standard input, all of it. Raises `BrokenPipeError` when it is closed at either end."""
        async with self._writing:
            rest = memoryview(data)
            while rest:
                if self._stdin is None or self.exit_code is not None:
                    raise BrokenPipeError("standard input is closed")
                try:
                    rest = rest[os.write(self._stdin, rest[:_CHUNK]) :]
                except BlockingIOError:
                    await self._writable(self._stdin)

    def close_stdin(self) -> None:
        """End its standard input."""
        if self._stdin is not None:
            stdin, self._stdin = self._stdin, None
            self._loop.remove_writer(stdin)
            os.close(stdin)
            self._wake_writer()

    async def finished(self) -> int:
        """Wait for its end and its output; the exit code.

        Output that ends later, because what it left behind holds the pipe, is waited for a moment only.
        """
        await self._exited.wait()
        end = self._loop.time() + _PATIENCE
        while not self._drained.is_set() and self._loop.time() < end:
            amount = self._amount
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), _QUIET)
            if self._paused:
                end = self._loop.time() + _PATIENCE  # what is printed waits for its reader
            elif self._amount == amount:
                break
        assert self.exit_code is not None
        return self.exit_code

    @property
    def closed(self) -> bool:
        """Whether nothing of it is held any more."""
        return self._warden.fileno() < 0

    def stop(self) -> None:
        """Have it ended with all that descends from it."""
        with suppress(OSError):
            self._warden.send(b"k")

    async def kill(self) -> None:
        """End it with all that descends from it; returns when they are gone."""
        self.close_stdin()
        self.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _KILL_WITHIN)
        self.close()

    def abandon(self) -> None:
        """End it, without waiting."""
        self.stop()
        self.close()

    def let_go(self) -> None:
        """Nobody wants its output any more; what it has left behind may go on, and write."""
        self.close_stdin()
        self.sink = _nowhere
        self._wanted = False
        self.resume()
        self._close_if_over()

    def close(self) -> None:
        """Close all that the host holds of it."""
        self.close_stdin()
        for each in list(self._streams):
            self._end_of(each)
        if self._warden.fileno() >= 0:
            self._loop.remove_reader(self._warden)
            self._warden.close()
        self._lost()

    def _close_if_over(self) -> None:
        if not self._wanted and self._exited.is_set() and self._drained.is_set():
            self.close()

    def _take(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end_of(descriptor)
            return
        self._amount += len(data)
        self.sink(self._streams[descriptor], data)

    def _end_of(self, descriptor: int) -> None:
        if self._streams.pop(descriptor, None) is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        if not self._streams:
            self._drained.set()
            self._close_if_over()

    def _listen(self) -> None:
        try:
            data = self._warden.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        try:
            while (end := self._said.find(b"\n")) >= 0:
                message: dict[str, Any] = json.loads(self._said[:end])
                del self._said[: end + 1]
                if "exit" in message:
                    self._ended(int(message["exit"]))
                if "killed" in message:
                    self._gone.set()
                if not self._first.done():
                    self._first.set_result({**message})
        except (ValueError, TypeError, RecursionError):
            data = b""  # no warden speaks like that: the sandbox's root has made it another program
        if not data or len(self._said) > _LONGEST_LINE:
            self._loop.remove_reader(self._warden)
            self._lost()
            self._close_if_over()

    def _lost(self) -> None:
        """The warden is gone, with the sandbox or because the command has killed it."""
        if not self._first.done():
            self._first.set_result(None)
        self._ended(KILLED)
        self._gone.set()

    def _ended(self, code: int) -> None:
        if self.exit_code is None:
            self.exit_code = code
            self._exited.set()
            self._wake_writer()

    async def _writable(self, descriptor: int) -> None:
        self._waiting: asyncio.Future[None] | None = self._loop.create_future()
        self._loop.add_writer(descriptor, self._wake_writer)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if self._stdin is not None:
                self._loop.remove_writer(self._stdin)

    _waiting = None

    def _wake_writer(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def _nowhere(stream: Stream, data: bytes) -> None:
    """What nobody wants."""
