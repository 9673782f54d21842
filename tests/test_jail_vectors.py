"""One table of hostile paths against every way in: file routes over HTTP, attachments, inline files, `subdir`.

`tests/test_jail.py` holds the jail itself to it; here it is what surrounds the jail: decoding, joining, copying.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from computeragent.errors import ComputerAgentError
from computeragent.harness import LocalHarness
from computeragent.identity.sources import fetch
from computeragent.protocol_types import GitSource, InlineSource, SessionRequest
from computeragent.server import create_harness_server
from computeragent.wire.requests import Attachment
from loopback import loopback

pytestmark = pytest.mark.anyio
SECRET = b"the-secret-outside"

# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────

TRAVERSAL = [
    *("..", "../", "../secret.txt", "../../secret.txt", "./..", "./../secret.txt", "sub/..", "sub/../file.txt"),
    *("sub/../../secret.txt", "a/../../b", "sub/deep/../../../secret.txt", "x/y/../../..", ".//..//secret.txt"),
    *(
        "../source",
        "../state",
        "../source.json",
        "../../",
        "sub/../../../",
        "/".join([".."] * 40),
        "a/" * 60 + "../" * 70,
    ),
    *("/", "//", "/etc/passwd", "//etc/passwd", "///etc/passwd", "/proc/self/root/etc/passwd", "/../etc/passwd", "/./"),
    *("/dev/stdin", "/proc/self/environ", "/proc/self/cwd/secret.txt", "/tmp/../etc/passwd"),
]
BROKEN = [
    *("\0", "file.txt\0", "\0../secret.txt", "file.txt\0.png", "sub/\0/x", "..\0", " ", "\t", "\n", "  \n "),
    *("a" * 256, "é" * 128, f"sub/{'b' * 256}", "/".join(["c" * 100] * 60), "d/" * 2500, "." * 300),
    *("sub/../..", "../" * 1500),
]
# What a client may put into an address by hand, decoded by the server once and never again.
RAW = [
    *("%2e%2e", "%2e%2e%2f", "%2e%2e%2fsecret.txt", "..%2fsecret.txt", "%2E%2E%2Fsecret.txt", ".%2e/secret.txt"),
    *("%2e./secret.txt", "sub%2f..%2f..%2fsecret.txt", "%2fetc%2fpasswd", "%2Fetc/passwd", "%2f%2fetc%2fpasswd"),
    *("%252e%252e%252fsecret.txt", "%25252e%25252e/secret.txt", "..%252fsecret.txt", "%%32%65%%32%65/secret.txt"),
    *("%c0%ae%c0%ae/secret.txt", "%c0%ae%c0%ae%c0%afsecret.txt", "..%c0%afsecret.txt", "%e0%80%ae%e0%80%ae/secret.txt"),
    *(
        "%f0%80%80%ae%f0%80%80%ae/x",
        "%c1%9c",
        "..%c1%9csecret.txt",
        "%uff0e%uff0e/secret.txt",
        "%u002e%u002e/secret.txt",
    ),
    *(
        "..%5csecret.txt",
        "..%5c..%5cetc%5cpasswd",
        "%5c..%5csecret.txt",
        "..%255csecret.txt",
        "sub%5c..%5c..%5csecret.txt",
    ),
    *("%00", "file.txt%00", "..%00/secret.txt", "%2e%2e%00%2fsecret.txt", "file.txt%00.png", "file.txt%2500"),
    *(
        "..;/secret.txt",
        "..%3b/secret.txt",
        "..+/secret.txt",
        "%20../secret.txt",
        "..%20/secret.txt",
        "%09../secret.txt",
    ),
    *("..%0d%0a/secret.txt", "%0a../secret.txt", "..%ff/secret.txt", "%ed%a0%80/../secret.txt", "%", "%2", "%zz"),
    *(
        "file%3a%2f%2f%2fetc%2fpasswd",
        "%7e/secret.txt",
        "%ef%bc%8e%ef%bc%8e%ef%bc%8fsecret.txt",
        "%e2%80%a4%e2%80%a4/x",
    ),
]
# Through what an agent may have left in its workspace.
THROUGH = [
    *(
        "out/secret.txt",
        "out-relative/secret.txt",
        "out-file",
        "out-file-relative",
        "hop/secret.txt",
        "sub/up/secret.txt",
    ),
    *(
        "etc/passwd",
        "slash/etc/passwd",
        "proc/etc/passwd",
        "proc-cwd/pyproject.toml",
        "proc-fd/0",
        "parent/source.json",
    ),
    *("parent/source/file.txt", "./out/./secret.txt", "sub//up//secret.txt", "hop//secret.txt", "loop", "loop/x"),
    *("loop-a", "loop-b/x", "out-new", "out/new.txt", "out/a/b/c.txt", "hop/new.txt", "parent/new.txt"),
    *("hop-hop/secret.txt", "dir/link/secret.txt", "chain-1", "out-dangling/x"),
]
SPECIAL = ["fifo", "socket", "device", "to-fifo", "fifo/x", "device/x"]
FINE = [
    *("..foo", "..bar/foo", "...", "a..b", "foo..", ".hidden", "-rf", "--", "~", "~root/x", "$HOME", "a b", " leading"),
    *("trailing ", "..\\..\\etc", "C:\\x", "con", "`id`", "new\nline", "．．", "․․", "a/．．/b", "％2e％2e"),
    *("caf\u00e9", "cafe\u0301", "\u202egnp.exe", "🦊/🐢.md", "FILE.TXT", "a" * 255, "a//b", "./c/./d", "?x#y&z"),
]  # fmt: skip


def test_the_table_is_long_enough() -> None:
    assert len({*TRAVERSAL, *BROKEN, *RAW, *THROUGH, *SPECIAL, *FINE}) >= 160


# ── What lies around ─────────────────────────────────────────────────────────────────────────────────────────


def set_traps(root: Path, outside: Path) -> None:
    """Everything in a workspace that points out of it, or is no file."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "dir").mkdir()
    (root / "file.txt").write_bytes(b"inside")
    away = os.path.relpath(outside, root)
    for name, target in {
        "out": outside,
        "out-relative": away,
        "out-file": outside / "secret.txt",
        "out-file-relative": f"{away}/secret.txt",
        "out-new": outside / "new.txt",
        "out-dangling": outside / "nowhere",
        "hop": "out-relative",
        "hop-hop": "hop",
        "sub/up": os.path.relpath(outside, root / "sub"),
        "dir/link": outside,
        "chain-1": "chain-2",
        "chain-2": "chain-3",
        "chain-3": outside / "secret.txt",
        "slash": "/",
        "etc": "/etc",
        "proc": "/proc/self/root",
        "proc-cwd": "/proc/self/cwd",
        "proc-fd": "/proc/self/fd",
        "loop": "loop",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "parent": "..",
    }.items():
        (root / name).symlink_to(target)


