"""An X server of our own: Xvfb and openbox, in a private home, started in a fraction of a second."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from computeragent.computer.programs import Programs, base_environment
from computeragent.computer.reaper import Claim
from computeragent.errors import ComputerError

_START = 20.0
_MOST = 8192  # pixels of a side
_LOG_BYTES = 2000


@dataclass(slots=True)
class ManagedDisplay:
    """A running display: its name, such as ``:5``, what its programs get, and what makes them end."""

    name: str
    home: Path
    env: dict[str, str]
    programs: Programs
    claim: Claim
    server: asyncio.subprocess.Process

    @classmethod
    async def start(cls, width: int, height: int, extra: Mapping[str, str]) -> ManagedDisplay:
        """Start one. Raises `ComputerError` where there is no Xvfb or openbox, or they do not start."""
        if not (1 <= width <= _MOST and 1 <= height <= _MOST):
            raise ComputerError(f"a screen cannot be {width}x{height}", hint=f"Sides are 1 to {_MOST} pixels.")
        for program in ("Xvfb", "openbox"):
            if shutil.which(program) is None:
                raise ComputerError(f"{program} is not installed", hint="apt-get install xvfb openbox")
        claim = await Claim.make()
        try:
            home, run, tmp, cache = (claim.folder / name for name in ("home", "run", "tmp", "cache"))
            for folder in (home, run, tmp, cache):
                folder.mkdir(mode=0o700)
            private = {
                "XDG_RUNTIME_DIR": str(run),
                "XDG_CACHE_HOME": str(cache),
                "TMPDIR": str(tmp),
                "NO_AT_BRIDGE": "1",
            }
            private |= {**extra, **claim.env}
            env = base_environment(home, private)
            name, server = await _start_server(width, height, env, claim.folder / "xvfb.log")
            env["DISPLAY"] = name
            programs = Programs(env, home)
            await programs.launch("openbox")
        except BaseException:
            await asyncio.shield(claim.release())
            raise
        return cls(name, home, env, programs, claim, server)

    async def stop(self) -> None:
        """End it, with every program on it. May be called again."""
        await self.claim.release()
        await self.server.wait()
        await self.programs.close()


async def _start_server(
    width: int, height: int, env: Mapping[str, str], log: Path
) -> tuple[str, asyncio.subprocess.Process]:
    told, tell = os.pipe()
    try:
        with log.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                *("Xvfb", "-displayfd", str(tell), "-screen", "0", f"{width}x{height}x24"),
                *("-nolisten", "tcp", "-noreset", "-s", "0"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=env,
                cwd="/",
                pass_fds=(tell,),
                start_new_session=True,
            )
    except OSError as error:
        os.close(told)
        raise ComputerError(f"Xvfb cannot be started: {error}") from None
    finally:
        os.close(tell)
    try:
        async with asyncio.timeout(_START):
            number = await _line(told)
    except TimeoutError:
        number = ""
    except BaseException:
        await _kill(process)
        raise
    if not number.isdigit():
        await _kill(process)
        raise ComputerError(f"Xvfb did not start: {_complaint(log)}")
    return f":{number}", process


async def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await asyncio.shield(process.wait())


def _complaint(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-_LOG_BYTES:].strip() or "it said nothing"


async def _line(descriptor: int) -> str:
    """What a pipe says until its end or the end of a line. Closes it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return (await reader.readline()).decode("ascii", "replace").strip()
    finally:
        transport.close()
