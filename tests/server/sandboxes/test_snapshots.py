"""Snapshots: what comes back, what never gets in, and stores that fail. S3 is moto's server, a stand-in of its wire."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from computeragent.server.sandboxes import FileSnapshotStore, MemorySnapshotStore, S3SnapshotStore, archive
from computeragent.server.sandboxes.errors import RestoreError, SnapshotError

from .conftest import BOB, WRITE, Server, agent, eventually, folders, serving

CAPS = archive.Caps(files=1_000, bytes=10_000_000)


# ── Archives ──


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    deep = root.joinpath(*"abcdefghijkl")
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("deep")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "empty").mkdir()
    (root / "näme\n.txt").write_text("odd")
    (root / "inner").symlink_to("a/b")
    (root / "a" / "up").symlink_to("../run.sh")
    (root / "outer").symlink_to("/etc/passwd")
    (root / "climbs").symlink_to("../../x")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[remote] url = https://secret@host")
    (root / "a" / ".git").write_text("gitdir: elsewhere")
    os.mkfifo(root / "pipe")
    return root


def test_a_workspace_comes_back_as_it_was(workspace: Path, tmp_path: Path) -> None:
    tar = tmp_path / "x.tar.gz"
    packed = archive.pack(workspace, tar, CAPS)
    target = tmp_path / "target"
    (target / ".git").mkdir(parents=True)
    (target / ".git" / "HEAD").write_text("fresh")
    (target / "newer").mkdir()
    (target / "newer" / "file").write_text("x")
    archive.unpack(tar, target, CAPS)
    assert target.joinpath(*"abcdefghijkl", "deep.txt").read_text() == "deep"
    assert (target / "näme\n.txt").read_text() == "odd"
    assert os.access(target / "run.sh", os.X_OK)
    assert (target / "empty").is_dir()
    assert (target / "inner").readlink() == Path("a/b")
    assert (target / "a" / "up").read_text() == "#!/bin/sh\n"
    assert (target / ".git" / "HEAD").read_text() == "fresh", "the source's own history stays"
    assert not (target / "newer").exists()
    for left_out in ("outer", "climbs", "pipe", "a/.git"):
        assert not os.path.lexists(target / left_out)
    assert packed.files == 5
    assert b"secret" not in tar.read_bytes()


def test_a_workspace_above_the_caps_is_not_packed(workspace: Path, tmp_path: Path) -> None:
    for caps in (archive.Caps(files=2, bytes=10_000), archive.Caps(files=100, bytes=5)):
        with pytest.raises(SnapshotError):
            archive.pack(workspace, tmp_path / "x.tar.gz", caps)


def tarball(path: Path, *entries: tuple[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content
                tar.addfile(entry)
    return path


LINK, HARD, FIFO, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("/etc/owned", b"x")],
        [("../owned", b"x")],
        [("a/../../owned", b"x")],
        [("..", b"x")],
        [("link", (LINK, "/etc")), ("link/owned", b"x")],
        [("link", (LINK, ".."))],
        [("a/link", (LINK, "../.."))],
        [("a/link", (LINK, "../../outside"))],
        [("link", (LINK, "a/../../outside"))],
        [("d/e/b", (LINK, "../..")), ("d/e/a", (LINK, "b/../owned"))],
        [("d", (LINK, ".")), ("d/l", (LINK, "../x"))],
        [("hard", (HARD, "/etc/passwd"))],
        [("file", b"x"), ("hard", (HARD, "file"))],
        [("pipe", (FIFO, ""))],
        [("device", (DEVICE, ""))],
        [("file", b"x"), ("file", b"y")],
        [("file", b"x"), ("file/below", b"y")],
        [("n" * 300, b"x")],
    ],
)
def test_a_hostile_archive_changes_nothing(entries: list[Any], tmp_path: Path) -> None:
    tar = tarball(tmp_path / "x.tar.gz", ("good.txt", b"good"), *entries)
    root = tmp_path / "in" / "root"
    root.mkdir(parents=True)
    (root / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RestoreError):
        archive.unpack(tar, root, CAPS)
    assert sorted(tmp_path.rglob("*")) == before
    assert (root / "mine.txt").read_text() == "mine"


def test_bombs_and_broken_archives_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    big = tarball(tmp_path / "big.tar.gz", ("zeros", bytes(20_000_000)))
    many = tarball(tmp_path / "many.tar.gz", *((f"f{n}", b"") for n in range(1_300)))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(big.read_bytes()[:-2_000])
    junk = tmp_path / "junk.tar.gz"
    junk.write_bytes(b"junk")
    small = archive.Caps(files=100, bytes=10_000_000)
    for tar, caps in ((big, CAPS), (many, small), (cut, archive.Caps(100, 30_000_000)), (junk, CAPS)):
        with pytest.raises(RestoreError):
            archive.unpack(tar, root, caps)
        assert list(root.iterdir()) == []


# ── Over the wire ──


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """moto: S3's wire without S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["memory", "file", "s3"])
def stores(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param != "s3":
        return {request.param: MemorySnapshotStore() if request.param == "memory" else FileSnapshotStore()}
    request.getfixturevalue("keys")
    url = request.getfixturevalue("s3")
    bucket = f"bucket-{request.node.name[:20].replace('_', '-')}-{os.getpid()}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=bucket)
    return {"s3": S3SnapshotStore(bucket, endpoint=url, region="us-east-1")}


@pytest.mark.anyio
async def test_a_snapshot_brings_files_back_into_a_new_sandbox(stores: dict[str, Any], state_folder: Path) -> None:
    kind = next(iter(stores))
    choice = {"stateStore": {"kind": kind}}
    async with serving(snapshot_stores=stores) as server:
        sandbox = (await server.open([WRITE], [{"text": "{user}"}], sessionId="kept", envs={"A": "1"}))["sandboxId"]
        await server.chat(sandbox, "remember me")
        taken = await server.post(f"/sandboxes/{sandbox}/snapshot", choice)
        assert taken["fileCount"] == 2
        assert taken["sizeBytes"] > 0
        (listed,) = (await server.get("/snapshots", params={"stateStore": kind}))["snapshots"]
        assert (listed["snapshotId"], listed["sourceSandboxId"]) == (taken["snapshotId"], sandbox)
        assert (listed["sourceSessionId"], listed["turnCount"], listed["workdirFileCount"]) == ("kept", 1, 2)
        none = await server.get("/snapshots", params={"stateStore": kind, "sourceSandboxId": "other"})
        assert none["snapshots"] == []
        await server.delete(f"/sandboxes/{sandbox}")
        restored = await server.post("/sandboxes/restore", {"snapshotId": taken["snapshotId"], **choice}, 201)
        assert (restored["restored"], restored["fromSnapshotId"]) == (True, taken["snapshotId"])
        assert (restored["sessionId"], restored["missing"]) == ("kept", ["envs.A"])
        path = f"/sandboxes/{restored['sandboxId']}"
        assert await server.get(f"{path}/artifact", params={"path": "notes.txt"}) == b"hello"
        assert (await server.chat(restored["sandboxId"]))[-1]["kind"] == "ca_done"
        assert await server.get(f"{path}/artifact", params={"path": "notes.txt"}) == b"hello"
        body = {"snapshotId": taken["snapshotId"], "envs": {"A": "2"}, **choice}
        assert (await server.post("/sandboxes/restore", body, 201)).get("missing") is None
        params = {"stateStore": kind}
        assert await server.delete(f"/snapshots/{taken['snapshotId']}", params=params) == {"ok": True}
        assert await server.delete(f"/snapshots/{taken['snapshotId']}", params=params) == {"ok": True}
        await server.error("POST", "/sandboxes/restore", 404, json=body)
    assert folders(state_folder) == []


@pytest.mark.anyio
async def test_two_tenants_may_use_the_same_snapshot_id(stores: dict[str, Any]) -> None:
    async with serving(snapshot_stores=stores) as server:
        bob = server.other(BOB)
        for each, text in ((server, "alice"), (bob, "bob")):
            files = [{"path": "who.txt", "content": text}]
            sandbox = (await each.open(attachments=files))["sandboxId"]
            await each.post(f"/sandboxes/{sandbox}/snapshot", {"snapshotId": "mine"})
            again = await each.error("POST", f"/sandboxes/{sandbox}/snapshot", 409, json={"snapshotId": "mine"})
            assert again["code"] == "SNAPSHOT_EXISTS"
        for each, text in ((server, b"alice"), (bob, b"bob")):
            restored = await each.post("/sandboxes/restore", {"snapshotId": "mine"}, 201)
            path = f"/sandboxes/{restored['sandboxId']}/artifact"
            assert await each.get(path, params={"path": "who.txt"}) == text
        await bob.client.aclose()


@pytest.mark.anyio
async def test_a_restore_in_place_takes_back_what_was_done_since() -> None:
    change = {"tool": "Write", "input": {"file_path": "notes.txt", "content": "changed"}}
    extra = {"tool": "Write", "input": {"file_path": "extra.txt", "content": "x"}}
    async with serving() as server:
        sandbox = (await server.open([WRITE], [change, extra], [{"text": "after {user}"}], sessionId="s"))["sandboxId"]
        await server.chat(sandbox, "one")
        snapshot = (await server.post(f"/sandboxes/{sandbox}/snapshot", {"stateStore": {"kind": "memory"}}))[
            "snapshotId"
        ]
        await server.chat(sandbox, "two")
        body = {"snapshotId": snapshot, "stateStore": {"kind": "memory"}, "target": sandbox}
        restored = await server.post("/sandboxes/restore", body)
        assert (restored["sandboxId"], restored["sessionId"], restored["restored"]) == (sandbox, "s", True)
        path = f"/sandboxes/{sandbox}/artifact"
        assert await server.get(path, params={"path": "notes.txt"}) == b"hello"
        await server.get(path, 404, params={"path": "extra.txt"})
        assert "after one" in str(await server.chat(sandbox, "three"))
        assert (await server.get("/sandboxes/by-session/s"))["sandboxId"] == sandbox
        other = body | {"runtime": "local", "policy": {"kind": "srs"}}
        await server.error("POST", "/sandboxes/restore", 400, json=other)
        await server.error("POST", "/sandboxes/restore", 404, json=body | {"target": "sbx_none"})


@pytest.mark.anyio
async def test_a_snapshot_is_whole_though_its_sandbox_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, pack = threading.Event(), threading.Event(), archive.pack

    def slow_pack(*what: Any) -> archive.Packed:
        begun.set()
        go_on.wait(10)
        return pack(*what)

    monkeypatch.setattr(archive, "pack", slow_pack)
    async with serving() as server:
        sandbox = (await server.open([WRITE]))["sandboxId"]
        await server.chat(sandbox)
        taking = asyncio.create_task(server.post(f"/sandboxes/{sandbox}/snapshot"))
        await asyncio.to_thread(begun.wait, 10)
        disposing = asyncio.create_task(server.delete(f"/sandboxes/{sandbox}"))
        await asyncio.sleep(0.1)
        go_on.set()
        assert (await disposing)["ok"]
        taken = await taking
        assert taken["fileCount"] == 2
        restored = await server.post("/sandboxes/restore", {"snapshotId": taken["snapshotId"]}, 201)
        path = f"/sandboxes/{restored['sandboxId']}/artifact"
        assert await server.get(path, params={"path": "notes.txt"}) == b"hello"


@pytest.mark.anyio
async def test_a_sandbox_that_is_deleted_while_it_is_restored_is_gone(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, unpack = threading.Event(), threading.Event(), archive.unpack

    def slow_unpack(*what: Any) -> None:
        begun.set()
        go_on.wait(10)
        unpack(*what)

    async with serving() as server:
        sandbox = (await server.open([WRITE]))["sandboxId"]
        await server.chat(sandbox)
        snapshot = (await server.post(f"/sandboxes/{sandbox}/snapshot"))["snapshotId"]
        monkeypatch.setattr(archive, "unpack", slow_unpack)
        body = {"snapshotId": snapshot, "target": sandbox}
        restoring = asyncio.create_task(server.error("POST", "/sandboxes/restore", 410, json=body))
        await asyncio.to_thread(begun.wait, 10)
        disposing = asyncio.create_task(server.delete(f"/sandboxes/{sandbox}"))
        await asyncio.sleep(0.1)
        go_on.set()
        assert (await restoring)["state"] == "disposed"
        await disposing
        assert folders(state_folder) == []


@pytest.mark.anyio
async def test_a_damaged_or_hostile_snapshot_leaves_everything_as_it_was(state_folder: Path, tmp_path: Path) -> None:
    async with serving() as server:
        sandbox = (await server.open([WRITE]))["sandboxId"]
        await server.chat(sandbox)
        snapshot = (await server.post(f"/sandboxes/{sandbox}/snapshot"))["snapshotId"]
        (tar,) = state_folder.glob(f"snapshots/*/{snapshot}.tar.gz")
        record = tar.with_name(f"{snapshot}.json")
        good, described = tar.read_bytes(), record.read_text()
        hostile = tarball(tmp_path / "x.tar.gz", ("../../owned", b"x")).read_bytes()
        honest = described.replace(hashlib.sha256(good).hexdigest(), hashlib.sha256(hostile).hexdigest())
        for data, text in ((good[:-7], described), (hostile, described), (hostile, honest), (good, "{}"), (good, "x")):
            tar.write_bytes(data)
            record.write_text(text)
            for target in ("new", sandbox):
                body = {"snapshotId": snapshot, "target": target}
                assert (await server.error("POST", "/sandboxes/restore", 500, json=body))["code"] == "RESTORE_FAILED"
        assert await server.get(f"/sandboxes/{sandbox}/artifact", params={"path": "notes.txt"}) == b"hello"
        assert len((await server.get("/sandboxes"))["sandboxes"]) == 1
        assert (await server.error("GET", "/snapshots", 500))["code"] == "LIST_FAILED"
        assert len(folders(state_folder)) == 1
        assert list(state_folder.glob("**/owned")) == []


@pytest.mark.anyio
@pytest.mark.usefixtures("keys")
async def test_a_bucket_that_is_down_fails_what_needs_it_and_nothing_else(state_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    down = S3SnapshotStore("b", endpoint=f"http://127.0.0.1:{port}", region="us-east-1")
    async with serving(snapshot_stores={"s3": down}) as server:
        sandbox = (await server.open([WRITE], autoSave={"stateStore": {"kind": "s3"}}))["sandboxId"]
        await server.chat(sandbox)
        assert (await server.error("POST", f"/sandboxes/{sandbox}/snapshot", 500))["code"] == "SNAPSHOT_FAILED"
        assert (await server.error("GET", "/snapshots", 500))["code"] == "LIST_FAILED"
        assert (await server.error("DELETE", "/snapshots/x", 500))["code"] == "DELETE_FAILED"
        body = {"snapshotId": "x"}
        assert (await server.error("POST", "/sandboxes/restore", 500, json=body))["code"] == "RESTORE_FAILED"
        assert (await server.chat(sandbox))[-1]["kind"] == "ca_done"
        gone = await server.delete(f"/sandboxes/{sandbox}")
        assert (gone["ok"], gone["autoSaved"]) == (True, False)
    assert folders(state_folder) == []


@pytest.mark.anyio
async def test_wrong_requests_about_snapshots(tmp_path: Path) -> None:
    del tmp_path
    async with serving() as server:
        sandbox = (await server.open())["sandboxId"]
        unknown = await server.error("GET", "/snapshots", 400, params={"stateStore": "tape"})
        assert (unknown["code"], unknown["available"]) == ("UNKNOWN_STATE_STORE", ["file", "memory"])
        path = f"/sandboxes/{sandbox}/snapshot"
        assert (await server.error("POST", path, 400, json={"stateStore": {"kind": "tape"}}))["code"] == unknown["code"]
        options = {"stateStore": {"kind": "file", "options": {"root": "/etc"}}}
        assert (await server.error("POST", path, 400, json=options))["code"] == "VALIDATION"
        assert (await server.error("POST", path, 400, json={"snapshotId": "../x"}))["code"] == "INVALID_SESSION_ID"
        assert (await server.error("POST", path, 400, content=b"{"))["code"] == "INVALID_JSON"
        auto = agent(autoSave={"stateStore": {"kind": "tape"}})
        assert (await server.error("POST", "/sandboxes", 400, json=auto))["code"] == unknown["code"]
        assert (await server.error("POST", "/sandboxes/restore", 400, json={}))["code"] == "INVALID_BODY"
        assert (await server.error("POST", "/sandboxes/restore", 404, json={"snapshotId": "x"}))["code"] == "NOT_FOUND"


@pytest.mark.anyio
async def test_an_expiring_sandbox_is_saved(server: Server) -> None:
    async with serving(limits={"reaper_interval_ms": 20.0}) as quick:
        body = {"autoSave": {"stateStore": {"kind": "memory"}}, "idleTtlMs": 200}
        sandbox = (await quick.open([WRITE], **body))["sandboxId"]
        await quick.chat(sandbox)

        async def saved() -> Any:
            params = {"stateStore": "memory", "sourceSandboxId": sandbox}
            return (await quick.get("/snapshots", params=params))["snapshots"]

        (snapshot,) = await eventually(saved)
        restored = await quick.post(
            "/sandboxes/restore", {"snapshotId": snapshot["snapshotId"], "stateStore": {"kind": "memory"}}, 201
        )
        content = await quick.get(f"/sandboxes/{restored['sandboxId']}/artifact", params={"path": "notes.txt"})
        assert content == b"hello"
    assert (await server.delete("/snapshots/none"))["ok"]