def set_special(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "to-fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: reading it never ends
    else:
        os.mkfifo(root / "device")


def seen(*folders: Path) -> dict[str, Any]:
    """All that is in folders, by name, with sizes, contents and modes."""
    found: dict[str, Any] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else status.st_nlink if path.is_file() else None
            found[str(path)] = (status.st_mode, content)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "agent.yaml").write_text('name: outside\nversion: "1"\n')
    return folder


# ── The routes ───────────────────────────────────────────────────────────────────────────────────────────────


class Routes:
    """The file routes of one session, whose workspace is full of traps."""

    def __init__(self, client: httpx2.AsyncClient, session: str, root: Path) -> None:
        self.client, self.root = client, root
        self._fs = f"/v1/sessions/{session}/fs"

    async def get(self, raw: str) -> httpx2.Response:
        return await self.client.get(f"{self._fs}/file?path={raw}")

    async def put(self, raw: str, data: bytes = b"written") -> httpx2.Response:
        return await self.client.put(f"{self._fs}/file?path={raw}", content=data)

    async def by_query(self, raw: str) -> list[httpx2.Response]:
        """Every route that takes a path in its address."""
        return [
            await self.get(raw),
            await self.client.get(f"{self._fs}/tree?path={raw}&depth=8"),
            await self.put(raw),
            await self.put(f"{raw}/../../further"),
            await self.client.delete(f"{self._fs}/file?path={raw}"),
            await self.client.delete(f"{self._fs}/file?path={raw}&recursive=true"),
        ]

    async def by_body(self, path: str) -> list[httpx2.Response]:
        """Every route that takes a path in its body."""
        bodies = [
            ("edit", {"path": path, "oldString": "secret", "newString": "x", "replaceAll": True}),
            ("edit", {"path": path, "oldString": "", "newString": "x"}),
            ("mkdir", {"path": path}),
            ("mkdir", {"path": f"{path}/../made", "recursive": True}),
            ("move", {"from": path, "to": "stolen"}),
            ("move", {"from": "file.txt", "to": path}),
            ("move", {"from": "file.txt", "to": f"{path}/../../moved"}),
        ]
        return [await self.client.post(f"{self._fs}/{name}", json=body) for name, body in bodies]


