"""Programs in Inspect's `local`: their output, their end, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest
from inspect_ai.util import ExecCompleted, ExecStdout, SandboxUserUnsupportedError
from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

from computeragent.errors import CliFailedError
from computeragent.processes import marks
from computeragent.swe.agents import launching
from computeragent.swe.agents.launching import run, start

pytestmark = pytest.mark.anyio


@pytest.fixture
def local():
    sandbox = LocalSandboxEnvironment()
    yield sandbox
    sandbox.directory.cleanup()


async def sh(sandbox, script: str, **more):
    folder = sandbox.directory.name
    return await start(sandbox, ["/bin/sh", "-c", script], **{"cwd": folder, "env": {}, **more})


def living(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def gone(word: str) -> None:
    for _ in range(200):
        if not living(word):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{word} is still there: {living(word)}")


async def test_output_and_status_are_told(local):
    ended = await run(await sh(local, "echo one; echo two >&2; pwd; exit 3"))
    assert (ended.status, ended.stderr) == (3, "two\n")
    assert ended.stdout == f"one\n{os.path.realpath(local.directory.name)}\n"


async def test_a_signal_is_a_status_below_zero(local):
    assert (await run(await sh(local, "kill -9 $$"))).status == -9


async def test_characters_that_are_split_between_reads_come_out_whole(local):
    ended = await run(await sh(local, r"printf '\303'; sleep 0.1; printf '\274'; printf '\377'"))
    assert ended.stdout == "ü\ufffd"


async def test_nothing_is_lost_of_what_is_read_slowly(local):
    process = await sh(local, "head -c 3000000 /dev/zero | tr '\\0' x; echo end")
    size, last = 0, ""
    async for event in process:
        await asyncio.sleep(0.005)
        if isinstance(event, ExecStdout):
            size, last = size + len(event.data), event.data
    assert size == 3_000_004
    assert last.endswith("end\n")


async def test_input_is_empty_unless_it_is_asked_for(local):
    assert (await run(await sh(local, "cat; echo done"))).stdout == "done\n"
    process = await sh(local, "cat", stdin=True)
    await process.write_stdin("hello ")
    await process.write_stdin(b"there")
    await process.close_stdin()
    assert (await run(process)).stdout == "hello there"
    with pytest.raises(RuntimeError, match="ended"):
        await process.write_stdin("more")


async def test_no_variable_of_this_process_is_handed_on_but_the_harmless(local, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-for-the-agent")
    ended = await run(await sh(local, "env", env={"GIVEN": "yes"}))
    assert "not-for-the-agent" not in ended.stdout
    assert "GIVEN=yes" in ended.stdout
    assert "PATH=" in ended.stdout


async def test_cancel_ends_all_that_was_started_even_in_a_session_of_its_own(local):
    word = f"76543.{os.getpid()}1"
    process = await sh(local, f"setsid sleep {word} & sleep {word} & echo up; sleep {word}")
    task = asyncio.create_task(run(process))
    await asyncio.sleep(0)
    while len(living(word)) < 3:  # two in the background, and the shell or what it has become
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert living(word) == []


async def test_kill_ends_the_iteration(local):
    process = await sh(local, "echo up; sleep 3600")
    seen = []
    async for event in process:
        seen.append(event)
        await process.kill()
    assert not any(isinstance(event, ExecCompleted) for event in seen)
    with pytest.raises(CliFailedError, match="from outside"):
        await run(process)


async def test_what_stays_in_the_background_goes_with_the_sample(local):
    word = f"76543.{os.getpid()}2"
    ended = await run(await sh(local, f"setsid sleep {word} & echo started"))
    assert (ended.status, ended.stdout) == (0, "started\n")
    assert living(word)
    # A sandbox is forgotten when its sample has ended.
    sandbox = LocalSandboxEnvironment()
    other = f"76543.{os.getpid()}3"
    assert (await run(await sh(sandbox, f"setsid sleep {other} & echo started"))).status == 0
    sandbox.directory.cleanup()
    del sandbox
    gc.collect()
    await gone(other)
    assert living(word)
    assert launching.MARK_OF_SAMPLE in os.environ or marks(launching.MARK_OF_SAMPLE)
    for pid in living(word):
        os.kill(pid, 9)


async def test_what_cannot_start_is_an_error_that_names_it(local):
    with pytest.raises(CliFailedError, match="/no/such/program does not start"):
        await start(local, ["/no/such/program"], cwd=local.directory.name, env={})
    with pytest.raises(CliFailedError, match="does not start"):
        await start(local, [sys.executable], cwd="/no/such/folder", env={})
    with pytest.raises(SandboxUserUnsupportedError):
        await sh(local, "true", user="daemon" if os.geteuid() else "nobody")
