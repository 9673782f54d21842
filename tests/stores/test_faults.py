"""Stores on disk when processes die, race and run out of space."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from computeragent.errors import StoreError, ValidationError
from computeragent.stores import FileSessionStore, MongoSessionStore, PostgresSessionStore, SqliteSessionStore

from .conftest import KEY, entry

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, itertools, sys
from computeragent.plugins import stores
kind, where, name, count = sys.argv[1:]
store = stores._find(kind)(*where.split("|"))
key = {"project_key": "proj", "session_id": "sess"}
async def main():
    for batch in range(int(count)):
        uuids = [f"{name}-{batch}-{n}" for n in range(20)] + [f"shared-{batch}"]
        common = {"type": "user", "batch": batch, "by": name, "x": "y" * 3000}
        await store.append(key, [{**common, "uuid": uuid} for uuid in uuids])
        print(batch, flush=True)
asyncio.run(main())
"""


def start_writer(store, name, count=10**9):
    if isinstance(store, PostgresSessionStore):
        kind, where = "postgres", store._url
    elif isinstance(store, MongoSessionStore):
        kind, where = "mongo", f"{store._url}|{store._database}"
    elif isinstance(store, FileSessionStore):
        kind, where = "file", store.root
    else:
        kind, where = "sqlite", store._given_path
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, where, name, str(count)], stdout=subprocess.PIPE, text=True
    )


async def test_a_killed_writer_leaves_whole_batches(make_durable_store):
    for attempt in range(4):
        store = make_durable_store()
        with start_writer(store, f"w{attempt}") as writer:
            acknowledged = int(writer.stdout.readline())
            time.sleep(0.01 * attempt)
            writer.send_signal(signal.SIGKILL)
            acknowledged += len(writer.stdout.readlines())
        stored = [e for e in await store.load(KEY) if e["by"] == f"w{attempt}" and not e["uuid"].startswith("shared")]
        batches = {e["batch"] for e in stored}
        assert batches >= set(range(acknowledged + 1))
        assert len(stored) == 20 * len(batches)
        await store.append(KEY, [entry(f"after-{attempt}", by="test", batch=0)])
        assert (await make_durable_store().load(KEY))[-1]["uuid"] == f"after-{attempt}"


async def test_two_processes_append_to_one_transcript(make_durable_store):
    store = make_durable_store()
    with start_writer(store, "a", 30) as one, start_writer(store, "b", 30) as two:
        for number in range(30):
            await store.append(
                KEY, [entry(f"c-{number}-0", by="c", batch=number), entry(f"shared-{number}", by="c", batch=number)]
            )
        assert one.wait() == two.wait() == 0
    stored = await store.load(KEY)
    uuids = [e["uuid"] for e in stored]
    assert len(uuids) == len(set(uuids)) == 2 * 30 * 20 + 30 + 30
    for name in "abc":
        own = [e["batch"] for e in stored if e["by"] == name]
        assert own == sorted(own)