@pytest.fixture
async def routes(state_folder: Path, outside: Path) -> AsyncIterator[Routes]:
    async with loopback(create_harness_server()) as url, httpx2.AsyncClient(base_url=url, timeout=20) as client:
        body = {
            "engine": "scripted",
            "identity": {"loader": "passthrough", "source": {"type": "inline", "manifest": {"name": "a"}}},
            "streamingInput": True,
        }
        session = (await client.post("/v1/sessions", json=body)).json()["sessionId"]
        root = state_folder / "work" / session / "source"
        set_traps(root, outside)
        yield Routes(client, session, root)


def around(routes: Routes, outside: Path) -> dict[str, Any]:
    """Everything outside of the workspace that a path might reach."""
    return seen(outside, routes.root.parent / "state") | {
        str(each): each.read_bytes() for each in routes.root.parent.iterdir() if each.is_file()
    }


@pytest.mark.parametrize("group", [TRAVERSAL, BROKEN], ids=["traversal", "broken"])
async def test_a_path_that_leaves_is_refused_by_every_route(group: list[str], routes: Routes, outside: Path) -> None:
    before = around(routes, outside)
    inside = seen(routes.root)
    for path in group:
        for answer in [*await routes.by_query(quote(path, safe="")), *await routes.by_body(path)]:
            assert 400 <= answer.status_code < 500, (path[:80], answer.request.url, answer.text[:200])
            assert SECRET not in answer.content
            assert answer.json()["error"]["code"] in {
                "PATH_ESCAPE",
                "WORKSPACE",
                "NOT_FOUND",
                "MISSING_PATH",
                "TOO_LARGE",
            }
            assert str(routes.root) not in answer.text
    assert around(routes, outside) == before
    assert seen(routes.root) == inside


async def test_an_address_is_decoded_once_and_no_encoding_leaves(routes: Routes, outside: Path) -> None:
    before = around(routes, outside)
    for raw in RAW:
        for answer in await routes.by_query(raw):
            assert answer.status_code < 500, (raw, answer.text[:200])
            assert SECRET not in answer.content, raw
            assert b"root:" not in answer.content, raw
        for answer in await routes.by_body(raw):
            assert answer.status_code < 500, (raw, answer.text[:200])
        (routes.root / "file.txt").write_bytes(b"inside")
    assert around(routes, outside) == before
    assert (routes.root / "file.txt").read_bytes() == b"inside"


