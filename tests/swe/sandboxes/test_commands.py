"""Commands, files and listeners of both providers, beyond what Inspect's own suite tries."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from inspect_ai.util import OutputLimitExceededError, SandboxUnavailableError, SandboxUserUnsupportedError
from inspect_ai.util._sandbox.limits import override_max_exec_output_size
from tests.swe.sandboxes.conftest import Start

from computeragent.errors import ValidationError
from computeragent.swe.sandboxes.command import Command
from computeragent.swe.sandboxes.control import Control
from computeragent.swe.sandboxes.supervised import SupervisedSandbox

pytestmark = pytest.mark.anyio

STRAYS = "setsid sleep 4711 & (setsid sh -c 'sleep 4711 & sleep 4711' &) ; sleep 4711"


async def strays(sandbox: SupervisedSandbox) -> str:
    return (await sandbox.exec(["pgrep", "-f", "^sleep 4711"])).stdout


async def test_a_timeout_ends_also_what_has_a_session_of_its_own(sandbox: SupervisedSandbox) -> None:
    with pytest.raises(TimeoutError) as raised:
        await sandbox.exec(["sh", "-c", f"echo begun; {STRAYS}"], timeout=1)
    assert raised.value.truncated_output == "begun\n"  # Inspect shows it to the model
    assert await strays(sandbox) == ""


async def test_a_cancelled_caller_ends_its_command(sandbox: SupervisedSandbox) -> None:
    with anyio.move_on_after(0.5) as scope:
        await sandbox.exec(["sh", "-c", STRAYS])
    assert scope.cancelled_caught
    assert await strays(sandbox) == ""


async def test_a_caller_cancelled_at_any_moment_leaves_the_sandbox_in_order(sandbox: SupervisedSandbox) -> None:
    for moment in range(20):
        task = asyncio.ensure_future(sandbox.exec(["sh", "-c", STRAYS]))
        await asyncio.wait({task}, timeout=moment / 1000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        reading = asyncio.ensure_future(sandbox.read_file("/etc/passwd"))
        await asyncio.wait({reading}, timeout=moment / 10000)
        reading.cancel()
        await asyncio.wait({reading})
    assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"
    with anyio.fail_after(10):
        while await strays(sandbox):
            await anyio.sleep(0.05)


async def test_what_is_left_in_the_background_goes_on_and_is_not_waited_for(sandbox: SupervisedSandbox) -> None:
    result = await sandbox.exec(["sh", "-c", "sleep 4711 & echo $!"], timeout=20)
    assert result.success
    assert result.stdout.strip() in await strays(sandbox)


async def test_a_command_that_prints_without_end_is_ended(sandbox: SupervisedSandbox) -> None:
    with override_max_exec_output_size(100_000), pytest.raises(OutputLimitExceededError) as raised:
        await sandbox.exec(["yes"])
    assert raised.value.truncated_output == "y\n" * 50_000
    assert (await sandbox.exec(["pgrep", "-x", "yes"])).stdout == ""


async def test_input_that_nobody_reads_does_not_hold_the_caller(sandbox: SupervisedSandbox) -> None:
    assert (await sandbox.exec(["true"], input=b"x" * 5_000_000)).success
    assert (await sandbox.exec(["sh", "-c", "sleep 4711 & exit 3"], input=b"x" * 5_000_000)).returncode == 3


async def test_what_cannot_be_started_is_said(sandbox: SupervisedSandbox) -> None:
    missing = await sandbox.exec(["no-such-program"])
    assert (missing.returncode, missing.stderr) == (127, "no-such-program: command not found\n")
    with pytest.raises(FileNotFoundError, match="/no/such/folder"):
        await sandbox.exec(["true"], cwd="/no/such/folder")
    with pytest.raises(OSError, match="Invalid argument"):
        await sandbox.exec(["echo", "a\0b"])
    assert (await sandbox.exec(["echo", "x" * 200_000])).stderr == "echo: Argument list too long\n"
    assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"


async def test_names_of_files_that_cannot_be_are_errors(sandbox: SupervisedSandbox) -> None:
    for name in ("a\0b", "x" * 300, "/etc/passwd/below", "bad-\udfff-\ud800"):
        with pytest.raises(OSError):
            await sandbox.read_file(name)
        with pytest.raises(OSError):
            await sandbox.write_file(name, "x")
    await sandbox.exec(["mkfifo", "pipe"])
    with anyio.fail_after(10):
        assert await sandbox.read_file("pipe") == ""


async def test_a_command_that_ends_what_watches_it_ends_nothing_else(sandbox: SupervisedSandbox) -> None:
    for wait in ("", "sleep 0.2;"):
        result = await sandbox.exec(["sh", "-c", f"{wait} kill -9 $PPID; kill -9 1; sleep 0.2"], timeout=20)
        assert result.returncode == 137
    assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"


async def test_a_sandbox_that_is_gone_is_unavailable(sandbox: SupervisedSandbox) -> None:
    running = asyncio.ensure_future(sandbox.exec(["sleep", "60"]))
    while not (await sandbox.exec(["pgrep", "sleep"])).success:
        pass
    os.killpg(sandbox._booted.process.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        assert (await running).returncode == 137
        for call in (sandbox.exec(["true"]), sandbox.read_file("x"), sandbox.write_file("x", "y"), sandbox.listener()):
            with pytest.raises(SandboxUnavailableError):
                await call


@pytest.mark.parametrize(
    "said", [b"no json\n", b"[" * 100_000 + b"\n", b"[1]\n", b'{"exit": "x"}\n', b'{"exit": null}\n', b"x" * 200_000]
)
async def test_a_warden_that_has_become_another_program_is_one_that_has_ended(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    command = Command(ours, None, {})
    try:
        await anyio.to_thread.run_sync(lambda: _say(theirs, said))
        with anyio.fail_after(30):
            assert await command.first() in (None, {"exit": "x"}, {"exit": None})
            assert await command.finished() == 137
            await command.kill()
    finally:
        command.close()
        theirs.close()


def _say(to: socket.socket, said: bytes) -> None:
    to.settimeout(1)
    with suppress(OSError):
        to.sendall(said)


async def test_a_late_answer_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("computeragent.swe.sandboxes.control._ANSWER_WITHIN", 0.1)
    ours, theirs = socket.socketpair()
    control = Control(ours)
    with theirs, tempfile.TemporaryFile() as file:
        with pytest.raises(SandboxUnavailableError, match="did not answer"):
            await control.open("first", cwd="/", write=False)
        text = b'{"fds": 1}'
        with suppress(OSError):
            socket.send_fds(theirs, [len(text).to_bytes(4, "big") + text], [file.fileno()])
        with pytest.raises(SandboxUnavailableError, match="has ended"):
            await control.open("second", cwd="/", write=False)


async def test_a_host_without_room_for_descriptors_is_told_so(start: Start) -> None:
    sandbox = await start("bwrap")
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 400), hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files"):
            await sandbox.read_file("/etc/passwd")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        for each in taken:
            os.close(each)
    assert "agent" in await sandbox.read_file("/etc/passwd")
    assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"


async def test_what_is_no_text_is_no_command(sandbox: SupervisedSandbox) -> None:
    for command in (["echo", 5], ["echo", None]):
        with pytest.raises(OSError, match="Invalid argument"):
            await sandbox.exec(command)  # pyright: ignore[reportArgumentType]


async def test_many_commands_at_once(sandbox: SupervisedSandbox) -> None:
    commands = [sandbox.exec(["sh", "-c", f"cat; echo {n}; exit {n}"], input=f"in {n} ") for n in range(40)]
    results = await asyncio.gather(*commands)
    assert [(each.returncode, each.stdout) for each in results] == [(n, f"in {n} {n}\n") for n in range(40)]


async def test_the_environment_of_a_command(sandbox: SupervisedSandbox) -> None:
    await sandbox.write_file("bin/tool", "#!/bin/sh\necho mine $HOME\n")
    await sandbox.exec(["chmod", "+x", "bin/tool"])
    found = await sandbox.exec(["tool"], env={"PATH": f"{sandbox.cwd}/bin:/usr/bin:/bin"})
    assert found.stdout == f"mine {sandbox.home}\n"
    assert (await sandbox.exec(["sh", "-c", "echo $HOME"], env={"HOME": "/tmp"})).stdout == "/tmp\n"
    assert "ID=" in await sandbox.read_file("/etc/os-release")  # Inspect's tools ask for it
    with pytest.raises(ValidationError, match="needs a program"):
        await sandbox.exec([])


async def test_interrupts_reach_commands_also_where_the_host_ignores_them(sandbox: SupervisedSandbox) -> None:
    assert (await sandbox.exec(["sh", "-c", "kill -INT $$; echo no"])).returncode == 130


async def test_root_becomes_any_user(start: Start) -> None:
    sandbox = await start("namespace")
    who = "id -un; echo $HOME $USER; pwd"
    assert (await sandbox.exec(["sh", "-c", who], user="nobody")).stdout == "nobody\n/nonexistent nobody\n/workspace\n"
    assert (await sandbox.exec(["id", "-u"], user="12345")).stdout == "12345\n"
    assert (await sandbox.exec(["sh", "-c", "id -G; echo > /etc/x"], user="nobody")).returncode != 0
    unknown = await sandbox.exec(["true"], user="nobody-at-all")
    assert not unknown.success
    assert "nobody-at-all" in unknown.stderr
    with pytest.raises(TimeoutError):
        await sandbox.exec(["sh", "-c", STRAYS], user="nobody", timeout=1)
    assert await strays(sandbox) == ""


async def test_a_jail_has_one_user(start: Start) -> None:
    sandbox = await start("bwrap")
    assert (await sandbox.exec(["id", "-un"], user="agent")).stdout == "agent\n"
    assert (await sandbox.exec(["id", "-u"], user="1000")).stdout == "1000\n"
    for user in ("root", "0", "nobody", ""):
        with pytest.raises(SandboxUserUnsupportedError, match="namespace"):
            await sandbox.exec(["true"], user=user)


async def test_the_host_serves_a_listener_inside(sandbox: SupervisedSandbox) -> None:
    listener = await sandbox.listener()
    port = listener.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        await sandbox.listener(port)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nfrom outside")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=listener)
    async with server:
        got = await sandbox.exec(["curl", "-s", f"http://127.0.0.1:{port}/"])
    assert got.stdout == "from outside"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_programs_in_the_cache_run_at_their_own_path(start: Start, state_folder: Path) -> None:
    folder = state_folder / "cache" / "artifacts" / "tool"
    folder.mkdir(parents=True)
    (folder / "tool").write_text("#!/bin/sh\necho cached\n")
    (folder / "tool").chmod(0o755)
    for name in ("bwrap", "namespace"):
        sandbox = await start(name)
        user = {"bwrap": "agent", "namespace": "nobody"}[name]
        assert (await sandbox.exec([str(folder / "tool")])).stdout == "cached\n"
        assert (await sandbox.exec([str(folder / "tool")], user=user)).stdout == "cached\n"
        assert (await sandbox.exec([sys.executable, "-I", "-c", "print(1)"], user=user)).stdout == "1\n"
        assert not (await sandbox.exec(["touch", str(folder / "more")])).success
        (folder / f"later-{name}").write_text("fetched while it runs")
        assert await sandbox.read_file(str(folder / f"later-{name}")) == "fetched while it runs"
