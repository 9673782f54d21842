"""What a sandbox keeps in, and out."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.swe.sandboxes.conftest import Start

from computeragent.errors import SubstrateError, ValidationError
from computeragent.swe.sandboxes.supervised import SupervisedSandbox

pytestmark = pytest.mark.anyio

SECRET = "canary-3b7c1f"


async def python(sandbox: SupervisedSandbox, code: str) -> str:
    result = await sandbox.exec(["/usr/bin/python3", "-"], input=code, timeout=30)
    assert result.success, result.stderr
    return result.stdout


async def test_nothing_but_the_bridge_can_be_reached(sandbox: SupervisedSandbox) -> None:
    canary = socket.create_server(("127.0.0.1", 0))
    canary.setblocking(False)
    everywhere = socket.create_server(("0.0.0.0", 0))
    everywhere.setblocking(False)
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    hosts = ["127.0.0.1", "localhost", "1.1.1.1", "10.0.2.2", *own[:2]]
    ports = [canary.getsockname()[1], everywhere.getsockname()[1], 53]
    reached = await python(
        sandbox,
        f"""
import socket
for host in {hosts!r}:
    for port in {ports!r}:
        try:
            socket.create_connection((host, port), 1).close()
            print("reached", host, port)
        except OSError:
            pass
for name in ("example.org", "example.com", {socket.gethostname()!r}):
    try:
        print("resolved", name, socket.getaddrinfo(name, 80))
    except OSError:
        pass
print([name for _, name in socket.if_nameindex()])
print(open("/proc/net/dev").read().count(":"))
""",
    )
    assert reached == "['lo']\n1\n"
    for each in (canary, everywhere):
        with pytest.raises(BlockingIOError):
            each.accept()
        each.close()


async def test_sandboxes_have_the_same_port_each_and_nothing_of_each_other(start: Start) -> None:
    sandboxes = [await start(name) for name in ("bwrap", "bwrap", "namespace", "namespace")]
    listeners = [await each.listener(3001) for each in sandboxes]
    for number, each in enumerate(sandboxes):
        await each.write_file("/tmp/mine", str(number))
        await each.exec(["sh", "-c", f"sleep 47{number} & echo mine > ~/mine"])
    for number, each in enumerate(sandboxes):
        assert await each.read_file("/tmp/mine") == str(number)
        assert (await each.exec(["pgrep", "-fa", "sleep 47"])).stdout.split()[1:] == ["sleep", f"47{number}"]
    for each in listeners:
        each.close()


async def test_home_and_temporary_folders_are_its_own(sandbox: SupervisedSandbox) -> None:
    planted = [Path(folder) / f".{SECRET}-{os.getpid()}" for folder in (Path.home(), "/tmp", "/var/tmp", Path.cwd())]
    try:
        for each in planted:
            each.write_text(SECRET)
        found = await sandbox.exec(["sh", "-c", f"ls -A ~ /tmp /var/tmp; cat {' '.join(map(str, planted))}"])
        assert SECRET not in found.stdout
        await sandbox.exec(["sh", "-c", "echo x > ~/.claude.json; echo x > /tmp/made-inside"])
        assert not Path("/tmp/made-inside").exists()
    finally:
        for each in planted:
            each.unlink(missing_ok=True)


async def test_nothing_of_the_hosts_environment_or_processes_is_seen(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for name in ("bwrap", "namespace"):
        sandbox = await start(name)
        seen = await sandbox.exec(["sh", "-c", "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; ls /proc"])
        assert SECRET not in seen.stdout
        assert "PATH=" in seen.stdout
        assert "KEY" not in seen.stdout
        assert str(os.getpid()) not in seen.stdout.split()


async def test_the_machine_stays_as_it_is(sandbox: SupervisedSandbox, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("untouched")

    def state() -> list[tuple[int, ...]]:
        found = [Path(path).stat() for path in ("/etc/passwd", "/usr/bin/env", "/bin/sh")]
        return [(each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns) for each in found]

    before = state()
    harm = (
        f"echo gone > {mine}; rm -rf {tmp_path}; echo x >> /etc/passwd; chmod 0 /usr/bin/env; rm -rf /usr/share/doc; "
        "echo x > /usr/made; chmod 0 /dev/null; chmod 0 /dev/zero; rm -rf /var/lib /boot"
    )
    await sandbox.exec(["sh", "-c", harm])
    assert mine.read_text() == "untouched"
    assert state() == before
    assert not Path("/usr/made").exists()
    assert Path("/usr/share/doc").is_dir()
    assert Path("/var/lib").is_dir()
    for device in ("/dev/null", "/dev/zero"):
        assert Path(device).stat().st_mode & 0o777 == 0o666


async def test_the_kernel_is_not_its_own(sandbox: SupervisedSandbox) -> None:
    tried = await python(
        sandbox,
        """
