"""`E2BSubstrate`: engines in E2B's cloud sandboxes, through its official SDK.

The engine host there serves on a port, at an address of E2B's, for who knows the token of its boot. All connections go
from here to there, the ones that carry requests to models included, so provider keys stay here.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from computeragent.errors import MissingExtraError, SubstrateError, ValidationError
from computeragent.logs import Logger
from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates.process import how_ended
from computeragent.substrates.remote import RemoteHost, new_token
from computeragent.substrates.shipping import command, install

_INSTALLING = 300.0
_log = Logger("substrate")


class E2BSubstrate:
    """A cloud sandbox for each session.

    Args:
        api_key: E2B's; default ``E2B_API_KEY``.
        template_id: The template; default E2B's ``base``. One that has Python 3.11 or later and this package with its
            ``[server]`` extra starts at once, elsewhere the package is installed at each boot.
        timeout: Seconds after which E2B ends the sandbox, whatever it does.
        python: The interpreter in the template.
        network: ``"internet"``, or ``"none"``: nothing is reached from the sandbox but models, through here. Then the
            template must have the package.
        port: The port in the sandbox on which the engine host serves.

    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        template_id: str | None = None,
        timeout: int = 3600,
        python: str = "python3",
        network: Literal["internet", "none"] = "internet",
        port: int = 7700,
    ) -> None:
        if timeout <= 0:
            raise ValidationError(f"timeout must be positive, got {timeout!r}", hint="Seconds; E2B's plans cap it.")
        if network not in ("internet", "none"):
            raise ValidationError(f"network {network!r} is unknown", hint="There are 'internet' and 'none'.")
        self._api_key, self._template, self._timeout = api_key, template_id, timeout
        self._python, self._network, self._port = python, network, port

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Raises `SubstrateError` where no sandbox can be started; limits are the template's."""
        if limits:
            _log.warn("limits_not_applied", hint="An E2B template says how much memory and how many cores it has.")
        sandbox = await self._create()
        try:
            host = await self._start(sandbox)
        except BaseException as error:
            await _kill(sandbox)
            if isinstance(error, _failures()):
                raise SubstrateError(f"the E2B sandbox fails: {error}") from error
            raise
        try:
            return await host.place(workspace, state_dir, envs)
        except BaseException:
            await host.discard()
            raise

    async def _create(self) -> Any:
        try:
            from e2b import AsyncSandbox
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"runtime 'e2b' needs the [e2b] extra: {error}", hint="pip install 'computer-agent-py[e2b]'"
            ) from error
        if not (self._api_key or os.environ.get("E2B_API_KEY")):
            raise SubstrateError("E2B needs an API key", hint="Give api_key=, or set E2B_API_KEY.")
        creating = asyncio.ensure_future(
            AsyncSandbox.create(
                template=self._template,
                timeout=self._timeout,
                metadata={"made-by": "computeragent"},
                allow_internet_access=self._network == "internet",
                network={"allow_public_traffic": False},
                api_key=self._api_key,
            )
        )
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            await asyncio.wait({creating})
            if not creating.cancelled() and creating.exception() is None:
                await _kill(creating.result())  # it was made all the same
            raise
        except _failures() as error:
            raise SubstrateError(
                f"E2B makes no sandbox: {error}", hint="Check the API key, the template and the plan's limits."
            ) from error

    async def _start(self, sandbox: Any) -> RemoteHost:
        """Install what is missing, hand the token over in a file, and become an engine host."""
        folder = f"/tmp/ca-{secrets.token_hex(8)}"  # noqa: S108 - there

        async def run(line: str) -> tuple[int, str]:
            from e2b import CommandExitException

            try:
                done = await sandbox.commands.run(line, timeout=_INSTALLING)
            except CommandExitException as error:
                return error.exit_code, error.stdout + error.stderr
            return done.exit_code, done.stdout

        async def put(path: str, content: bytes) -> None:
            await sandbox.files.write(path, content)

        await run(f"mkdir -m 700 {folder}")
        await install(run, put, python=self._python, folder=folder)
        token = new_token()
        await put(f"{folder}/token", token.encode("ascii"))
        line = command(self._python, f"0.0.0.0:{self._port}", token=f"{folder}/token", folder=folder)
        started = await sandbox.commands.run(f"umask 077; {line}", background=True, timeout=0)
        headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(self._port)}
        if sandbox.traffic_access_token:
            headers["e2b-traffic-access-token"] = sandbox.traffic_access_token
        address = sandbox.connection_config.get_sandbox_direct_url(
            sandbox.sandbox_id, sandbox.sandbox_domain, self._port
        )
        return RemoteHost(_CloudBody(sandbox, started), base_url=address, token=token, headers=headers)


class _CloudBody:
    """A sandbox with an engine host in it; a `Body`."""

    def __init__(self, sandbox: Any, started: Any) -> None:
        self._sandbox = sandbox
        self._watching = asyncio.create_task(self._watch(started), name=f"e2b {sandbox.sandbox_id}")

    @property
    def alive(self) -> bool:
        return not self._watching.done()

    async def ended(self) -> str:
        return await asyncio.shield(self._watching)

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await _kill(self._sandbox)

    async def _watch(self, started: Any) -> str:
        """Follow the host's process, through lost connections, to its end."""
        from e2b import CommandExitException

        while True:
            try:
                await started.wait()
            except CommandExitException as error:
                last = " / ".join((error.stderr or "").strip().splitlines()[-3:])[:500]
                return f"{how_ended(error.exit_code)}: {last}" if last else how_ended(error.exit_code)
            except Exception as error:  # noqa: BLE001 - the connection to it, or the sandbox itself
                try:
                    if not await self._sandbox.is_running():
                        return "E2B has ended it: its time is up, or somebody killed it"
                    await asyncio.sleep(1.0)
                    started = await self._sandbox.commands.connect(started.pid, timeout=0)
                except Exception:  # noqa: BLE001 - nothing answers any more
                    return f"it is not reached any more ({type(error).__name__})"
            else:
                return how_ended(0)


def _failures() -> tuple[type[Exception], ...]:
    """What the SDK raises."""
    import httpx
    from e2b import exceptions

    return (exceptions.SandboxException, exceptions.AuthenticationException, httpx.HTTPError)


async def _kill(sandbox: Any) -> None:
    try:
        await sandbox.kill()
    except Exception as error:  # noqa: BLE001 - E2B ends it when its time is up
        _log.error("sandbox_not_killed", sandbox=sandbox.sandbox_id, error=str(error))
