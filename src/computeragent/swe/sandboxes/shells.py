"""Shells for people in a running sandbox: whoever runs the command that `Shells.command` names gets one."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import shlex
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from inspect_ai.util import SandboxUnavailableError

from computeragent.swe.sandboxes.control import Control, UnknownUserError

_ATTACH = Path(__file__).with_name("attach.py")
_SHELL = ("/bin/bash", "-l")
_PATIENCE = 10.0


class Shells:
    """Listens on a Unix socket without a path, for this user's programs that know the key."""

    def __init__(self, control: Control, *, cwd: str, user: str | None) -> None:
        self._control = control
        self._cwd = cwd
        self._user = user
        self._name = f"computeragent-shell-{secrets.token_hex(16)}"
        self._key = secrets.token_hex(16)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"\0{self._name}")
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._tasks = {asyncio.ensure_future(self._accept())}

    @property
    def command(self) -> str:
        """The command for a terminal of this machine."""
        return shlex.join([sys.executable, "-I", "-S", str(_ATTACH), self._name, self._key])

    async def close(self) -> None:
        """Listen no more, and end the shells."""
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            task = asyncio.ensure_future(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, suppress(OSError):
            if not await self._knows(connection):
                await loop.sock_sendall(connection, b"this shell is not yours\n")
                return
            try:
                command, terminal = await self._control.spawn_in_terminal(_SHELL, cwd=self._cwd, user=self._user)
            except (OSError, UnknownUserError, SandboxUnavailableError) as error:
                await loop.sock_sendall(connection, f"no shell in the sandbox: {error}\n".encode())
                return
            try:
                socket.send_fds(connection, [b"."], [terminal])
            finally:
                os.close(terminal)
            ended = asyncio.ensure_future(command.finished())
            gone = asyncio.ensure_future(loop.sock_recv(connection, 1))
            try:
                await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    await loop.sock_sendall(connection, str(ended.result()).encode())
            finally:
                gone.cancel()
                await command.kill()
                ended.cancel()

    async def _knows(self, connection: socket.socket) -> bool:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", peer)
        try:
            async with asyncio.timeout(_PATIENCE):
                said = await asyncio.get_running_loop().sock_recv(connection, 1024)
        except TimeoutError:
            return False
        return uid in (0, os.geteuid()) and hmac.compare_digest(said, self._key.encode() + b"\n")
