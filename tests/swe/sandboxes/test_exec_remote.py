"""`exec_remote`: streams, standard input, ends."""

from __future__ import annotations

import anyio
import pytest
from inspect_ai.util import (
    ExecCompleted,
    ExecRemoteAwaitableOptions,
    ExecRemoteProcess,
    ExecRemoteStreamingOptions,
    ExecStderr,
    ExecStdout,
)
from inspect_ai.util._sandbox.limits import override_max_exec_output_size

from computeragent.swe.sandboxes.process import KEPT
from computeragent.swe.sandboxes.supervised import SupervisedSandbox

pytestmark = pytest.mark.anyio

OPEN = ExecRemoteStreamingOptions(stdin_open=True)


async def said(process: ExecRemoteProcess) -> tuple[str, str, int | None]:
    out, err, code = "", "", None
    async for event in process:
        if isinstance(event, ExecStdout):
            out += event.data
        elif isinstance(event, ExecStderr):
            err += event.data
        else:
            assert isinstance(event, ExecCompleted)
            code = event.exit_code
    return out, err, code


async def test_output_comes_as_it_is_printed(sandbox: SupervisedSandbox) -> None:
    process = await sandbox.exec_remote(["sh", "-c", "echo one; read x; echo $x >&2; exit 7"], OPEN)
    assert isinstance(process, ExecRemoteProcess)
    assert process.pid > 0
    assert await anext(process) == ExecStdout("one\n")
    await process.write_stdin(b"tw")
    await process.write_stdin("o\n")
    assert await anext(process) == ExecStderr("two\n")
    assert await anext(process) == ExecCompleted(7)
    with pytest.raises(StopAsyncIteration):
        await anext(process)
    with pytest.raises(RuntimeError, match="terminated"):
        await process.write_stdin("more")
    await process.close_stdin()
    await process.kill()


async def test_standard_input_ends_where_it_is_closed(sandbox: SupervisedSandbox) -> None:
    process = await sandbox.exec_remote(["cat"], ExecRemoteStreamingOptions(input="first ", stdin_open=True))
    await process.write_stdin("second")
    await process.close_stdin()
    await process.close_stdin()
    with pytest.raises(RuntimeError):
        await process.write_stdin("third")
    assert await said(process) == ("first second", "", 0)
    assert await said(await sandbox.exec_remote(["cat"], ExecRemoteStreamingOptions(input=b"all"))) == ("all", "", 0)
    without = await sandbox.exec_remote(["cat"])
    with pytest.raises(RuntimeError, match="stdin_open"):
        await without.write_stdin("x")
    assert await said(without) == ("", "", 0)
    with pytest.raises(RuntimeError, match="once"):
        aiter(without)


async def test_a_killed_process_ends_without_a_code_and_with_its_children(sandbox: SupervisedSandbox) -> None:
    process = await sandbox.exec_remote(["sh", "-c", "echo begun; setsid sleep 4711 & sleep 4711"])
    assert await anext(process) == ExecStdout("begun\n")
    await process.kill()
    assert await said(process) == ("", "", None)
    assert (await sandbox.exec(["pgrep", "sleep"])).stdout == ""
    await process.kill()


async def test_a_cancelled_reader_ends_the_process(sandbox: SupervisedSandbox) -> None:
    process = await sandbox.exec_remote(["sh", "-c", "setsid sleep 4711 & sleep 4711"])
    with anyio.move_on_after(0.3) as scope:
        await said(process)
    assert scope.cancelled_caught
    assert (await sandbox.exec(["pgrep", "sleep"])).stdout == ""


async def test_characters_are_whole_whatever_the_pieces(sandbox: SupervisedSandbox) -> None:
    script = r"printf '\342\202'; sleep 0.2; printf '\254 \377 '; printf '\303' >&2"
    assert await said(await sandbox.exec_remote(["sh", "-c", script])) == ("€ � ", "�", 0)


@pytest.mark.parametrize("amount", [30_000_000, KEPT + 100_000])  # of the latter it ends with some in the pipe
async def test_a_slow_reader_gets_everything(sandbox: SupervisedSandbox, amount: int) -> None:
    process = await sandbox.exec_remote(["head", "-c", str(amount), "/dev/zero"])
    first = await anext(process)
    assert isinstance(first, ExecStdout)
    await anyio.sleep(0.7)
    assert process._command._paused
    assert process._waiting < KEPT + 100_000
    out, _, code = await said(process)
    assert (len(first.data) + len(out), code) == (amount, 0)


async def test_a_process_that_nobody_reads_is_not_held(sandbox: SupervisedSandbox) -> None:
    command = ["sh", "-c", "head -c 20000000 /dev/zero; echo last; touch done; sleep 60"]
    process = await sandbox.exec_remote(command)
    with anyio.fail_after(20):
        while not (await sandbox.exec(["test", "-e", "done"])).success:
            await anyio.sleep(0.02)
    await anyio.sleep(0.1)
    await process.kill()
    out, _, code = await said(process)
    assert 9_000_000 < len(out) <= 10 * 1024**2
    assert out.endswith("last\n")
    assert code is None


async def test_a_result_at_once(sandbox: SupervisedSandbox) -> None:
    options = ExecRemoteAwaitableOptions(input="x\n", env={"A": "b"}, cwd="/tmp")
    result = await sandbox.exec_remote(["sh", "-c", "cat; echo $A; pwd; exit 3"], options, stream=False)
    assert (result.success, result.returncode, result.stdout) == (False, 3, "x\nb\n/tmp\n")
    with pytest.raises(TimeoutError):
        await sandbox.exec_remote(["sleep", "4711"], ExecRemoteAwaitableOptions(timeout=0.2), stream=False)
    assert (await sandbox.exec(["pgrep", "sleep"])).stdout == ""
    with override_max_exec_output_size(100):
        tail = await sandbox.exec_remote(["seq", "10000"], stream=False)
    assert tail.stdout.endswith("9999\n10000\n")
    assert len(tail.stdout) == 100


async def test_a_program_that_is_not_there(sandbox: SupervisedSandbox) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await sandbox.exec_remote(["no-such-program"])
    with pytest.raises(PermissionError):
        await sandbox.exec_remote(["/etc/passwd"])
    assert (await sandbox.exec_remote(["no-such-program"], stream=False)).returncode == 127


async def test_what_a_process_leaves_running_does_not_hold_its_end(sandbox: SupervisedSandbox) -> None:
    process = await sandbox.exec_remote(["sh", "-c", "(sleep 3; echo late; sleep 4711) & echo early"])
    assert await said(process) == ("early\n", "", 0)
    with anyio.fail_after(20):
        while "sleep 4711" not in (await sandbox.exec(["pgrep", "-fa", "sleep"])).stdout:  # it could still print
            await anyio.sleep(0.1)
