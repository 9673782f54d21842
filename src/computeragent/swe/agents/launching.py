"""How a program is started in a sandbox: natively where it can be, with the whole of its processes ended on cancel.

Our own providers do it themselves (`exec_remote`); for Inspect's `local` it is done here; all others use Inspect's way.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import uuid
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self
from weakref import WeakKeyDictionary, finalize

import anyio
from inspect_ai.util import (
    ExecCompleted,
    ExecOutput,
    ExecRemoteStreamingOptions,
    ExecStderr,
    ExecStdout,
    SandboxEnvironment,
    SandboxUserUnsupportedError,
)

from computeragent.errors import CliFailedError
from computeragent.processes import kill_marked
from computeragent.swe.sandboxes.types import is_local, own, unwrapped

MARK = "COMPUTERAGENT_SWE_RUN"
MARK_OF_SAMPLE = "COMPUTERAGENT_SWE_SAMPLE"
"""The variables by which the processes of a launch, and of a sample, are found again in `local`."""

PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a program in `local` has of this process's environment: no key of a provider is among it."""

KEPT = 64 * 1024
"""Characters of each output that are kept, from its end."""

_CHUNK = 64 * 1024
_DRAIN = 0.5  # seconds without output, after a program's end, that somebody in the background holds its pipes
_marks: WeakKeyDictionary[SandboxEnvironment, str] = WeakKeyDictionary()
_NO_STDIN = ("/bin/sh", "-c", 'exec 0</dev/null; exec "$@"', "sh")


class Process(Protocol):
    """A running program: its output and its end by iterating once, as Inspect's `ExecRemoteProcess`."""

    @property
    def pid(self) -> int:
        """Its number in the sandbox."""
        ...

    def __aiter__(self) -> AsyncIterator[ExecOutput]: ...

    async def write_stdin(self, data: str | bytes) -> None:
        """Write to its input; it must have been started with `stdin`."""
        ...

    async def close_stdin(self) -> None:
        """End its input."""
        ...

    async def kill(self) -> None:
        """End it, and all that it started."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended: its exit status (below zero: by a signal), and the ends of its outputs."""

    status: int
    stdout: str
    stderr: str


async def start(
    sandbox: SandboxEnvironment,
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    user: str | None = None,
    given: str = "",
    stdin: bool = False,
) -> Process:
    """Start a program; `given` is its input, and with `stdin` more can be written to it.

    Cancelling who iterates it, or `kill`, ends all that it started. What it leaves in the background when it ends by
    itself goes on until the end of the sample.
    """
    inner = unwrapped(sandbox)
    if is_local(inner):
        await _allowed(inner, user)
        marked = {**env, MARK_OF_SAMPLE: _mark(inner)}
        return await LocalProcess.start(command, cwd=cwd, env=marked, given=given, stdin=stdin)
    if not (stdin or given or own(inner) is not None):
        command = (*_NO_STDIN, *command)
    options = ExecRemoteStreamingOptions(
        cwd=cwd, env=dict(env), user=user, input=given or None, stdin_open=stdin, concurrency=False
    )
    try:
        # Inspect's way needs Inspect's wrapper.
        return await (inner if own(inner) is not None else sandbox).exec_remote(list(command), options)
    except OSError as error:
        raise _does_not_start(command, error) from error


def _does_not_start(command: Sequence[str], error: OSError) -> CliFailedError:
    return CliFailedError(
        f"{command[0]} does not start: {error.strerror or error}",
        hint="Look whether the program and the folder exist; a prompt may have 128 KB where it is an argument.",
    )


async def run(process: Process, tell: Callable[[str, str], None] = lambda _name, _text: None) -> Ended:
    """Wait for a program's end. `tell` is called with the name of an output and what came of it."""
    kept = {"stdout": "", "stderr": ""}
    try:
        async for event in process:
            if isinstance(event, ExecCompleted):
                return Ended(status=event.exit_code, **kept)
            name = "stdout" if isinstance(event, ExecStdout) else "stderr"
            kept[name] = (kept[name] + event.data)[-KEPT:]
            tell(name, event.data)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await process.kill()
        raise
    raise CliFailedError("the program was ended from outside", hint="Look at what else was done to the sandbox.")


def _mark(inner: SandboxEnvironment) -> str:
    if inner not in _marks:
        _marks[inner] = uuid.uuid4().hex
        finalize(inner, kill_marked, MARK_OF_SAMPLE, _marks[inner])
    return _marks[inner]