async def test_nothing_is_reached_through_links(routes: Routes, outside: Path) -> None:
    before = around(routes, outside)
    for path in THROUGH:
        for raw in (quote(path), f"{quote(path)}/further"):
            reading = await routes.get(raw)
            assert 400 <= reading.status_code < 500, path
        answers = [reading, await routes.put(f"{quote(path)}/further"), *await routes.by_body(path)]
        for answer in [*answers, *await routes.by_body(f"{path}/further"), *await routes.by_query(quote(path))]:
            assert answer.status_code < 500, (path, answer.text[:200])
            assert SECRET not in answer.content, path
            assert b"root:" not in answer.content, path
        assert around(routes, outside) == before, path
        _renew(routes.root, outside)  # links themselves may be moved and deleted
    assert Path("/etc/passwd").stat().st_size > 0


def _renew(root: Path, outside: Path) -> None:
    subprocess.run(["find", str(root), "-mindepth", "1", "-delete"], check=True)
    set_traps(root, outside)


async def test_a_listing_does_not_enter_links(routes: Routes, outside: Path) -> None:
    (tree,) = [
        answer for answer in [await routes.client.get(f"{routes._fs}/tree?depth=8")] if answer.status_code == 200
    ]
    listed = {entry["path"]: entry["type"] for entry in tree.json()["entries"]}
    assert listed["out"] == listed["slash"] == listed["loop"] == "symlink"
    assert not any(path.startswith(("out/", "slash/", "parent/", "proc/")) for path in listed)


async def test_pipes_sockets_and_devices_neither_hang_nor_answer(routes: Routes) -> None:
    set_special(routes.root)
    for path in SPECIAL:
        for answer in [await routes.get(path), await routes.put(path), await routes.put(f"{path}/x")]:
            assert 400 <= answer.status_code < 500, (path, answer.text)
        edit = await routes.client.post(f"{routes._fs}/edit", json={"path": path, "oldString": "a", "newString": "b"})
        assert 400 <= edit.status_code < 500


async def test_odd_names_are_ordinary_names(routes: Routes) -> None:
    for number, path in enumerate(FINE):
        data = f"content {number}".encode()
        written = await routes.put(quote(path, safe=""), data)
        assert written.json() == {"ok": True, "size": len(data)}, path
        assert (await routes.get(quote(path, safe=""))).content == data
        assert (routes.root / path).read_bytes() == data
    composed, decomposed = FINE.index("caf\u00e9"), FINE.index("cafe\u0301")
    for number in (composed, decomposed):
        assert (await routes.get(quote(FINE[number]))).content == f"content {number}".encode()


async def test_a_hard_link_is_replaced_and_its_other_name_left_alone(routes: Routes, outside: Path) -> None:
    os.link(outside / "secret.txt", routes.root / "hard")
    assert (await routes.put("hard", b"mine")).status_code == 200
    edit = {"path": "hard", "oldString": "mine", "newString": "still mine"}
    assert (await routes.client.post(f"{routes._fs}/edit", json=edit)).status_code == 200
    assert (outside / "secret.txt").read_bytes() == SECRET
    assert (await routes.get("hard")).content == b"still mine"


@contextmanager
def swapping(root: Path, outside: Path) -> Iterator[None]:
    """A thread that makes `swap` a folder, a link out, and a folder again, as fast as it can."""
    (root / "swap").mkdir()
    (root / "swap" / "secret.txt").write_bytes(b"inside")
    (root / "link").symlink_to(outside)
    libc, here = ctypes.CDLL(None, use_errno=True), -100
    first, second = os.fsencode(root / "swap"), os.fsencode(root / "link")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            assert libc.renameat2(here, first, here, second, 2) == 0  # both at once: RENAME_EXCHANGE

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(routes: Routes, outside: Path) -> None:
    before = around(routes, outside)
    statuses: set[int] = set()
    with swapping(routes.root, outside):
        for number in range(150):
            answers = [
                await routes.get("swap/secret.txt"),
                await routes.put(f"swap/new-{number}"),
                await routes.client.post(
                    f"{routes._fs}/mkdir", json={"path": f"swap/made-{number}/x", "recursive": True}
                ),
                await routes.client.post(f"{routes._fs}/move", json={"from": "sub/deep", "to": f"swap/gone-{number}"}),
                await routes.client.delete(f"{routes._fs}/file?path=swap/secret.txt"),
            ]
            (routes.root / "sub" / "deep").mkdir(exist_ok=True)
            for answer in answers:
                statuses.add(answer.status_code)
                assert answer.status_code < 500, answer.text
                assert SECRET not in answer.content
    assert around(routes, outside) == before
    assert statuses >= {200, 400}  # it was the one and the other, as it should


