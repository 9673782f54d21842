"""The mongo store where writers die, meet deletions, or have much to say. Batches are whole and none is lost."""

from __future__ import annotations

import gc
import time
import warnings

import anyio
import pymongo
import pytest

from computeragent.errors import StoreError, ValidationError
from computeragent.stores import MongoSessionStore

from .conftest import KEY, entry

pytestmark = pytest.mark.anyio
HEADS, BATCHES = "computeragent_transcripts", "computeragent_batches"


def raw(make, name="a"):
    """The database itself."""
    client = pymongo.MongoClient(make.url, retryWrites=False)
    return client, client[f"{make.schema}_{name}"]


def died(*_):
    raise RuntimeError("the writer died here")


async def test_a_batch_whose_writer_died_before_it_counted_is_counted_by_the_next_writer(make_mongo, monkeypatch):
    dying, other = make_mongo(), make_mongo()
    await other.append(KEY, [entry("a")])
    monkeypatch.setattr(dying, "_count", died)
    with pytest.raises(RuntimeError):
        await dying.append(KEY, [entry("b"), entry("c")])
    assert await other.load(KEY) == [entry("a")]
    await other.append(KEY, [entry("d")])
    assert [e["uuid"] for e in await other.load(KEY)] == ["a", "b", "c", "d"]


async def test_a_batch_that_is_sent_again_after_its_writer_died_is_there_once(make_mongo, monkeypatch):
    dying = make_mongo()
    with monkeypatch.context() as patch:
        patch.setattr(dying, "_count", died)
        with pytest.raises(RuntimeError):
            await dying.append(KEY, [entry("a"), entry("b")])
    assert await dying.load(KEY) is None
    assert await dying.list_sessions("proj") == []
    await dying.append(KEY, [entry("a"), entry("b")])
    assert await dying.load(KEY) == [entry("a"), entry("b")]
    (summary,) = await dying.list_session_summaries("proj")
    assert summary["session_id"] == "sess"


async def test_neither_a_batch_nor_an_entry_is_bound_by_the_size_of_a_document(make_mongo):
    store = make_mongo()
    long = entry("long", text="é\n" * 6_000_000)
    await store.append(KEY, [entry("a"), long, entry("b")])
    await store.append(KEY, [entry("c")])
    assert await make_mongo().load(KEY) == [entry("a"), long, entry("b"), entry("c")]
    await store.delete(KEY)
    client, database = raw(make_mongo)
    with client:
        assert list(database[BATCHES].find({})) == []


async def test_an_append_that_meets_a_deletion_begins_the_session_anew(make_mongo, monkeypatch):
    store, other = make_mongo(), make_mongo()
    await store.append(KEY, [entry("a")])
    count = store._count

    async def deleted_first(db, head, number):
        monkeypatch.setattr(store, "_count", count)
        await other.delete(KEY)
        return await count(db, head, number)

    monkeypatch.setattr(store, "_count", deleted_first)
    await store.append(KEY, [entry("b")])
    assert await other.load(KEY) == [entry("b")]
    client, database = raw(make_mongo)
    with client:
        assert len(list(database[BATCHES].find({}))) == 1


@pytest.mark.parametrize("next_comes", ["an append", "a deletion"])
async def test_a_deletion_that_died_is_finished_by_whoever_comes_next(make_mongo, monkeypatch, next_comes):
    dying, other = make_mongo(), make_mongo()
    await dying.append(KEY, [entry("a")])
    monkeypatch.setattr(dying, "_remove", died)
    with pytest.raises(RuntimeError):
        await dying.delete(KEY)
    assert await other.load(KEY) is None
    assert await other.list_sessions("proj") == await other.list_session_summaries("proj") == []
    if next_comes == "an append":
        await other.append(KEY, [entry("b")])
        assert await dying.load(KEY) == [entry("b")]
    else:
        await other.delete(KEY)
    client, database = raw(make_mongo)
    with client:
        assert len(list(database[BATCHES].find({}))) == (1 if next_comes == "an append" else 0)


async def test_batches_that_somebody_removed_are_an_error_and_not_a_shorter_memory(make_mongo):
    store = make_mongo()
    for name in "abc":
        await store.append(KEY, [entry(name)])
    client, database = raw(make_mongo)
    with client:
        second = sorted(each["_id"] for each in database[BATCHES].find({}))[1]
        database[BATCHES].delete_one({"_id": second})
    with pytest.raises(StoreError, match="missing"), anyio.fail_after(30):
        await store.load(KEY)
    await store.delete(KEY)
    assert await store.load(KEY) is None


async def test_a_database_of_a_newer_schema_is_left_alone(make_mongo):
    await make_mongo().append(KEY, [entry("a")])
    client, database = raw(make_mongo)
    with client:
        database["computeragent_meta"].update_one({"_id": "store"}, {"$set": {"version": 99}})
    with pytest.raises(StoreError, match="schema 99"):
        await make_mongo().append(KEY, [entry("b")])


async def test_a_closed_store_opens_again(make_mongo):
    store = make_mongo()
    await store.append(KEY, [entry("a")])
    await store.close()
    await store.close()
    assert await store.load(KEY) == [entry("a")]


async def test_closing_waits_for_what_has_begun(make_mongo):
    store = make_mongo()
    async with anyio.create_task_group() as group:
        group.start_soon(store.append, KEY, [entry("a", text="x" * 1_000_000)])
        await anyio.sleep(0)
        for _ in range(2):
            group.start_soon(store.close)
    assert [e["uuid"] for e in await store.load(KEY)] == ["a"]


@pytest.fixture
def no_leak_of_the_driver():
    """PyMongo leaves a socket to the collector when its client is closed while it connects."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        time.sleep(0.1)
        gc.collect()


@pytest.mark.parametrize(
    "url", ["mongodb://reader:canary-secret@127.0.0.1:1/", "mongodb://reader:canary@secret@127.0.0.1:x/"]
)
async def test_a_server_that_cannot_be_reached_is_a_store_error_without_the_password(url, no_leak_of_the_driver):
    store = MongoSessionStore(url, timeout=0.2)
    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        await store.load(KEY)
    assert time.monotonic() - began < 30
    chain = f"{raised.value} {raised.value.hint} {raised.value.__cause__} {store!r}"
    assert "canary" not in chain
    assert "secret" not in chain


def test_the_address_is_an_option_or_in_the_environment(monkeypatch):
    for name in ("COMPUTERAGENT_MONGO_URL", "MONGO_URL", "MONGO_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValidationError, match="address") as raised:
        MongoSessionStore()
    assert "COMPUTERAGENT_MONGO_URL" in raised.value.hint
    monkeypatch.setenv("MONGO_URL", "mongodb://two")
    monkeypatch.setenv("MONGO_DATABASE", "mine")
    assert (MongoSessionStore()._url, MongoSessionStore()._database) == ("mongodb://two", "mine")
    monkeypatch.setenv("COMPUTERAGENT_MONGO_URL", "mongodb://one")
    assert MongoSessionStore()._url == "mongodb://one"
    assert MongoSessionStore("mongodb://given", "agentos")._database == "agentos"


@pytest.mark.parametrize("wrong", [{"url": "http://reader:canary@h"}, {"url": "mongodb://h", "database": "a/b"}])
def test_what_cannot_be_meant_is_refused_at_once(wrong):
    with pytest.raises(ValidationError) as raised:
        MongoSessionStore(**wrong)
    assert "canary" not in str(raised.value)