async def test_a_store_sees_what_another_process_wrote_and_deleted(make_durable_store):
    ours, theirs = make_durable_store(), make_durable_store()
    await ours.append(KEY, [entry("a"), entry("b")])
    await theirs.append(KEY, [entry("b"), entry("c")])
    await ours.append(KEY, [entry("c"), entry("d")])
    assert [e["uuid"] for e in await theirs.load(KEY)] == ["a", "b", "c", "d"]
    await theirs.delete(KEY)
    await theirs.append(KEY, [entry("x", pad="y" * 5000)])
    await ours.append(KEY, [entry("a")])
    assert [e["uuid"] for e in await theirs.load(KEY)] == ["x", "a"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_store_works_on_both_sides_of_a_fork(make_durable_store):
    store = make_durable_store()

    def append(name):
        anyio.run(store.append, KEY, [entry(name)])

    append("before")
    child = multiprocessing.get_context("fork").Process(target=append, args=("child",))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    append("parent")
    assert [e["uuid"] for e in anyio.run(store.load, KEY)] == ["before", "child", "parent"]


async def test_a_full_disk_is_a_store_error_and_loses_nothing(make_local_store):
    store = make_local_store()
    await store.append(KEY, [entry("a")])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StoreError) as error:
            await store.append(KEY, [entry(f"{n}", text="x" * 5000) for n in range(200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.hint == "Free some disk space."
    assert await store.load(KEY) == [entry("a")]
    await store.append(KEY, [entry("b")])
    assert await make_local_store().load(KEY) == [entry("a"), entry("b")]


async def test_files_are_private_to_the_user(make_local_store, tmp_path):
    before = os.umask(0)
    try:
        await make_local_store().append(KEY, [entry("a")])
        await make_local_store().append({**KEY, "subpath": "x/y"}, [entry("a")])
        modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    assert modes.pop(False) == 0o600
    assert modes in ({}, {True: 0o700})


async def test_the_default_place_is_the_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "home"))
    await FileSessionStore().append(KEY, [entry("a")])
    await SqliteSessionStore().append(KEY, [entry("a")])
    assert (tmp_path / "home" / "transcripts" / "proj" / "sess.jsonl").is_file()
    assert (tmp_path / "home" / "sessions.db").is_file()


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def files(tmp_path) -> FileSessionStore:
    return FileSessionStore(tmp_path)


async def test_a_transcript_is_readable_json_lines_under_its_names(files, tmp_path):
    await files.append(KEY, [entry("a"), entry("b")])
    await files.append({**KEY, "subpath": "subagents/agent-1"}, [entry("c")])
    header, *lines = map(json.loads, (tmp_path / "proj" / "sess.jsonl").read_text().splitlines())
    assert {**KEY, "version": 1}.items() <= header.items()
    assert lines == [entry("a"), entry("b")]
    assert (tmp_path / "proj" / "sess" / "subagents" / "agent-1.jsonl").is_file()


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_torn_batch_is_left_out_and_then_cut_off(files, cut, fresh):
    await files.append(KEY, [entry("a")])
    await files.append(KEY, [entry("b"), entry("c")])
    path = files.path(KEY)
    os.truncate(path, path.stat().st_size - cut)
    store = FileSessionStore(files.root) if fresh else files
    assert await store.load(KEY) == [entry("a")]
    assert len(await store.list_sessions("proj")) == 1
    await store.append(KEY, [entry("c")])
    assert await store.load(KEY) == [entry("a"), entry("c")]


async def test_a_torn_first_batch_is_no_session(files):
    await files.append(KEY, [entry("a")])
    path = files.path(KEY)
    for size in (path.stat().st_size - 1, 20, 0):
        os.truncate(path, size)
        assert await files.load(KEY) is None
        assert await files.list_sessions("proj") == []
    await files.append(KEY, [entry("a")])
    assert await files.load(KEY) == [entry("a")]


async def test_a_damaged_line_is_skipped(files, caplog):
    await files.append(KEY, [entry("a"), entry("b"), entry("c")])
    path = files.path(KEY)
    path.write_bytes(path.read_bytes().replace(b'"uuid":"b"', b'"uuid":"\xff\x00'))
    with caplog.at_level("WARNING", logger="computeragent"):
        assert await files.load(KEY) == [entry("a"), entry("c")]
    assert "stores.file.bad_line" in caplog.text
    await FileSessionStore(files.root).append(KEY, [entry("a"), entry("d")])
    assert [e["uuid"] for e in await files.load(KEY)] == ["a", "c", "d"]


async def test_a_file_of_a_newer_schema_is_refused(files):
    await files.append(KEY, [entry("a")])
    path = files.path(KEY)
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    for call in (files.load(KEY), FileSessionStore(files.root).append(KEY, [entry("b")])):
        with pytest.raises(StoreError, match="schema version 2") as error:
            await call
        assert error.value.hint == "Upgrade computer-agent-py."


async def test_a_foreign_file_is_neither_listed_nor_written(files):
    (files.root / "proj").mkdir()
    files.path(KEY).write_text('{"type": "user"} \n')
    assert await files.list_sessions("proj") == []
    with pytest.raises(StoreError, match="not a transcript"):
        await files.append(KEY, [entry("b")])


async def test_ids_that_meet_in_one_file_never_mix(files, monkeypatch):
    monkeypatch.setattr("computeragent.stores.file.file_name", str.lower)
    await files.append(KEY, [entry("a")])
    other = {**KEY, "session_id": "SESS"}
    with pytest.raises(StoreError, match="another session's transcript"):
        await files.append(other, [entry("b")])
    with pytest.raises(StoreError, match="another session's transcript"):
        await files.load(other)


async def test_a_writer_that_holds_the_lock_for_ever_is_an_error(files):
    import fcntl

    await files.append(KEY, [entry("a")])
    with files.path(KEY).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="locked by another process"):
            await FileSessionStore(files.root, lock_timeout=0.05).append(KEY, [entry("b")])


async def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="cannot use"):
        await FileSessionStore(tmp_path / "taken" / "x").append(KEY, [entry("a")])