# ── Attachments and inline files ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def repository(tmp_path: Path, outside: Path) -> str:
    """A repository that is full of traps, as anybody may publish it."""
    origin = tmp_path / "origin"
    origin.mkdir()
    set_traps(origin, outside)
    for folder in ("agent", "..agent", "sub/deep"):
        (origin / folder).mkdir(parents=True, exist_ok=True)
        (origin / folder / "agent.yaml").write_text('name: inside\nversion: "1"\n')
    who = {f"GIT_{role}_{key}": "t@example.invalid" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null", **who}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "traps"]):
        subprocess.run(["git", *words], cwd=origin, env=env, check=True, capture_output=True)
    return f"file://{origin}"


async def test_no_attachment_is_written_outside(repository: str, state_folder: Path, outside: Path) -> None:
    harness = LocalHarness()
    before = seen(outside)
    request = SessionRequest(source=GitSource(url=repository), engine="scripted", identity_loader="passthrough")
    for path in [*TRAVERSAL, *BROKEN[:16], *THROUGH]:
        with pytest.raises(ComputerAgentError):
            await harness.open(_with(request, attachments=[Attachment(path=path, content="x")], session_id="one"))
    assert seen(outside) == before
    assert list((state_folder / "work").iterdir()) == []  # nothing is left of what could not be opened
    assert not any(each.name in {"secret.txt", "new.txt"} for each in (state_folder / "work").rglob("*"))
    fine = [Attachment(path=path, content=path) for path in FINE]
    session = await harness.open(_with(request, attachments=fine, session_id="two"))
    for path in FINE:
        assert await session.files.read(path) == path.encode()
    await harness.close()


def _with(request: SessionRequest, **fields: Any) -> SessionRequest:
    from dataclasses import replace

    return replace(request, **fields)


async def test_no_inline_file_is_written_outside(state_folder: Path, tmp_path: Path, outside: Path) -> None:
    harness = LocalHarness()
    before = seen(outside, *(each for each in state_folder.iterdir() if each.is_dir()))

    def inline(files: dict[str, str], **fields: Any) -> SessionRequest:
        source = InlineSource(manifest={"name": "a"}, files=files)
        return SessionRequest(source=source, engine="scripted", identity_loader="passthrough", **fields)

    for path in [*TRAVERSAL, *BROKEN]:
        with pytest.raises(ComputerAgentError):
            await harness.open(inline({"a.txt": "x", path: "x"}))
    after = seen(outside, *(each for each in state_folder.iterdir() if each.is_dir()))
    assert {name for name in after.keys() - before.keys() if Path(name).is_file()} == set()
    session = await harness.open(inline({path: path for path in FINE}))
    for path in FINE:
        assert await session.files.read(path) == path.encode()
    await harness.close()


async def test_no_subdir_is_outside_of_its_repository(repository: str, tmp_path: Path) -> None:
    into = tmp_path / "clone" / "source"
    for subdir in [
        *TRAVERSAL,
        *BROKEN,
        *THROUGH,
        "out",
        "out-relative",
        "hop",
        "hop-hop",
        "sub/up",
        "slash",
        "etc",
        "dir/link",
    ]:
        with pytest.raises(ComputerAgentError):
            await fetch(GitSource(url=repository, subdir=subdir), into=into, in_place=True)
    for subdir in ("agent", "..agent", "./agent", "agent/", "sub//deep", "sub/deep"):
        fetched = await fetch(GitSource(url=repository, subdir=subdir), into=into, in_place=True)
        assert fetched.path.resolve().is_relative_to(into.resolve())
        assert (fetched.path / "agent.yaml").read_text().startswith("name: inside")
