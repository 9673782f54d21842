"""The durable log: what is committed survives, a session has one owner, and what cannot be written is said."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from computeragent.errors import EventLogError, NotFoundError, SessionLiveError
from computeragent.eventlog import SqliteEventLog
from computeragent.harness import LocalHarness
from puppets import drain, kinds, request

from .events import ended, said, started, turn

pytestmark = pytest.mark.anyio

# Runs of a few events each, one after another, as quickly as they go; "ready" once there is something to lose.
BUSY_WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from computeragent.eventlog import SqliteEventLog
from eventlog.events import ended, said, started, turn
async def main():
    log = SqliteEventLog(sys.argv[1])
    while True:
        channel = await log.open("s")
        channel.append(started())
        channel.append(turn(channel.summary.turns))
        print("ready", flush=True)
        for _ in range(20):
            channel.append(said())
            await asyncio.sleep(0)
        channel.append(ended())
        await log.release(channel)
asyncio.run(main())
"""
HOLDER = """
import asyncio, sys
from computeragent.eventlog import SqliteEventLog
async def main():
    log = SqliteEventLog(sys.argv[1])
    await log.open("s")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await log.close()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteEventLog]:
    made = SqliteEventLog(path)
    yield made
    await made.close()


@contextmanager
def process(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the same file, once it has said that it is ready."""
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.kill()


def change(path: Path, statement: str) -> None:
    """Do something to the file behind the log's back."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


async def test_what_is_committed_is_there_for_the_next_process_to_open(path: Path, log: SqliteEventLog):
    channel = await log.open("s")
    for event in (started(), turn(0), said("ü"), ended()):
        channel.append(event)
    await log.release(channel)
    other = SqliteEventLog(path)
    found = await other.read("s")
    assert kinds(found) == ["ca_session_started", "ca_turn_started", "sdk_message", "ca_session_ended"]
    assert [recorded.data for recorded in found] == [recorded.data for recorded in await log.read("s")]
    await other.close()


async def test_the_file_is_private_and_in_the_state_folder(state_folder: Path):
    log = SqliteEventLog()
    await log.sessions()
    assert log.path == state_folder / "sessions.db"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    await log.close()


async def test_readers_see_an_event_only_once_it_is_committed(path: Path, log: SqliteEventLog):
    channel = await log.open("s")
    for event in (started(), said(), ended()):
        channel.append(event)
    with closing(sqlite3.connect(path)) as db:
        async for recorded in channel.stream():
            (newest,) = db.execute("SELECT newest FROM log_sessions").fetchone()
            assert newest >= recorded.id


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05])
async def test_a_run_whose_writer_was_killed_is_ended_exactly_once(delay: float, path: Path, tmp_path: Path):
    with process(BUSY_WRITER, path) as writer:
        await asyncio.sleep(delay)
        writer.kill()
        writer.wait()
    for _ in range(2):  # the second opening finds nothing left to mend
        log = SqliteEventLog(path)
        harness = LocalHarness(log=log)
        session = await harness.open(request(tmp_path, session_id="s"))
        await session.close()
        found = await log.read("s", limit=10_000)
        await harness.close()
        await log.close()
        assert [recorded.id for recorded in found] == list(range(len(found)))
        edges = [kind for kind in kinds(found) if kind in {"ca_session_started", "ca_session_ended"}]
        assert edges == ["ca_session_started", "ca_session_ended"] * (len(edges) // 2)
        codes = [recorded.event.error_code for recorded in found if recorded.event.kind == "ca_session_ended"]
        assert codes.count("INTERRUPTED") <= 1
        assert codes[-1] is None


async def test_the_end_of_a_killed_run_says_so(path: Path, tmp_path: Path):
    with process(HOLDER, path) as holder:
        holder.kill()
        holder.wait()
    log = SqliteEventLog(path)
    channel = await log.open("s")
    channel.append(started())
    await channel.flush()
    await log.close()  # neither ended nor released: as good as killed
    harness = LocalHarness(log=SqliteEventLog(path))
    await (await harness.open(request(tmp_path, session_id="s"))).close()
    end = (await harness.log.read("s"))[1].event
    assert (end.kind, end.reason, end.error_code) == ("ca_session_ended", "error", "INTERRUPTED")
    assert end.error_message == "the process that ran this session ended before the run did"
    await harness.close()
    await harness.log.close()


async def test_two_processes_cannot_run_one_session(path: Path, log: SqliteEventLog):
    with process(HOLDER, path) as holder:
        with pytest.raises(SessionLiveError, match="session s is live in another harness") as caught:
            await log.open("s")
        assert (caught.value.code, caught.value.status) == ("SESSION_LIVE", 409)
        await log.open("another")
        holder.communicate("\n")
    await log.open("s")


async def test_orphans_are_the_sessions_whose_process_is_gone(path: Path, log: SqliteEventLog):
    await log.open("mine")
    with process(HOLDER, path) as holder:
        assert await log.orphans() == []
        holder.kill()
        holder.wait()
    assert await log.orphans() == ["s"]


async def test_a_writer_whose_session_was_taken_over_writes_nothing_more(path: Path, log: SqliteEventLog):
    channel = await log.open("s")
    channel.append(started())
    await channel.flush()
    reader = asyncio.create_task(drain(channel.stream()))
    change(path, "UPDATE log_sessions SET generation = generation + 1")
    channel.append(said("too late"))
    with pytest.raises(EventLogError, match="session s was taken over by another process"):
        await channel.flush()
    with pytest.raises(EventLogError, match="taken over"):
        await reader
    with pytest.raises(EventLogError, match="taken over"):
        channel.append(ended())
    assert kinds(await log.read("s")) == ["ca_session_started"]


async def test_a_fenced_session_takes_nobody_else_along(path: Path, log: SqliteEventLog):
    lost, fine = await log.open("lost"), await log.open("fine")
    change(path, "UPDATE log_sessions SET generation = 9 WHERE session_id = 'lost'")
    lost.append(started("lost"))
    fine.append(started("fine"))
    await fine.flush()
    with pytest.raises(EventLogError):
        await lost.flush()
    assert len(await log.read("fine")) == 1


async def test_an_open_that_was_cancelled_holds_nothing(log: SqliteEventLog):
    await log.sessions()
    opening = asyncio.create_task(log.open("s"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (await log.open("s")).generation >= 1


async def test_a_session_whose_release_could_not_be_written_can_be_opened_again(path: Path, log: SqliteEventLog):
    channel = await log.open("s")
    channel.append(started())
    await channel.flush()
    change(path, "CREATE TRIGGER full BEFORE UPDATE ON log_sessions BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(EventLogError, match="disk full"):
        await log.release(channel)
    change(path, "DROP TRIGGER full")
    assert (await log.open("s")).live


async def test_a_log_that_cannot_write_breaks_its_readers_and_its_writer_and_not_their_thread(
    path: Path, log: SqliteEventLog
):
    channel = await log.open("s")
    channel.append(started())
    reader = asyncio.create_task(drain(channel.stream()))
    await channel.flush()
    change(path, "CREATE TRIGGER full BEFORE INSERT ON log_events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    channel.append(said())
    with pytest.raises(EventLogError, match=r"^the event log sessions\.db cannot be used: disk full$") as caught:
        await reader
    assert caught.value.hint == "Check free space and permissions of COMPUTERAGENT_HOME, then run again."
    with pytest.raises(EventLogError):
        channel.append(said())
    assert kinds(await log.read("s")) == ["ca_session_started"]


FULL_DISK = """
import asyncio, resource, sys
from computeragent import ComputerAgent, ComputerAgentError
from computeragent.engines.scripted import ScriptedEngine
from computeragent.eventlog import SqliteEventLog
async def main():
    log = SqliteEventLog(sys.argv[1])
    engine = ScriptedEngine([[], [{"text": "x" * 300_000}], [{"text": "there is room again"}]])
    async with ComputerAgent(source=sys.argv[2], engine=engine, event_log=log, session_id="s") as agent:
        await agent.chat("small")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            print("no error:", await agent.chat("fill"))
        except ComputerAgentError as error:
            print(error.code, "|", error.message)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        print((await agent.chat("again")).text)
    kinds = [recorded.event.kind for recorded in await SqliteEventLog(sys.argv[1]).read("s")]
    print(kinds.count("ca_session_started"), kinds.count("ca_session_ended"))
