"""What a jail keeps out, tried from within it."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from pathlib import Path

import pytest
from tests.substrates.conftest import Inside

from computeragent.errors import ValidationError
from computeragent.substrates.bwrap import BwrapSubstrate

SECRET = "canary-6f1b0a9c"


def test_nothing_of_the_hosts_files_can_be_read(inside: Inside, tmp_path: Path) -> None:
    planted = [
        tmp_path / "host-secret",
        Path.home() / ".computeragent-canary",
        Path("/tmp") / f"computeragent-canary-{os.getpid()}",
        Path("/var/tmp") / f"computeragent-canary-{os.getpid()}",
    ]
    try:
        for path in planted:
            path.write_text(SECRET)
        found = inside(
            f"""
            import os
            from pathlib import Path
            for path in {[str(path) for path in (*planted, Path.home() / ".bashrc")]} + ["/etc/shadow", "/etc/hostname",
                    "/etc/ssl/private", "/run", "/var/lib", "/var/run/docker.sock", "/sys", "/boot", "/srv", "/mnt"]:
                if os.path.exists(path):
                    print(path)
            home = Path.home()
            print(home, list(home.iterdir()))
            """
        )
    finally:
        for path in planted:
            path.unlink(missing_ok=True)
    assert found == "/home/agent []"


def test_only_its_own_folders_and_temporary_ones_can_be_written(inside: Inside, folders: tuple[Path, Path]) -> None:
    written = inside(
        """
        import os, sys
        for folder in ["/", "/usr", "/etc", "/session", "/home", sys.prefix, sys.base_prefix, "/session/source",
                       "/session/state", "/tmp", "/var/tmp", "/home/agent", "/dev/shm"]:
            try:
                with open(f"{folder}/made", "w") as file:
                    file.write("x")
                print(folder)
            except OSError:
                pass
        """
    )
    lasting = {"/session/source", "/session/state"}
    assert set(written.splitlines()) >= lasting | {"/tmp", "/var/tmp", "/home/agent"}
    for folder in set(written.splitlines()) - lasting:
        assert not Path(folder, "made").exists()
    assert (folders[0] / "made").is_file()
    assert (folders[1] / "made").stat().st_uid == os.geteuid()


def test_nothing_of_the_parents_environment_is_inherited(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    found = inside(
        """
        import os
        from pathlib import Path
        print(sorted(os.environ))
        for each in Path("/proc").glob("[0-9]*/environ"):
            try:
                print(each.read_bytes())
            except OSError:
                pass
        """
    )
    assert SECRET not in found.replace("\\0", "")
    assert "'HOME', 'IS_SANDBOX'" in found


def test_only_its_own_processes_can_be_seen(inside: Inside) -> None:
    listed = inside("import os; print(sorted(int(each) for each in os.listdir('/proc') if each.isdigit()))")
    assert listed == "[1, 2]"


def test_no_network_reaches_anything_of_the_host(inside: Inside) -> None:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0computeragent-canary-{os.getpid()}")
    abstract.listen()
    with http.server.HTTPServer(("127.0.0.1", 0), Hello) as server, abstract:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = f"""
        import socket
        metadata = ("169.254.169.254", 80)
        for address in [("127.0.0.1", {server.server_port}), metadata, ("10.0.0.1", 80), ("1.1.1.1", 53)]:
            try:
                socket.create_connection(address, timeout=2)
                print("reached", address)
            except OSError:
                pass
        try:
            socket.socket(socket.AF_UNIX).connect("\\0computeragent-canary-{os.getpid()}")
            print("reached an abstract socket")
        except OSError:
            pass
        try:
            socket.getaddrinfo("example.com", 80)
            print("resolved a name")
        except OSError:
            pass
        print("tried")
        """
        assert inside(code) == "tried"
        assert "reached ('127.0.0.1'" in inside(code, BwrapSubstrate(network="host"))
        server.shutdown()


def test_it_cannot_gain_rights_or_reach_the_kernel(inside: Inside) -> None:
    found = inside(
        """
        import ctypes, errno, os, socket
        libc = ctypes.CDLL(None, use_errno=True)
        def refused(name, *arguments):
            ctypes.set_errno(0)
            result = getattr(libc, name)(*arguments)
            return result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
        print(refused("unshare", 0x10000000), refused("mount", b"none", b"/tmp", b"tmpfs", 0, None),
              refused("ptrace", 16, os.getppid(), 0, 0), refused("setns", 0, 0), refused("syscall", 425, 1, 0))
        try:
            socket.socket(40, socket.SOCK_STREAM)
            print("opened a hypervisor socket")
        except OSError as error:
            print(errno.errorcode[error.errno])
        wanted = ("CapEff", "NoNewPrivs", "Seccomp:")
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith(wanted)])
        """
    )
    assert found.splitlines() == ["True True True True True", "EPERM", "['0000000000000000', '1', '2']"]


def test_nothing_of_the_kernels_or_of_the_hosts_devices_can_be_changed(inside: Inside) -> None:
    found = inside(
        """
        import os
        for folder, folders, files in os.walk("/proc"):
            if folder == "/proc":
                folders[:] = [each for each in folders if not each.isdigit() and each not in ("self", "thread-self")]
            for name in files:
                try:
                    os.close(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_NONBLOCK))
                    print("can be written:", f"{folder}/{name}")
                except OSError:
                    pass
        for name in ("kpageflags", "slabinfo", "vmallocinfo"):
            try:
                print(name, len(open(f"/proc/{name}", "rb").read(10)))
            except OSError:
                pass
        for name in ("full", "null", "random", "tty", "urandom", "zero"):
            try:
                os.chmod(f"/dev/{name}", 0o666)
                print("can be closed:", name)
            except OSError:
                pass
        open("/dev/null", "w").write("x")
        print(len(open("/dev/urandom", "rb").read(3)), open("/proc/sys/kernel/ostype").read().strip())
        """
    )
    assert found == "3 Linux"


def test_programs_and_the_interpreter_work(inside: Inside) -> None:
    found = inside(
        """
        import getpass, ssl, sqlite3, subprocess, sys
        import computeragent
        print(getpass.getuser(), subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.split()[0])
        print(len(ssl.create_default_context().get_ca_certs()) > 0 or ssl.get_default_verify_paths().cafile is None)
        """
    )
    assert found.splitlines() == ["agent git", "True"]


@pytest.mark.parametrize("target", ["/session", "/session/source/x", "/data/x", "data", "/a/../b"])
def test_nothing_is_mounted_below_what_the_agent_can_write(target: str, tmp_path: Path) -> None:
    binds = [{"source": tmp_path, "target": "/data", "writable": True}, {"source": tmp_path, "target": target}]
    with pytest.raises(ValidationError, match="bind target"):
        BwrapSubstrate(bind=binds)


def test_more_folders_can_be_shown(inside: Inside, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "numbers").write_text("1 2 3")
    shown = BwrapSubstrate(bind=[data, {"source": data, "target": "/data", "writable": True}])
    code = f"""
        print(open({str(data / "numbers")!r}).read())
        open("/data/more", "w").write("x")
        try:
            open({str(data / "less")!r}, "w")
        except OSError as error:
            print(error.strerror)
    """
    assert inside(code, shown).splitlines() == ["1 2 3", "Read-only file system"]
    assert (data / "more").is_file()
