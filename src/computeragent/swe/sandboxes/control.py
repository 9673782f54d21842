"""The host's end of a sandbox's supervisor: asks it to start commands, to open files and listeners."""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import anyio
from inspect_ai.util import SandboxUnavailableError

from computeragent.swe.sandboxes.command import Command

_ANSWER_WITHIN = 60.0
_DESCRIPTORS = 4


class UnknownUserError(Exception):
    """The sandbox has no such user."""


class Control:
    """A connection to a supervisor. One request at a time; a caller that is cancelled leaves it in order."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._turn = asyncio.Lock()
        self._text = bytearray()
        self._descriptors: list[int] = []
        self._closed = False

    async def ready(self) -> bool:
        """Wait for its first words; False when it hangs up instead."""
        return await self._receive() is not None

    async def spawn(
        self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], user: str | None, stdin: bool
    ) -> Command:
        """Start a command, with a pipe as its standard input or none.

        Raises `UnknownUserError`, and `OSError` for a program or folder that cannot be used.
        """
        message = {"do": "spawn", "argv": list(argv), "cwd": cwd, "env": dict(env), "user": user, "stdin": stdin}
        return await self._apart(self._spawn(message), lambda command: command.abandon())

    async def spawn_in_terminal(self, argv: Sequence[str], *, cwd: str, user: str | None) -> tuple[Command, int]:
        """Start a command in a terminal of its own; it, and the terminal's other end. Raises as `spawn` does."""
        message: dict[str, Any] = {
            "do": "spawn",
            "argv": list(argv),
            "cwd": cwd,
            "env": {},
            "user": user,
            "stdin": True,
        }

        async def both() -> tuple[Command, int]:
            outer, inner = await self._descriptors_of({"do": "terminal"}, "a terminal")
            try:
                return await self._spawn({**message, "terminal": True}, terminal=inner), outer
            except BaseException:
                os.close(outer)
                raise
            finally:
                os.close(inner)

        def discard(made: tuple[Command, int]) -> None:
            made[0].abandon()
            os.close(made[1])

        return await self._apart(both(), discard)

    async def open(self, path: str, *, cwd: str, write: bool) -> int:
        """A descriptor of a file inside; missing folders are made for one that is written. Raises `OSError`."""
        message = {"do": "open", "path": path, "cwd": cwd, "write": write}
        return await self._apart(self._descriptor(message, path), os.close)

    async def listen(self, port: int) -> socket.socket:
        """A listening socket on the sandbox's loopback. Raises `OSError`."""
        asked = self._descriptor({"do": "listen", "port": port}, f"127.0.0.1:{port}")
        listener = socket.socket(fileno=await self._apart(asked, os.close))
        listener.setblocking(False)
        return listener

    def close(self) -> None:
        """Hang up: all in the sandbox ends."""
        if not self._closed:
            self._closed = True
            for each in self._descriptors:
                os.close(each)
            self._sock.close()

    def _alive(self) -> bool:
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def _apart(self, work: Any, discard: Callable[[Any], None]) -> Any:
        """Do it whole, also when the caller is cancelled meanwhile; then nobody wants what comes of it."""
        task = asyncio.ensure_future(work)

        def unwanted(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                discard(done.result())

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(unwanted)
            raise

    async def _spawn(self, message: dict[str, Any], terminal: int | None = None) -> Command:
        ours, theirs = socket.socketpair()
        with ExitStack() as inside:  # what is the command's, and is closed here
            inside.callback(theirs.close)
            if terminal is not None:
                command = Command(ours, None, {})
                passed = [theirs.fileno(), terminal, terminal, terminal]
            else:
                pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3 if message["stdin"] else 2)]
                stdin, (out, out_inside), (err, err_inside) = (pipes[0] if message["stdin"] else None, *pipes[-2:])
                passed = [theirs.fileno(), *([stdin[0]] if stdin else []), out_inside, err_inside]
                for each in passed[1:]:
                    inside.callback(os.close, each)
                command = Command(ours, stdin[1] if stdin else None, {out: "stdout", err: "stderr"})
            try:
                async with self._turn:
                    await self._send(message, passed)
                inside.close()
                with anyio.fail_after(_ANSWER_WITHIN):  # its own socket: a command may stop its warden, nobody else
                    return self._started(command, await command.first())
            except BaseException:
                command.close()
                raise

    def _started(self, command: Command, said: dict[str, Any] | None) -> Command:
        if said is None:
            if self._alive():
                return command  # it has begun with ending its warden, and counts as killed
            raise SandboxUnavailableError("the sandbox has ended")
        if "unknown_user" in said:
            raise UnknownUserError(said["unknown_user"])
        if "errno" in said:
            raise OSError(said["errno"], said["text"], said["about"])
        return command

    async def _descriptor(self, message: dict[str, Any], about: str) -> int:
        [descriptor] = await self._descriptors_of(message, about)
        return descriptor

    async def _descriptors_of(self, message: dict[str, Any], about: str) -> list[int]:
        async with self._turn:
            await self._send(message, [])
            try:
                with anyio.fail_after(_ANSWER_WITHIN):
                    answer = await self._receive()
            except TimeoutError:
                self.close()  # or the answer would be taken for that to the next request
                raise SandboxUnavailableError(f"the sandbox did not answer in {_ANSWER_WITHIN:g} s") from None
        if answer is None:
            raise SandboxUnavailableError("the sandbox has ended")
        said, descriptors = answer
        if "errno" in said:
            raise OSError(said["errno"], said["text"], about)
        if len(descriptors) < said["fds"]:  # this process has no room for them
            for each in descriptors:
                os.close(each)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), about)
        return descriptors

    async def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        text = json.dumps({**message, "fds": len(descriptors)}).encode()
        data = memoryview(len(text).to_bytes(4, "big") + text)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while data:
            if self._closed:
                raise SandboxUnavailableError("the sandbox has ended")
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
                continue
            except OSError as error:
                raise SandboxUnavailableError("the sandbox has ended") from error
            data, rights = data[sent:], []

    async def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        while True:
            size = int.from_bytes(self._text[:4], "big")
            if len(self._text) >= 4 and len(self._text) >= 4 + size:
                message: dict[str, Any] = json.loads(self._text[4 : 4 + size])
                del self._text[: 4 + size]
                count = int(message.get("fds", 0))
                taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
                return message, taken
            if self._closed:
                return None
            try:
                received, descriptors, _, _ = socket.recv_fds(
                    self._sock, 1 << 16, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self._sock)
                continue
            except OSError as error:
                if error.errno not in (errno.ECONNRESET, errno.EBADF):
                    raise
                return None
            if not received:
                return None
            self._descriptors += descriptors
            self._text += received
