"""Starts an engine host, in whatever a substrate wraps around it, and holds on to it.

The host serves on a Unix socket in a private folder outside; the sandbox has only the open socket, not its path.
"""

from __future__ import annotations

import array
import asyncio
import json
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2

from computeragent.client import HarnessClient, RemoteHarness
from computeragent.credentials import Provider, Route
from computeragent.errors import SubstrateError
from computeragent.substrates.process import HostProcess
from computeragent.substrates.relay import Relay
from computeragent.substrates.unix_transport import UnixTransport

BOOT_TIMEOUT = 30.0
"""Seconds that a sandbox may take to start."""
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to start a host: what stands before its command, its environment, and what else it inherits.

    `relays` are the providers that the sandbox cannot reach by itself.
    """

    prefix: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    descriptors: Sequence[int] = ()
    relays: Sequence[Provider] = ()
    preload: Sequence[str] = ()


class Body(Protocol):
    """What a host runs in, such as a process or a container."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        ...

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        ...

    async def close(self) -> None:
        """End it, and remove what it leaves."""
        ...


class EngineHost:
    """A running engine host, which serves on the socket ``host`` in a private folder.

    `control` is the connection to it; `relays` are the providers that it opens ports for.
    """

    def __init__(self, body: Body, folder: Path, control: socket.socket, relays: Sequence[Provider]) -> None:
        self._body = body
        self._folder = folder
        self._control = control
        self._providers = relays
        self._listeners: list[socket.socket] = []
        self._ports: list[int] = []
        self._relays: list[Relay] = []
        self._closed = False
        self._http = httpx2.AsyncClient(transport=UnixTransport(str(folder / "host")), timeout=60.0)
        self.harness = RemoteHarness(
            HarnessClient(base_url="http://engine-host", client=self._http, patience=_PATIENCE)
        )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._body.alive

    async def introduced(self) -> None:
        """Wait until the host has handed its listeners out. Raises `SubstrateError` where it ends before."""
        self._control.setblocking(False)
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._control, readable.set)
        try:
            async with asyncio.timeout(BOOT_TIMEOUT):
                await readable.wait()
        except TimeoutError:
            raise SubstrateError(
                f"the sandbox did not start in {BOOT_TIMEOUT:g} s", hint="Run `computeragent doctor`."
            ) from None
        finally:
            loop.remove_reader(self._control)
        introduction = self._receive()
        if introduction is None:
            raise SubstrateError(
                f"the sandbox could not start: {await self.ended()}", hint="Run `computeragent doctor`."
            )
        self._ports = introduction["ports"]

    async def ready(self) -> None:
        """Wait until the host answers requests, everything imported."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(BOOT_TIMEOUT):
            while (said := await loop.sock_recv(self._control, 64)) and b"ready" not in said:
                pass
        if not said:
            raise SubstrateError(f"the sandbox could not start: {await self.ended()}")

    def relay(self, routes: Sequence[Route]) -> dict[str, str]:
        """Answer the sandbox's ports for these providers; returns the variables that name the ports."""
        ports = {provider.name: place for place, provider in enumerate(self._providers)}
        variables: dict[str, str] = {}
        for route in routes:
            place = ports[route.provider.name]
            relay = Relay(route, self._listeners[place])
            relay.start()
            self._relays.append(relay)
            variables[route.provider.base_url_variable] = f"http://127.0.0.1:{self._ports[place]}"
        return variables

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        return await self._body.ended()

    async def close(self) -> None:
        """End the host and all that runs with it."""
        if self._closed:
            return
        self._closed = True
        await self.harness.close()
        await self._http.aclose()
        await asyncio.gather(*(relay.close() for relay in self._relays))
        for listener in self._listeners:
            listener.close()
        self._control.close()
        await self._body.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _receive(self) -> dict[str, Any] | None:
        """The host's first words, and the descriptors with them; None when it has hung up."""
        room = socket.CMSG_SPACE(16 * array.array("i").itemsize)
        try:
            data, extra, _, _ = self._control.recvmsg(4096, room)
        except ConnectionResetError:
            return None
        for level, kind, content in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                self._listeners = [socket.socket(fileno=each) for each in descriptors]
        return json.loads(data.split(b"\n")[0]) if data else None


async def start(plan: Plan) -> EngineHost:
    """Start a host. Raises `SubstrateError` where the program that wraps it cannot be started."""
    folder = Path(tempfile.mkdtemp(prefix=f"ca-{secrets.token_hex(3)}-"))
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(folder / "host"))
        listener.listen(128)
        command = [*plan.prefix, sys.executable, "-I", "-m", "computeragent.substrates.engine_host"]
        command += ["--listen", str(listener.fileno()), "--control", str(theirs.fileno())]
        command += ["--relays", str(len(plan.relays)), "--preload", ",".join(plan.preload)]
        process = await spawned(command, plan.env, [listener.fileno(), theirs.fileno(), *plan.descriptors])
    except OSError as error:
        ours.close()
        shutil.rmtree(folder, ignore_errors=True)
        program = plan.prefix[0] if plan.prefix else sys.executable
        raise SubstrateError(
            f"{program} cannot be started: {error.strerror}", hint="Run `computeragent doctor`."
        ) from error
    except BaseException:
        ours.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        listener.close()
        theirs.close()
    host = EngineHost(HostProcess(process), folder, ours, plan.relays)
    try:
        await host.introduced()
    except BaseException:
        await host.close()
        raise
    return host


async def spawned(
    command: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]
) -> asyncio.subprocess.Process:
    """A process in a group of its own, with its standard error to be read.

    asyncio, cancelled in the middle, kills the process without what that has started, and waits for ever for the
    standard error that the latter holds. So a cancellation waits until the process is there, and ends its group.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            env=dict(env),
            pass_fds=descriptors,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})
        if starting.exception() is None:
            await HostProcess(starting.result()).close()
        raise