asyncio.run(main())
"""


async def test_a_full_disk_is_an_error_and_the_next_chat_works_once_there_is_room(path: Path, tmp_path: Path):
    command = [sys.executable, "-c", FULL_DISK, str(path), str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0].startswith("EVENT_LOG_FAILED | the event log sessions.db cannot be used: ")
    assert lines[1:] == ["there is room again", "2 2"]


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path, log: SqliteEventLog):
    await log.sessions()
    change(path, "UPDATE log_meta SET value = 99 WHERE name = 'schema_version'")
    newer = SqliteEventLog(path)
    for _ in range(2):
        with pytest.raises(EventLogError, match=r"^sessions\.db has log schema 99, this program knows 1$") as caught:
            await newer.open("s")
    assert caught.value.hint == "Upgrade computer-agent-py, or point COMPUTERAGENT_HOME elsewhere."
    await newer.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path):
    path.write_text("my shopping list, certainly longer than a header of a database file would be. " * 20)
    before = path.read_bytes()
    log = SqliteEventLog(path)
    with pytest.raises(EventLogError, match=r"^the event log sessions\.db cannot be used: "):
        await log.sessions()
    await log.close()
    assert path.read_bytes() == before


async def test_events_that_left_memory_are_read_back_from_the_file(log: SqliteEventLog):
    channel = await log.open("s")
    channel.append(started())
    for _ in range(1500):
        channel.append(said())
    channel.append(ended())
    await channel.flush()
    assert channel.earliest == 0
    assert [recorded.id for recorded in await drain(channel.stream(-1))] == list(range(1502))


async def test_a_session_that_is_deleted_under_a_reader_is_not_found(log: SqliteEventLog):
    channel = await log.open("s")
    channel.append(started())
    for _ in range(1500):
        channel.append(said())
    channel.append(ended())
    await log.release(channel)
    stream = channel.stream(-1)
    await log.delete("s")
    with pytest.raises(NotFoundError, match="session s was deleted"):
        await drain(stream)
    with pytest.raises(NotFoundError, match="session s not found"):
        await log.delete("s")


async def test_a_session_that_was_opened_and_never_written_leaves_no_trace(log: SqliteEventLog):
    await log.release(await log.open("s"))
    with pytest.raises(NotFoundError):
        await log.read("s")


async def test_a_closed_log_says_so(path: Path):
    log = SqliteEventLog(path)
    await log.sessions()
    await log.close()
    await log.close()
    with pytest.raises(EventLogError, match="the event log is closed"):
        await log.open("s")


async def test_closing_commits_what_was_appended(path: Path):
    log = SqliteEventLog(path)
    channel = await log.open("s")
    for event in (started(), *(said() for _ in range(200))):
        channel.append(event)
    await log.close()
    again = SqliteEventLog(path)
    assert len(await again.read("s")) == 201
    await again.close()
