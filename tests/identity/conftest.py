"""Real repositories, and a real `git http-backend` behind a small server on loopback."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TOKEN = "tok-8c1f5d0ea7"


def git(*arguments: str, cwd: Path) -> str:
    """Run git for a test's set-up, without the developer's own settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _PERSON.items()},
    }
    done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


_PERSON = {"NAME": "Test", "EMAIL": "test@example.invalid", "DATE": "2026-01-01T00:00:00Z"}


@dataclass(frozen=True)
class Repo:
    """A repository with two branches, two tags and a folder; `commits` oldest first."""

    path: Path
    commits: list[str]


def make_repo(path: Path) -> Repo:
    path.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=path)
    commits: list[str] = []
    for number in (1, 2, 3):
        (path / "number.txt").write_text(str(number))
        (path / "agents" / "triage").mkdir(parents=True, exist_ok=True)
        (path / "agents" / "triage" / "agent.yaml").write_text(f'name: triage\nversion: "{number}"\n')
        git("add", "-A", cwd=path)
        git("commit", "-q", "-m", f"commit {number}", cwd=path)
        commits.append(git("rev-parse", "HEAD", cwd=path))
        if number < 3:
            git("tag", f"v{number}", cwd=path)
    git("branch", "feature/one", commits[0], cwd=path)
    return Repo(path, commits)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "origin")


@dataclass
class GitServer:
    """`/private/` wants Basic auth with the token, `/strict/` refuses wrong tokens only, `/public/` asks nothing."""

    root: Path
    port: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    command_lines: set[str] = field(default_factory=set)
    hang: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def authorizations(self) -> set[str | None]:
        return {value for _, value in self.requests}


@pytest.fixture
def server(tmp_path: Path, repo: Repo) -> Iterator[GitServer]:
    root = tmp_path / "served"
    for area in ("private", "public", "strict"):
        (root / area).mkdir(parents=True)
        git("clone", "-q", "--bare", str(repo.path), str(root / area / "agent.git"), cwd=tmp_path)
    state = GitServer(root)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    httpd.daemon_threads = True
    state.port = httpd.server_port
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.hang.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def basic(token: str, username: str = "x-access-token") -> str:
    return "Basic " + base64.b64encode(f"{username}:{token}".encode()).decode()


def _handler(state: GitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            sent = self.headers.get("Authorization")
            state.requests.append((path, sent))
            state.command_lines |= command_lines()
            area = path.split("/")[1]
            if area == "hang":
                state.hang.wait(30)
                self.close_connection = True
                return
            allowed = sent in {basic(TOKEN), basic(TOKEN, "robot")}
            if (area == "private" and not allowed) or (area == "strict" and sent and not allowed):
                self._answer(401, [("WWW-Authenticate", 'Basic realm="git"')], b"")
                return
            if area == "forbidden":
                self._answer(403, [], b"")
                return
            length = int(self.headers.get("Content-Length") or 0)
            done = subprocess.run(
                ["git", "-c", "uploadpack.allowAnySHA1InWant=true", "http-backend"],
                input=self.rfile.read(length),
                capture_output=True,
                check=False,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(state.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(length),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
            status = next((int(value.split()[0]) for key, value in fields if key == "Status"), 200)
            self._answer(status, [(key, value) for key, value in fields if key != "Status"], body)

        do_POST = do_GET

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.close_connection = True
            with suppress(ConnectionError):  # the client was killed meanwhile
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    return Handler


def command_lines() -> set[str]:
    """The arguments of every process now: git and its helpers are among them while a request is served."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return found
