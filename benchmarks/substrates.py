"""How long an agent takes to be there: from `LocalHarness.open` to its engine's first event, on each local substrate.

Beside it what no substrate can do without: an interpreter's start, and `bwrap … true` with the jail's own arguments.
Rounds of all cases alternate; pools are full again, and everything is still, before each.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

os.environ["COMPUTERAGENT_HOME"] = tempfile.mkdtemp(prefix="substrates-")

from computeragent.errors import SubstrateError
from computeragent.harness import LocalHarness
from computeragent.protocol_types import InlineSource, SessionRequest, UserInput
from computeragent.substrates.bwrap import BwrapSubstrate, find_bwrap
from computeragent.substrates.local import LocalSubstrate
from computeragent.substrates.mounts import session_mounts
from computeragent.wire.events import SdkMessage

GOALS = {"local": 120.0, "local, child process": 120.0, "bwrap, cold": 150.0, "bwrap, pooled": 35.0}
Case = Callable[[], Awaitable[float]]


async def first_event(harness: LocalHarness) -> float:
    """Seconds from the opening of a session to the first thing that its engine says."""
    request = SessionRequest(source=InlineSource(manifest={"name": "boot", "version": "1"}), engine="scripted")
    began = time.perf_counter()
    session = await harness.open(request)
    await session.send(UserInput(content="go"))
    async for recorded in session.events():
        if isinstance(recorded.event, SdkMessage):
            break
    took = time.perf_counter() - began
    await session.close()
    return took


async def started(command: list[str]) -> float:
    """Seconds that a program takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # awaited by nobody: it is the thing measured
    return time.perf_counter() - began


async def jails_here(harness: LocalHarness) -> bool:
    """Whether this machine can make a jail; says why where it cannot."""
    try:
        await first_event(harness)
    except SubstrateError as error:
        print(f"no bwrap here: {error.message}")
        return False
    return True


async def main(rounds: int) -> None:
    python = [sys.executable, "-I", "-c", "pass"]
    async with AsyncExitStack() as stack:

        def placed(substrate: LocalSubstrate | BwrapSubstrate) -> LocalHarness:
            harness = LocalHarness(substrate=substrate, library_mode=False)
            stack.push_async_callback(harness.close)
            return harness

        pools: list[LocalSubstrate | BwrapSubstrate] = []
        pools.append(await stack.enter_async_context(LocalSubstrate(process=True, pool=1)))
        cases: dict[str, Case] = {
            "python -c pass": partial(started, python),
            "local": partial(first_event, placed(LocalSubstrate())),
            "local, child process": partial(first_event, placed(LocalSubstrate(process=True))),
            "local, child process, pooled": partial(first_event, placed(pools[0])),
        }
        jailed = placed(BwrapSubstrate())
        if await jails_here(jailed):
            folder = Path(tempfile.mkdtemp(dir=os.environ["COMPUTERAGENT_HOME"]))
            for name in ("source", "state"):
                (folder / name).mkdir()
            mounts = session_mounts(folder / "source", folder / "state")
            bwrap = [find_bwrap(), *BwrapSubstrate().arguments(mounts), "--"]
            pools.append(await stack.enter_async_context(BwrapSubstrate(pool=1)))
            cases |= {
                "bwrap … true": partial(started, [*bwrap, "/bin/true"]),
                "bwrap … python -c pass": partial(started, [*bwrap, *python]),
                "bwrap, cold": partial(first_event, jailed),
                "bwrap, pooled": partial(first_event, placed(pools[1])),
            }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            for name, case in cases.items():
                for pool in pools:
                    await pool.warm()  # a spare that is still starting would have one of the cores
                await asyncio.sleep(0.2)
                took = await case()
                if number:  # the first round warms up
                    times[name].append(took * 1000)
        print(f"boot to the engine's first event, ms, {rounds} rounds{' ' * 7}median      p90")
        for name, found in times.items():
            p90 = sorted(found)[min(len(found) - 1, len(found) * 9 // 10)]
            goal = f"   (goal {GOALS[name]:g})" if name in GOALS else ""
            print(f"  {name:46}{statistics.median(found):8.1f} {p90:8.1f}{goal}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    asyncio.run(main(5 if parser.parse_args().quick else 30))
