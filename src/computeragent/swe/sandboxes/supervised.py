"""`SupervisedSandbox`: Inspect's interface on a supervisor inside. What the sandbox is made of, its children know."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self, overload

import anyio
import anyio.to_thread
from inspect_ai.util import (
    ExecRemoteAwaitableOptions,
    ExecRemoteProcess,
    ExecRemoteStreamingOptions,
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentLimits,
    registry_info,
)

from computeragent.errors import UnsupportedRuntimeError, ValidationError
from computeragent.swe.sandboxes.boot import Booted
from computeragent.swe.sandboxes.command import Command, Stream
from computeragent.swe.sandboxes.control import UnknownUserError
from computeragent.swe.sandboxes.process import SandboxProcess
from computeragent.swe.sandboxes.shells import Shells
from computeragent.swe.sandboxes.types import OwnSandbox, SandboxConfig, read_config

CWD = "/workspace"
INSIDE = Path(__file__).parent / "inside"
_PROFILE = 'if [ -n "$BASH_VERSION" ] && [ -f ~/.bashrc ]; then . ~/.bashrc; fi\n'
_NOT_FOUND, _NOT_STARTED = 127, 126


class SupervisedSandbox(OwnSandbox):
    """A sandbox whose first process is our supervisor."""

    def __init__(self, booted: Booted, *, home: str) -> None:
        super().__init__()
        self.home = home
        self.cwd = CWD
        self._booted = booted
        self._control = booted.control
        self._commands: set[Command] = set()
        self._shells: dict[str | None, Shells] = {}

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002 - Inspect's name
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a command. See `SandboxEnvironment.exec`.

        A command that prints more than the limit is ended, with `OutputLimitExceededError`. What it leaves running in
        the background goes on.
        """
        data = input.encode() if isinstance(input, str) else input
        started = await self._start(cmd, cwd, env, user, stdin=data is not None)
        if not isinstance(started, Command):
            return started
        output = _Output(started, SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE)
        result = await _run(started, output, data, timeout)
        if output.exceeded:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, output.both)
        return result

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, as the sandbox's own user. See `SandboxEnvironment.write_file`."""
        data = contents.encode() if isinstance(contents, str) else contents
        descriptor = await self._control.open(file, cwd=self.cwd, write=True)
        await anyio.to_thread.run_sync(_write, descriptor, data)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Read a file, as the sandbox's own user. See `SandboxEnvironment.read_file`."""
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        descriptor = await self._control.open(file, cwd=self.cwd, write=False)
        data = await anyio.to_thread.run_sync(_read, descriptor, limit)
        if data is None:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return data.decode("utf-8") if text else data

    @overload
    async def exec_remote(
        self, cmd: list[str], options: ExecRemoteStreamingOptions | None = None, *, stream: Literal[True] = True
    ) -> ExecRemoteProcess: ...

    @overload
    async def exec_remote(
        self, cmd: list[str], options: ExecRemoteAwaitableOptions | None = None, *, stream: Literal[False]
    ) -> ExecResult[str]: ...

    async def exec_remote(
        self,
        cmd: list[str],
        options: ExecRemoteStreamingOptions | ExecRemoteAwaitableOptions | None = None,
        *,
        stream: bool = True,
    ) -> ExecRemoteProcess | ExecResult[str]:
        """Start a command; see `SandboxEnvironment.exec_remote`. Nothing is installed for it, and nothing polls.

        Raises `FileNotFoundError` and `PermissionError` for a program that cannot be started, when it streams.
        """
        given: Any = options or ExecRemoteStreamingOptions()
        stdin_open = stream and isinstance(given, ExecRemoteStreamingOptions) and given.stdin_open
        first = given.input.encode() if isinstance(given.input, str) else given.input
        started = await self._start(cmd, given.cwd, given.env, given.user, stdin=stdin_open or first is not None)
        if not stream:
            if not isinstance(started, Command):
                return started
            output = _Output(started, SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE, tail=True)
            return await _run(started, output, first, getattr(given, "timeout", None))
        if not isinstance(started, Command):
            number = errno.ENOENT if started.returncode == _NOT_FOUND else errno.EACCES
            raise OSError(number, started.stderr.strip(), cmd[0])
        return SandboxProcess(started, stdin_open=stdin_open, first_input=first)

    async def listener(self, port: int = 0) -> socket.socket:
        """See `OwnSandbox.listener`."""
        return await self._control.listen(port)

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """How a person gets a shell inside: a command for this machine's terminal, good until the sandbox ends.

        Raises `SandboxUserUnsupportedError` for a user that cannot be had.
        """
        user = self._check_user(user)
        if user not in self._shells:
            await self._ensure_profile()
        if user not in self._shells:  # nor by another caller, meanwhile
            self._shells[user] = Shells(self._control, cwd=self.cwd, user=user)
        kind = registry_info(type(self)).name.rpartition("/")[2]
        return SandboxConnection(type=kind, command=self._shells[user].command)

    def default_polling_interval(self) -> float:
        """Seconds between looks of Inspect's own services."""
        return 0.2

    @classmethod
    def default_concurrency(cls) -> int | None:
        """How many sandboxes run at once, unless `max_sandboxes` says otherwise."""
        return 2 * (os.cpu_count() or 1)

    @classmethod
    @abstractmethod
    async def start(cls, config: SandboxConfig) -> Self:
        """A running sandbox. Raises `SubstrateError` where none can be made, `ValidationError` for a bad `bind`."""
        ...

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: dict[str, str]) -> dict[str, SandboxEnvironment]:
        """One sandbox for a sample.

        Raises `ValidationError` for a configuration that is none of ours, `UnsupportedRuntimeError` under trio.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            hint = "Leave INSPECT_ASYNC_BACKEND out, or set it to asyncio."
            raise UnsupportedRuntimeError("these sandboxes run on asyncio", hint=hint) from error
        return {"default": await cls.start(await asyncio.to_thread(read_config, config))}

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> SandboxConfig:
        """A configuration from a log."""
        return SandboxConfig(**config)

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, SandboxEnvironment], interrupted: bool
    ) -> None:
        """End the sandboxes, and all that runs in them."""
        for each in environments.values():
            await each.as_type(SupervisedSandbox).close()

    async def close(self) -> None:
        """End it."""
        for each in self._shells.values():
            await each.close()
        self._control.close()
        for each in self._commands:
            each.close()
        await self._booted.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_user(self, user: str | None) -> str | None:
        """The user for the supervisor. Raises `SandboxUserUnsupportedError` for one that cannot be had."""
        return user

    async def _ensure_profile(self) -> None:
        """A login shell reads no .bashrc by itself; Inspect, and people, write there what their shell shall know."""
        profile = f"{self.home}/.profile"
        if not (await self.exec(["/usr/bin/test", "-e", profile])).success:
            await self.write_file(profile, _PROFILE)

    async def _start(
        self, cmd: list[str], cwd: str | None, env: Mapping[str, str] | None, user: str | None, *, stdin: bool
    ) -> Command | ExecResult[str]:
        """A running command; or, of a program or user that is not there, what a shell would say."""
        if not cmd:
            raise ValidationError("a command needs a program", hint='Such as ["ls", "-l"].')
        user = self._check_user(user)
        folder = os.path.join(self.cwd, cwd) if cwd else self.cwd  # noqa: PTH118 - a path inside
        try:
            command = await self._control.spawn(cmd, cwd=folder, env=env or {}, user=user, stdin=stdin)
        except UnknownUserError as error:
            return ExecResult(False, _NOT_STARTED, "", f"unable to find user {error}: no such user in the sandbox\n")
        except FileNotFoundError as error:
            if error.filename == folder:
                raise
            return ExecResult(False, _NOT_FOUND, "", f"{cmd[0]}: command not found\n")
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.EAGAIN, errno.ENOMEM):
                raise
            return ExecResult(False, _NOT_STARTED, "", f"{cmd[0]}: {error.strerror}\n")
        self._commands = {each for each in self._commands if not each.closed} | {command}
        return command


class _Output:
    """What a command prints. Of a stream longer than `limit`, the oldest bytes go (`tail`), or the command is ended."""

    def __init__(self, command: Command, limit: int, *, tail: bool = False) -> None:
        self._command = command
        self._limit = limit
        self._tail = tail
        self._parts: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.exceeded = False

    def take(self, stream: Stream, data: bytes) -> None:
        """Keep it."""
        part = self._parts[stream]
        part += data
        if len(part) <= self._limit:
            return
        if self._tail:
            del part[: len(part) - self._limit]
        else:
            del part[self._limit :]
            self.exceeded = True
            self._command.stop()

    def text(self, stream: Stream) -> str:
        """A stream, whatever is no text replaced."""
        return self._parts[stream].decode("utf-8", "replace")

    @property
    def both(self) -> str:
        """Both streams."""
        return self.text("stdout") + self.text("stderr")


async def _run(command: Command, output: _Output, data: bytes | None, timeout: float | None) -> ExecResult[str]:
    """Wait for a command. It is ended, with all that descends from it, when that takes too long or is cancelled."""
    command.read(output.take)
    try:
        with anyio.fail_after(timeout):
            if data is not None:
                with suppress(BrokenPipeError):
                    await command.write(data)
                command.close_stdin()
            code = await command.finished()
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await command.kill()
        if isinstance(error, TimeoutError):
            late = TimeoutError(f"the command did not end in {timeout} s")
            late.truncated_output = output.both  # pyright: ignore[reportAttributeAccessIssue] - Inspect looks for it
            raise late from None
        raise
    command.let_go()
    return ExecResult(code == 0, code, output.text("stdout"), output.text("stderr"))


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]


def _read(descriptor: int, limit: int) -> bytes | None:
    """All of a file; None when that is more than the limit."""
    with open(descriptor, "rb", buffering=0) as file:
        data = file.read(limit + 1) or b""
        while data and len(data) <= limit and (more := file.read(limit + 1 - len(data))):
            data += more
    return data if len(data) <= limit else None
