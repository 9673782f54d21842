"""What every session store does."""

from __future__ import annotations

import itertools
import threading
import time

import anyio
import pytest
from claude_agent_sdk import fold_session_summary
from claude_agent_sdk.testing import run_session_store_conformance

from computeragent.errors import ValidationError

from .conftest import KEY, entry

pytestmark = pytest.mark.anyio


async def test_upstreams_own_conformance_suite_passes(make_store):
    names = map(str, itertools.count())
    await run_session_store_conformance(lambda: make_store(next(names)))


async def test_entries_come_back_equal_and_in_order(make_store):
    entries = [
        entry("b", text="line\nbreak\r\n\u2028 and \x00 and é 😀"),
        entry("a", lone="half \ud83d of a pair"),
        entry(None, number=12345678901234567890123, fraction=0.1, big=1e300, nothing=None, flag=True),
        entry("c", nested={"deep": [[], {}, [{"uuid": "a"}]], "": ""}),
        entry("d", ends_with_space="x "),
    ]
    store = make_store()
    await store.append(KEY, entries)
    assert await store.load(KEY) == entries


async def test_an_entry_is_stored_once_per_uuid(make_store):
    store = make_store()
    await store.append(KEY, [entry("a", n=1), entry("b", n=2), entry("a", n=3)])
    await store.append(KEY, [entry("b", n=4), entry("c", n=5)])
    assert [e["n"] for e in await store.load(KEY)] == [1, 2, 5]


async def test_entries_without_a_uuid_are_always_appended(make_store):
    store = make_store()
    for _ in range(2):
        await store.append(KEY, [entry(None, title="t"), {**entry(), "uuid": ""}, {**entry(), "uuid": 7}])
    assert len(await store.load(KEY)) == 6


async def test_the_same_uuid_may_be_in_several_transcripts(make_store):
    store = make_store()
    keys = [KEY, {**KEY, "subpath": "x"}, {**KEY, "session_id": "other"}, {**KEY, "project_key": "other"}]
    for key in keys:
        await store.append(key, [entry("a", key=dict(key))])
    assert [await store.load(key) for key in keys] == [[entry("a", key=dict(key))] for key in keys]


async def test_an_empty_batch_makes_no_session(make_store):
    store = make_store()
    await store.append(KEY, [])
    assert await store.load(KEY) is None
    assert await store.list_sessions("proj") == []


async def test_what_is_loaded_or_given_can_be_changed_without_harm(make_store):
    store = make_store()
    given = entry("a", items=[1])
    await store.append(KEY, [given])
    given["items"].append(2)
    (await store.load(KEY))[0]["items"].append(3)
    assert await store.load(KEY) == [entry("a", items=[1])]


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../../etc/passwd",
        "/etc",
        "a/b",
        "a\\b",
        "a%2Fb",
        "a~b",
        " ",
        "é😀",
        "x" * 3000,
        "a.jsonl",
        "NUL\x00",
        ".h",
    ],
)
async def test_any_name_is_a_name(make_store, name, tmp_path):
    store = make_store("inner")
    before = {path for path in tmp_path.rglob("*") if "inner" not in path.parts[len(tmp_path.parts)]}
    for number, part in enumerate(("project_key", "session_id", "subpath")):
        key = {**KEY, part: name}
        await store.append(key, [entry("u", n=number)])
        assert await store.load(key) == [entry("u", n=number)]
    assert {s["session_id"] for s in await store.list_sessions("proj")} == {name}
    assert [s["session_id"] for s in await store.list_sessions(name)] == ["sess"]
    assert await store.list_subkeys(KEY) == [name]
    assert {path for path in tmp_path.rglob("*") if "inner" not in path.parts[len(tmp_path.parts)]} == before


async def test_names_that_look_alike_stay_apart(make_store):
    store = make_store()
    subpaths = [
        "x",
        "x.jsonl",
        "x.jsonl/y",
        "x/y",
        "x//y",
        "x/",
        "/x",
        "x%2Fy",
        "x/../x",
        "x" * 200 + "1",
        "x" * 200 + "2",
    ]
    for subpath in subpaths:
        await store.append({**KEY, "subpath": subpath}, [entry("u", at=subpath)])
    for subpath in subpaths:
        assert await store.load({**KEY, "subpath": subpath}) == [entry("u", at=subpath)]
    assert sorted(await store.list_subkeys(KEY)) == sorted(subpaths)