async def test_an_append_reads_only_what_is_new(files, monkeypatch):
    from computeragent.stores import journal

    read = []
    original = journal._read_from
    monkeypatch.setattr(
        journal, "_read_from", lambda fd, start, end: read.append(end - start) or original(fd, start, end)
    )
    for number in range(5):
        await files.append(KEY, [entry(f"{number}")])
    assert read == []
    await FileSessionStore(files.root).append(KEY, [entry("x")])
    await files.append(KEY, [entry("y")])
    assert read[1] == len(json.dumps(entry("x"), separators=(",", ":"))) + 2


async def test_memory_for_uuids_is_bounded(files, monkeypatch):
    monkeypatch.setattr("computeragent.stores.file._INDEXED_FILES", 3)
    for round_ in range(2):
        for number in range(6):
            await files.append({**KEY, "session_id": f"s{number}"}, [entry("a"), entry(f"r{round_}")])
    assert len(files._seen) == 3
    assert len(await files.load({**KEY, "session_id": "s0"})) == 3


# ── SQLite ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_database_may_be_shared_with_other_tables(tmp_path):
    path = tmp_path / "sessions.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.execute("CREATE TABLE events (id)")
    db.close()
    store = SqliteSessionStore(path)
    await store.append(KEY, [entry("a")])
    db = sqlite3.connect(path)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert db.execute("PRAGMA user_version").fetchone() == (99,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
    assert all(name == "events" or name.startswith("store_") for name in tables)


async def test_a_database_of_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "sessions.db"
    store = SqliteSessionStore(path)
    await store.append(KEY, [entry("a")])
    db = sqlite3.connect(path)
    db.execute("UPDATE store_meta SET value = 2")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="schema 2, this program knows 1"):
        await SqliteSessionStore(path).load(KEY)


async def test_a_file_that_is_no_database_is_a_store_error(tmp_path):
    path = tmp_path / "sessions.db"
    path.write_text("something else entirely" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await SqliteSessionStore(path).load(KEY)


async def test_a_locked_database_is_a_store_error(tmp_path):
    path = tmp_path / "sessions.db"
    store = SqliteSessionStore(path, timeout=0.05)
    await store.append(KEY, [entry("a")])
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        await store.append(KEY, [entry("b")])
    db.execute("ROLLBACK")
    db.close()
    await store.append(KEY, [entry("b")])
    assert len(await store.load(KEY)) == 2


async def test_a_closed_store_opens_again(tmp_path):
    store = SqliteSessionStore(tmp_path / "sessions.db")
    await store.append(KEY, [entry("a")])
    await store.close()
    await store.close()
    assert not Path(tmp_path / "sessions.db-wal").exists()
    assert await store.load(KEY) == [entry("a")]


async def test_many_stores_open_one_new_database_at_once(tmp_path):
    async def write(number):
        await SqliteSessionStore(tmp_path / "sessions.db").append(KEY, [entry(f"{number}")])

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(write, number)
    assert len(await SqliteSessionStore(tmp_path / "sessions.db").load(KEY)) == 12


async def test_a_postgres_server_that_goes_and_comes_back(database, schema):
    store = PostgresSessionStore(database.url(schema))
    await store.append(KEY, [entry("a")])
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid != pg_backend_pid() AND backend_type = 'client backend'"
    )
    while database.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") != "1\n":
        time.sleep(0.01)  # told to end is not ended yet
    await store.append(KEY, [entry("b")])
    assert await store.load(KEY) == [entry("a"), entry("b")]
    unreachable = PostgresSessionStore(f"postgresql://postgres:canary-secret@/postgres?host={database.folder}/none")
    with pytest.raises(StoreError, match="failed") as raised:
        await unreachable.load(KEY)
    assert "canary-secret" not in f"{raised.value} {raised.value.hint} {unreachable!r}"


async def test_a_postgres_store_of_a_later_version_is_left_alone(database, schema):
    url = database.url(schema)
    await PostgresSessionStore(url).append(KEY, [entry("a")])
    database.sql(f'UPDATE "{schema}".computeragent_meta SET version = 99')
    with pytest.raises(StoreError, match="newer"):
        await PostgresSessionStore(url).load(KEY)


def test_a_postgres_store_without_an_address_says_what_to_set(monkeypatch):
    monkeypatch.delenv("COMPUTERAGENT_POSTGRES_URL", raising=False)
    with pytest.raises(ValidationError, match="address") as raised:
        PostgresSessionStore()
    assert "COMPUTERAGENT_POSTGRES_URL" in raised.value.hint
