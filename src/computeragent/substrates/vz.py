"""`VZSubstrate`: engines in virtual machines of Apple's Virtualization framework, which the ``tart`` command makes.

A machine is reached by ssh alone. One connection starts the engine host in it, gives it its token on standard input,
and carries all requests, those to models included: they come out to this side, where the keys are.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeragent.errors import SubstrateError, ValidationError
from computeragent.logs import Logger
from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates.process import HostProcess
from computeragent.substrates.remote import RemoteHost, new_token
from computeragent.substrates.shipping import command, install
from computeragent.substrates.unix_transport import UnixTransport

_BOOT = 120.0
_LOGIN = 60.0
_QUICK = 60.0
_CLONING = 600.0
_INSTALLING = 300.0
_LOST = 255  # ssh's exit code when the connection, not the command, has failed
_log = Logger("substrate")


class VZSubstrate:
    """A virtual machine for each session, cloned from a base image.

    Args:
        base_image: An image of tart's, local or pulled, with an ssh server, Python 3.11 or later, and at best this
            package with its ``[server]`` extra; elsewhere it is installed at each boot. Default
            ``COMPUTERAGENT_VZ_IMAGE``.
        ssh_user: Who to log in as. Passwords are not used.
        ssh_key: A private key that lets in; default those of ssh itself and its agent.
        ssh_port: Where the machine's ssh server is.
        python: The interpreter in the machine.
        tart: The program; default ``tart`` on PATH.

    """

    def __init__(
        self,
        *,
        base_image: str | None = None,
        ssh_user: str = "admin",
        ssh_key: str | Path | None = None,
        ssh_port: int = 22,
        python: str = "python3",
        tart: str | Path = "tart",
    ) -> None:
        for name, value in (("base_image", base_image), ("ssh_user", ssh_user)):
            if value is not None and (not value or value.startswith("-")):
                raise ValidationError(f"{name}={value!r} is not valid", hint="Give a name.")
        self._image, self._python, self._tart = base_image, python, str(tart)
        self._login = ["-p", str(ssh_port), "-l", ssh_user]
        if ssh_key is not None:
            key = Path(ssh_key).expanduser()
            if not key.is_file():
                raise ValidationError(f"ssh_key {key} is no file", hint="Give the private key's path.")
            self._login += ["-i", str(key), "-o", "IdentitiesOnly=yes"]

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Raises `SubstrateError` where no machine starts; limits are the image's."""
        if limits:
            _log.warn("limits_not_applied", hint="`tart set` says how much memory and how many cores an image has.")
        image = self._image or os.environ.get("COMPUTERAGENT_VZ_IMAGE")
        if not image:
            raise SubstrateError("vz needs a base image", hint="Give base_image=, or set COMPUTERAGENT_VZ_IMAGE.")
        machine = _Machine(self._program(), self._login)
        try:
            await machine.start(image)
            host = await self._start(machine)
        except BaseException:
            await machine.close()
            raise
        try:
            return await host.place(workspace, state_dir, envs)
        except BaseException:
            await host.discard()
            raise

    def _program(self) -> str:
        found = shutil.which(self._tart)
        if found is None:
            raise SubstrateError(
                f"{self._tart} was not found", hint="Install tart, on a Mac with Apple silicon; or use another runtime."
            )
        return found

    async def _start(self, machine: _Machine) -> RemoteHost:
        folder = f"/tmp/ca-{secrets.token_hex(8)}"  # noqa: S108 - there
        code, said = await machine.run(f"mkdir -m 700 {folder}")
        if code != 0:
            raise SubstrateError(f"the machine has no room for a session: {said.strip()[:500]}")
        await install(machine.run, machine.put, python=self._python, folder=folder)
        token = new_token()
        served = f"{folder}/host"
        line = command(self._python, served, token="-", folder=folder)  # noqa: S106 - standard input
        await machine.become(line, served, token)
        transport = UnixTransport(str(machine.socket))
        return RemoteHost(machine, base_url="http://engine-host", token=token, transport=transport)