@pytest.mark.parametrize(
    "key",
    [
        {"project_key": "p", "session_id": ""},
        {"project_key": "", "session_id": "s"},
        {"session_id": "s"},
        {**KEY, "subpath": ""},
        {**KEY, "subpath": None},
        {"project_key": "p", "session_id": 7},
        {"project_key": "p", "session_id": "\ud800"},
    ],
)
async def test_a_bad_key_is_a_validation_error(make_store, key):
    store = make_store()
    for call in (store.append(key, [entry("a")]), store.load(key), store.delete(key)):
        with pytest.raises(ValidationError):
            await call


@pytest.mark.parametrize("bad", ["text", None, {"type": "x", "value": object()}])
async def test_a_batch_with_an_entry_that_is_no_json_object_is_refused_whole(make_store, bad):
    store = make_store()
    with pytest.raises(ValidationError, match="entry 1"):
        await store.append(KEY, [entry("a"), bad])
    assert await store.load(KEY) is None


async def test_sessions_are_listed_with_the_time_of_their_last_change(make_store):
    store = make_store()
    before = time.time() * 1000 - 50
    await store.append(KEY, [entry("a")])
    (first,) = await store.list_sessions("proj")
    await anyio.sleep(0.03)
    await store.append(KEY, [entry("b")])
    (second,) = await store.list_sessions("proj")
    assert before <= first["mtime"] < second["mtime"] <= time.time() * 1000 + 50
    assert isinstance(second["mtime"], int)


async def test_a_session_that_was_deleted_can_be_written_again(make_store):
    store = make_store()
    sub = {**KEY, "subpath": "subagents/agent-1"}
    for _ in range(2):
        await store.append(KEY, [entry("a")])
        await store.append(sub, [entry("a")])
        assert await store.load(KEY) == await store.load(sub) == [entry("a")]
        await store.delete(KEY)
        assert await store.load(KEY) is await store.load(sub) is None


async def test_summaries_are_folded_from_all_entries_once(make_store):
    if make_store.kind == "file":
        pytest.skip("upstream reads the transcripts of this store instead")
    store = make_store()
    batches = [
        [entry("a", customTitle="first", timestamp="2025-01-01T00:00:00Z")],
        [entry("b", customTitle="second"), entry(None, tag="t")],
    ]
    for batch in batches:
        await store.append(KEY, batch)
        (summary,) = await store.list_session_summaries("proj")
    (again,) = await store.list_session_summaries("proj")
    expected = fold_session_summary(None, KEY, [e for batch in batches for e in batch])
    assert summary["data"] == again["data"] == expected["data"]
    assert summary["mtime"] == (await store.list_sessions("proj"))[0]["mtime"]


async def test_many_tasks_write_many_sessions_at_once(make_store):
    store = make_store()

    async def write(session, task):
        for number in range(5):
            key = {"project_key": "p", "session_id": session}
            await store.append(key, [entry(f"{task}-{number}", task=task, n=number)])

    async with anyio.create_task_group() as group:
        for session in range(10):
            for task in range(4):
                group.start_soon(write, f"s{session}", task)
    assert len(await store.list_sessions("p")) == 10
    for session in range(10):
        stored = await store.load({"project_key": "p", "session_id": f"s{session}"})
        assert len(stored) == 20
        for task in range(4):
            assert [e["n"] for e in stored if e["task"] == task] == list(range(5))


async def test_appends_of_one_process_are_stored_in_call_order(make_store, anyio_backend):
    if anyio_backend == "trio":
        pytest.skip("trio starts tasks in any order")
    store = make_store()
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(store.append, KEY, [entry(None, n=number)])
    assert [e["n"] for e in await store.load(KEY)] == list(range(50))


async def test_threads_with_event_loops_of_their_own_share_a_store(make_store, anyio_backend):
    store = make_store()

    def write(thread):
        async def main():
            for number in range(20):
                await store.append(KEY, [entry(f"{number}", by=thread), entry(f"{thread}/{number}")])

        anyio.run(main, backend=anyio_backend)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    stored = [e["uuid"] for e in await store.load(KEY)]
    assert len(stored) == len(set(stored)) == 20 + 80


async def test_a_cancelled_append_leaves_a_whole_batch_or_none(make_store):
    store = make_store()
    batch = [entry(f"{n}", text="x" * 1000) for n in range(500)]
    with anyio.move_on_after(0.0005):
        await store.append(KEY, batch)
    await store.append(KEY, [entry("last")])
    assert len(await store.load(KEY)) in {1, 501}