import ctypes, os, socket
for name in ("sys/kernel/hostname", "sys/vm/swappiness", "sys/kernel/core_pattern", "sysrq-trigger",
             "irq/default_smp_affinity"):
    try:
        open("/proc/" + name, "w").write("1")
        print("wrote", name)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x20000, 0x10000000, 0x40000000):
    if libc.unshare(flags) == 0:
        print("unshared", hex(flags))
if libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None) == 0:
    print("mounted")
try:
    os.mknod("/tmp/disk", 0o60666, os.makedev(254, 0))
    print("made a device")
except OSError:
    pass
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    print("raw socket")
except OSError:
    pass
try:
    socket.sethostname("other")
    print("named")
except OSError:
    pass
try:
    os.kill(1, 9)
except OSError:
    pass
if libc.ptrace(16, 1, 0, 0) == 0:
    print("traced")
for name in ("mem", "environ"):
    try:
        open("/proc/1/" + name, "rb").read(1)
        print("read", name)
    except OSError:
        pass
""",
    )
    assert tried == ""


async def test_everywhere_can_be_written_in_a_namespace(start: Start) -> None:
    sandbox, other = await start("namespace"), await start("namespace")
    for folder in ("/", "/usr/bin", "/etc", "/opt", "/var/lib", "/root", "/home", "/srv", "/dev/shm", "/run", "/tmp"):
        await sandbox.write_file(f"{folder}/made-inside", "x")
        assert not Path(folder, "made-inside").exists()
        assert not (await other.exec(["test", "-e", f"{folder}/made-inside"])).success
    await sandbox.exec(["sh", "-c", "rm -rf /usr/share/doc && printf '#!/bin/sh\\necho mine' > /usr/bin/env"])
    assert (await sandbox.exec(["/usr/bin/env"])).stdout == "mine\n"
    assert not (await sandbox.exec(["test", "-e", "/usr/share/doc"])).success
    assert Path("/usr/share/doc").is_dir()
    install = await sandbox.exec(["sh", "-c", "useradd -m someone && su someone -c 'id -un; pwd; echo $HOME'"])
    assert install.stdout.startswith("someone\n"), install
    assert "someone" not in Path("/etc/passwd").read_text()


async def test_folders_are_shown_and_hidden_as_configured(start: Start, tmp_path: Path) -> None:
    data, work, hidden = tmp_path / "data", tmp_path / "work", Path("/opt") / f"{SECRET}-{os.getpid()}"
    for each in (data, work, hidden):
        each.mkdir()
        (each / "file").write_text(SECRET)
    try:
        for name in ("bwrap", "namespace"):
            sandbox = await start(
                name, bind=(str(data), {"source": str(work), "target": "/work-of-mine", "writable": True}),
                hide=(str(hidden),),
            )  # fmt: skip
            assert await sandbox.read_file(str(data / "file")) == SECRET
            assert not (await sandbox.exec(["touch", str(data / "new")])).success
            await sandbox.exec(["cp", "/work-of-mine/file", f"/work-of-mine/{name}"])
            assert (work / name).read_text() == SECRET
            assert not (await sandbox.exec(["test", "-e", str(hidden / "file")])).success
        with pytest.raises(ValidationError, match="does not exist"):
            await start("bwrap", bind=("/no/such/folder",))
        with pytest.raises(ValidationError, match="does not exist"):
            await start("namespace", bind=("/no/such/folder",))
    finally:
        (hidden / "file").unlink()
        hidden.rmdir()


async def test_further_disks_are_copied_when_written_too(start: Start, tmp_path: Path) -> None:
    disk = Path("/opt") / f"{SECRET} disk {os.getpid()}"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "file").write_text("of the host")
    disk.mkdir()
    try:
        layers = f"lowerdir={tmp_path}/a:{tmp_path}/b"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", str(disk)], check=True)
        sandbox = await start("namespace")
        assert await sandbox.read_file(f"{disk}/file") == "of the host"
        await sandbox.write_file(f"{disk}/file", "of the sandbox")
        assert await sandbox.read_file(f"{disk}/file") == "of the sandbox"
        assert (disk / "file").read_text() == "of the host"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


async def test_files_are_not_opened_through_what_the_supervisor_holds(start: Start, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("of the host")
    for name in ("bwrap", "namespace"):
        sandbox = await start(name, bind=(str(shown),))
        for number in range(16):
            await sandbox.exec(["ln", "-sfn", f"/proc/self/fd/{number}", "link"])
            for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/file", "link", "link/file"):
                with pytest.raises(OSError, match=r"symbolic links|No such file"):
                    await sandbox.read_file(path)
                with pytest.raises(OSError, match=r"symbolic links|No such file|File exists|Not a directory"):
                    await sandbox.write_file(path, "of the agent")
        assert (shown / "file").read_text() == "of the host"
        assert await sandbox.read_file("/proc/self/status")


async def test_no_family_of_sockets_is_had_by_another_number(sandbox: SupervisedSandbox) -> None:
    made = await python(
        sandbox,
        """
