"""A person's shell in a sandbox, on a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import shlex
import struct
import subprocess
import termios
import time

import anyio.to_thread
import pytest
from inspect_ai.util import SandboxUserUnsupportedError
from tests.swe.sandboxes.conftest import Start

from computeragent.swe.sandboxes.supervised import SupervisedSandbox

pytestmark = pytest.mark.anyio


class Person:
    """Somebody at a terminal, who runs a command."""

    def __init__(self, command: str) -> None:
        self.terminal, inner = pty.openpty()
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 0, 0))
        self.process = subprocess.Popen(
            shlex.split(command), stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)
        self.seen = ""

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def waits_for(self, text: str, within: float = 20) -> None:
        end = time.monotonic() + within
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.seen += os.read(self.terminal, 4096).decode("utf-8", "replace")
        self.seen = self.seen.partition(text)[2]

    def ends(self) -> int:
        code = self.process.wait(20)
        os.close(self.terminal)
        return code


async def apart(work, *arguments):
    return await anyio.to_thread.run_sync(work, *arguments)


async def test_a_person_works_in_the_sandbox(sandbox: SupervisedSandbox) -> None:
    await sandbox.write_file(f"{sandbox.home}/.bashrc", "alias task='echo a task'\n")
    connection, other = await asyncio.gather(sandbox.connection(), sandbox.connection())
    assert other.command == connection.command
    assert connection.type in {"bwrap", "namespace"}
    assert (await sandbox.connection()).command == connection.command
    person = Person(connection.command)

    def works() -> int:
        person.types("stty size; pwd; tty; echo HO''ME=$HOME\r")
        person.waits_for("33 99")
        person.waits_for(sandbox.cwd)
        person.waits_for("/dev/pts/")
        person.waits_for(f"HOME={sandbox.home}")
        person.types("task\r")
        person.waits_for("a task")
        person.types("sleep 4711\r")
        person.waits_for("sleep 4711")
        time.sleep(0.3)
        person.types("\x03echo in''terrupted\r")
        person.waits_for("interrupted")
        person.types("echo made > by-a-person; exit 5\r")
        return person.ends()

    assert await apart(works) == 5
    assert await sandbox.read_file("by-a-person") == "made\n"


async def test_a_person_who_leaves_takes_along_what_runs(sandbox: SupervisedSandbox) -> None:
    person = Person((await sandbox.connection()).command)

    def leaves() -> None:
        person.types("sleep 4711 & echo be''gun\r")
        person.waits_for("begun")
        person.process.kill()
        person.process.wait()

    await apart(leaves)
    with anyio.fail_after(10):
        while (await sandbox.exec(["pgrep", "sleep"])).success:
            await anyio.sleep(0.02)
    os.close(person.terminal)


async def test_who_has_no_key_gets_no_shell(start: Start) -> None:
    sandbox = await start("bwrap")
    command = (await sandbox.connection()).command
    stranger = Person(command[:-1] + ("0" if command[-1] != "0" else "1"))
    await apart(stranger.waits_for, "this shell is not yours")
    assert await apart(stranger.ends) == 1
    await sandbox.close()
    late = Person(command)
    await apart(late.waits_for, "not running any more")
    assert await apart(late.ends) == 1


async def test_a_shell_of_another_user(start: Start) -> None:
    person = Person((await (await start("namespace")).connection(user="nobody")).command)

    person.types("id -un; exit\r")
    await apart(person.waits_for, "nobody")
    assert await apart(person.ends) == 0
    with pytest.raises(SandboxUserUnsupportedError):
        await (await start("bwrap")).connection(user="root")