class _Machine:
    """One virtual machine; a `Body` of an engine host."""

    def __init__(self, tart: str, login: Sequence[str]) -> None:
        self._tart = tart
        self._name = f"computeragent-{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = Path(tempfile.mkdtemp(prefix="ca-vz-"))
        self.socket = self._folder / "host"
        known = ["-o", f"UserKnownHostsFile={self._folder}/known_hosts", "-o", "StrictHostKeyChecking=accept-new"]
        alive = ["-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        self._ssh = ["ssh", "-F", "none", "-T", "-o", "BatchMode=yes", *known, *alive, *login]
        self._address = ""
        self._running: HostProcess | None = None
        self._host: HostProcess | None = None
        self._input: asyncio.StreamWriter | None = None

    async def start(self, image: str) -> None:
        """Clone the image, run it, and wait until it lets in. Raises `SubstrateError`."""
        await self._sweep()
        await self._do("clone", image, self._name, limit=_CLONING)
        process = await asyncio.create_subprocess_exec(
            self._tart,
            "run",
            "--no-graphics",
            self._name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._running = HostProcess(process)
        address = (await self._do("ip", "--wait", f"{_BOOT:g}", self._name, limit=_BOOT + 10)).strip()
        if not re.fullmatch(r"[0-9a-fA-F:.]+", address):
            raise SubstrateError(f"tart gives no address of the machine: {address[:100]!r}")
        self._address = address
        await self._wait_for_login()

    async def run(self, line: str, *, given: bytes = b"") -> tuple[int, str]:
        """A shell command in the machine; its exit code, and what it printed. Secrets go in by `given`."""
        return await _finished([*self._ssh, self._address, line], _INSTALLING, given)

    async def put(self, path: str, content: bytes) -> None:
        """Write a file in the machine."""
        code, said = await self.run(f"cat > '{path}'", given=content)
        if code != 0:
            raise SubstrateError(f"{path} cannot be written in the machine: {said.strip()[:500]}")

    async def become(self, line: str, served: str, token: str) -> None:
        """Start the engine host, with its socket there shown as one here."""
        forward = ["-o", "ExitOnForwardFailure=yes", "-L", f"{self.socket}:{served}"]
        process = await asyncio.create_subprocess_exec(
            *self._ssh,
            *forward,
            self._address,
            line,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._host, self._input = HostProcess(process), process.stdin
        assert self._input is not None
        self._input.write(f"{token}\n".encode("ascii"))
        await self._input.drain()

    @property
    def alive(self) -> bool:
        """Whether the engine host runs, as far as the connection says."""
        return self._host is not None and self._host.alive

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        assert self._host is not None
        assert self._running is not None
        told = await self._host.ended()
        if f"exit code {_LOST}" not in told:
            return told
        if not self._running.alive:
            return f"the virtual machine has stopped ({await self._running.ended()})"
        return f"the connection to the virtual machine was lost ({told})"

    async def close(self) -> None:
        """Stop the machine and delete it."""
        if self._input is not None:
            self._input.close()
        if self._host is not None:
            await self._host.close()
        for verb in ("stop", "delete"):
            try:
                await self._do(verb, self._name, limit=_QUICK)
            except SubstrateError as error:
                _log.debug("tart_failed", verb=verb, error=error.message)
            if verb == "stop" and self._running is not None:
                await self._running.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _wait_for_login(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _LOGIN
        while True:
            code, said = await self.run("true")
            if code == 0:
                return
            assert self._running is not None
            if not self._running.alive:
                raise SubstrateError(f"the virtual machine has stopped: {await self._running.ended()}")
            if "Permission denied" in said or loop.time() > until:
                last = " / ".join(said.strip().splitlines()[-2:])[:500]
                raise SubstrateError(
                    f"the virtual machine does not let in: {last}",
                    hint="Give ssh_user= and ssh_key= that its image knows; passwords are not used.",
                )
            await asyncio.sleep(0.5)

    async def _do(self, *arguments: str, limit: float) -> str:
        """A command of tart's; what it printed. Raises `SubstrateError`."""
        code, said = await _finished([self._tart, *arguments], limit)
        if code != 0:
            raise SubstrateError(
                f"tart {arguments[0]} fails: {said.strip()[:500] or f'exit code {code}'}",
                hint="`tart list` shows the images that are here.",
            )
        return said

    async def _sweep(self) -> None:
        """Delete the machines of processes that are gone."""
        try:
            listed = (await self._do("list", "--quiet", limit=_QUICK)).split()
        except SubstrateError as error:
            _log.debug("tart_failed", verb="list", error=error.message)
            return
        for name in listed:
            found = re.fullmatch(r"computeragent-(\d+)-[0-9a-f]{8}", name)
            if found and not _runs(int(found[1])):
                _log.info("machine_swept", machine=name)
                for verb in ("stop", "delete"):
                    await _finished([self._tart, verb, name], _QUICK)


async def _finished(command_line: Sequence[str], limit: float, given: bytes = b"") -> tuple[int, str]:
    """Run a program to its end; its exit code and output. One that takes too long is killed."""
    process = await asyncio.create_subprocess_exec(
        *command_line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit):
            said, _ = await process.communicate(given)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            return 124, f"{command_line[0]} took longer than {limit:g} s"
        raise
    return process.returncode or 0, said.decode("utf-8", "replace")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


VZVMSubstrate = VZSubstrate