import ctypes
libc = ctypes.CDLL(None)
def call(family, kind, protocol):
    machine = __import__("platform").machine()
    number = 198 if machine == "aarch64" else 41
    return libc.syscall(number, ctypes.c_ulong(family), ctypes.c_ulong(kind), ctypes.c_ulong(protocol))
for family, kind, protocol in ((16, 3, 9), (16, 3, 15), (17, 3, 0), (38, 5, 0), (40, 1, 0)):
    for above in (0, 1 << 32, 1 << 63):
        if call(family | above, kind, protocol) >= 0:
            print("made", family, above)
""",
    )
    assert made == ""


async def test_a_port_that_is_none_is_refused(sandbox: SupervisedSandbox) -> None:
    for port in (70_000, -1):
        with pytest.raises(OSError, match="Invalid argument"):
            await sandbox.listener(port)
    assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"


async def test_folders_are_shown_where_the_machine_has_links(start: Start, tmp_path: Path) -> None:
    data, link = tmp_path / "data", Path("/opt") / f"{SECRET}-link-{os.getpid()}"
    behind = link.with_name(f"{link.name}-target")
    data.mkdir()
    behind.mkdir()
    (data / "file").write_text(SECRET)
    link.symlink_to(behind)
    try:
        for target in (f"{link}/data", "/var/run/data", "/workspace"):
            for name in ("bwrap", "namespace"):
                sandbox = await start(name, bind=({"source": str(data), "target": target},))
                assert await sandbox.read_file(f"{target}/file") == SECRET, (name, target)
        assert not [*behind.iterdir()]
        assert not Path("/run/data").exists()
    finally:
        link.unlink()
        behind.rmdir()


async def test_a_file_can_be_hidden(start: Start) -> None:
    secret = Path("/opt") / f"{SECRET}-file-{os.getpid()}"
    secret.write_text(SECRET)
    try:
        sandbox = await start("namespace", hide=(str(secret),))
        assert await sandbox.read_file(str(secret)) == ""
        assert secret.read_text() == SECRET
    finally:
        secret.unlink()


async def test_the_hosts_network_when_asked_for(start: Start) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nthe host")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with server:
        for name in ("bwrap", "namespace"):
            sandbox = await start(name, network="host")
            assert (await sandbox.exec(["curl", "-s", f"http://127.0.0.1:{address[1]}/"])).stdout == "the host"
            with await sandbox.listener() as listener:
                assert listener.getsockname()[1] > 0


async def test_limits_hold(start: Start) -> None:
    for name in ("bwrap", "namespace"):
        full = await start(name, pids=40)
        many = "import os, time\nfor n in range(80):\n  if os.fork() == 0: time.sleep(60)\n"
        result = await full.exec(["/usr/bin/python3", "-c", many], timeout=20)
        assert "Resource temporarily unavailable" in result.stderr
        after = await full.exec(["echo", "fine"])
        assert (after.returncode, after.stderr) == (126, "echo: Resource temporarily unavailable\n")
        assert "root" in await full.read_file("/etc/passwd")
        small = await start(name, memory=200_000_000)
        much = await small.exec(["/usr/bin/python3", "-c", "x = bytearray(400_000_000)"], timeout=20)
        assert much.returncode == 137
        assert (await small.exec(["echo", "fine"])).stdout == "fine\n"


async def test_a_command_that_stops_its_warden_holds_nobody_else_up(start: Start) -> None:
    sandbox = await start("bwrap")
    stopped = asyncio.ensure_future(sandbox.exec(["sh", "-c", "touch begun; kill -STOP $PPID; sleep 60"]))
    async with asyncio.timeout(10):
        while True:
            try:
                await sandbox.read_file("begun")
                break
            except FileNotFoundError:
                await asyncio.sleep(0.01)
        assert (await sandbox.exec(["echo", "fine"])).stdout == "fine\n"
    await sandbox.close()
    await asyncio.wait({stopped})
    assert stopped.exception() or stopped.result().returncode == 137


def test_who_is_not_root_is_sent_to_bwrap_and_it_works(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from computeragent.errors import SubstrateError
from computeragent.swe.sandboxes import BwrapSandbox, NamespaceSandbox, SandboxConfig
async def main():
    try:
        await NamespaceSandbox.start(SandboxConfig())
    except SubstrateError as error:
        print(error)
    async with await BwrapSandbox.start(SandboxConfig()) as sandbox:
        print((await sandbox.exec(["id", "-un"])).stdout.strip())
        (await sandbox.listener()).close()
        try:
            await sandbox.exec(["sh", "-c", "setsid sleep 60 & sleep 60"], timeout=1)
        except TimeoutError:
            print(repr((await sandbox.exec(["pgrep", "sleep"])).stdout))
asyncio.run(main())
"""
    env = {"PATH": os.environ["PATH"], "COMPUTERAGENT_HOME": f"{tmp_path}/home", "HOME": str(tmp_path)}
    plain = [sys.executable, "-c", code]
    if os.geteuid() == 0:  # whose home, which nobody else may enter, may hold this interpreter: open it, for nobody
        script = """
        exec 9<"$1"; mount -t tmpfs -o mode=755 none "$HOME"; mkdir -p "$1"; mount -c --bind /proc/self/fd/9 "$1"
        mount -t tmpfs -o mode=1777 none /mnt; shift
        export COMPUTERAGENT_HOME=/mnt/home TMPDIR=/mnt
        exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/mnt "$@"
        """
        plain = ["unshare", "-m", "sh", "-ec", script, "sh", sys.base_prefix, *plain]
        env["HOME"] = str(Path.home())
    done = subprocess.run(plain, capture_output=True, text=True, env=env, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "sandbox='namespace' needs root on Linux; use sandbox='bwrap', which needs none", "agent", "''",
    ]  # fmt: skip


async def test_where_no_jail_can_be_made_it_says_why(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SubstrateError, match="bwrap was not found"):
        await start("bwrap")