async def _allowed(inner: SandboxEnvironment, user: str | None) -> None:
    if user is not None:
        done = await inner.exec(["true"], user=user)  # raises where the provider does not know how
        if not done.success:
            raise SandboxUserUnsupportedError(f"the sandbox cannot run anything as {user}")


class LocalProcess:
    """A program on this machine, in a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: asyncio.SubprocessTransport, mark: str) -> None:
        self._process = process
        self._pipes = pipes
        self._mark = mark
        self._events: asyncio.Queue[ExecOutput | None] = asyncio.Queue(256)
        self._readers = [
            asyncio.create_task(self._read(process.stdout, ExecStdout)),
            asyncio.create_task(self._read(process.stderr, ExecStderr)),
        ]
        self._waiter = asyncio.create_task(self._wait())
        self._ended = False

    @classmethod
    async def start(
        cls, command: Sequence[str], *, cwd: str, env: Mapping[str, str], given: str = "", stdin: bool = False
    ) -> Self:
        """Start it with the variables of `PASSED` and `env`. Raises `CliFailedError` when it does not start."""
        mark = uuid.uuid4().hex
        passed = {name: os.environ[name] for name in PASSED if name in os.environ}
        loop = asyncio.get_running_loop()
        try:
            pipes, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=_CHUNK, loop=loop),
                *command,
                cwd=cwd,
                env={"PATH": os.defpath, **passed, **env, MARK: mark},
                stdin=asyncio.subprocess.PIPE if stdin or given else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise _does_not_start(command, error) from error
        started = cls(asyncio.subprocess.Process(pipes, protocol, loop), pipes, mark)
        if given:
            started.give(given, more=stdin)
        return started

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ExecOutput:
        try:
            event = await self._events.get()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self.kill()
            raise
        if event is None:
            self._events.put_nowait(None)
            raise StopAsyncIteration
        return event

    def give(self, text: str, *, more: bool) -> None:
        """Have a text written to its input as it reads, and its input ended unless there is `more`."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(text.encode())
        if not more:
            pipe.close()

    async def write_stdin(self, data: str | bytes) -> None:
        """Write to its input. Raises `RuntimeError` when it has none, or has ended."""
        pipe = self._process.stdin
        if pipe is None or self._process.returncode is not None:
            raise RuntimeError("the program has no input, or has ended")
        pipe.write(data.encode() if isinstance(data, str) else data)
        try:
            await pipe.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeError("the program has closed its input") from error

    async def close_stdin(self) -> None:
        """End its input."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def kill(self) -> None:
        """End it and all that it started."""
        if self._ended:
            return
        self._ended = True
        self._waiter.cancel()
        self._kill_group()
        await self._exit()
        # What left the group: programs that a shell tool of an agent has put in the background.
        await asyncio.to_thread(kill_marked, MARK, self._mark)
        for task in self._readers:
            task.cancel()
        await asyncio.gather(self._waiter, *self._readers, return_exceptions=True)
        self._pipes.close()
        while self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(None)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _exit(self) -> int:
        # Not `wait`: that waits for whoever in the background has the outputs open, too.
        with suppress(ProcessLookupError):
            fd, exited = os.pidfd_open(self._process.pid), asyncio.Event()
            asyncio.get_running_loop().add_reader(fd, exited.set)
            try:
                await exited.wait()
            finally:
                asyncio.get_running_loop().remove_reader(fd)
                os.close(fd)
        while self._process.returncode is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)  # asyncio collects it
        return self._process.returncode

    async def _wait(self) -> None:
        status = await self._exit()
        unread = set(self._readers)
        while unread:
            _, unread = await asyncio.wait(unread, timeout=_DRAIN)
            if not self._events.full():
                break
        for task in unread:
            task.cancel()
        self._pipes.close()
        await self._events.put(ExecCompleted(exit_code=status))
        await self._events.put(None)

    async def _read(self, pipe: asyncio.StreamReader | None, kind: type[ExecStdout] | type[ExecStderr]) -> None:
        assert pipe is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := await pipe.read(_CHUNK):
            text = decoder.decode(data)
            if text:
                await self._events.put(kind(data=text))
        if rest := decoder.decode(b"", final=True):
            await self._events.put(kind(data=rest))
