"""Choosing a store, and binding it to one session."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest
from claude_agent_sdk import InMemorySessionStore, SessionStore

from computeragent import plugins
from computeragent.errors import UnknownStoreError, ValidationError
from computeragent.stores import (
    BoundStore,
    FileSessionStore,
    MemorySessionStore,
    SqliteSessionStore,
    engine_session_id,
    resolve_store,
    shared_memory_store,
)
from computeragent.wire.requests import StoreConfig

from .conftest import entry

OURS = {"project_key": "computeragent", "session_id": "sess_1"}
ENGINE = engine_session_id("sess_1")
THEIRS = {"project_key": "-home-me-project", "session_id": ENGINE}


# ── Choosing ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_chosen_is_no_store():
    assert resolve_store(None) is None


def test_the_memory_store_is_one_for_the_whole_process():
    assert resolve_store("memory") is resolve_store({"kind": "memory"}) is shared_memory_store()
    assert resolve_store(StoreConfig(kind="memory", options={})) is shared_memory_store()


def test_a_store_is_made_with_its_options(tmp_path):
    assert isinstance(resolve_store({"kind": "file", "options": {"root": str(tmp_path)}}), FileSessionStore)
    assert isinstance(resolve_store(StoreConfig(kind="sqlite", options={"path": "x.db"})), SqliteSessionStore)


def test_an_object_is_taken_as_it_is():
    for store in (MemorySessionStore(), InMemorySessionStore(), BoundStore(MemorySessionStore(), "p", "s", "e")):
        assert resolve_store(store) is store


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(UnknownStoreError) as error:
        resolve_store("sqllite")
    assert error.value.message == "session store 'sqllite' is not registered"
    assert error.value.hint.startswith('Did you mean "sqlite"? Available: file, memory, ')


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"kind": 1},
        {"kind": "file", "root": "x"},
        {"kind": "file", "options": []},
        {"kind": "file", "options": {"no": 1}},
        {"kind": "memory", "options": {"size": 1}},
    ],
)
def test_a_bad_configuration_is_a_validation_error(choice):
    with pytest.raises(ValidationError):
        resolve_store(choice)


class OlderStore:
    async def create(self, *, project_key, session_id): ...
    async def load(self, *, project_key, session_id): ...
    async def append(self, *, project_key, session_id, entries): ...


class OlderPositionalStore:
    async def create(self, session_id): ...
    async def load(self, session_id): ...
    async def append(self, session_id, entries): ...


@pytest.mark.parametrize("store", [OlderStore(), OlderPositionalStore()])
def test_a_store_of_the_older_shape_is_told_the_protocol(store):
    with pytest.raises(
        TypeError, match=r"older create/load/append shape; it needs the protocol .*SessionStore: async app"
    ):
        resolve_store(store)


def test_a_registered_store_of_the_older_shape_is_told_too(monkeypatch):
    monkeypatch.setattr(plugins.stores, "_registered", {})
    plugins.register_session_store("older", OlderStore)
    with pytest.raises(TypeError, match="older create/load/append shape"):
        resolve_store("older")


@pytest.mark.parametrize("thing", [object(), 7, [], lambda: None])
def test_a_thing_that_is_no_store_is_a_type_error(thing):
    with pytest.raises(TypeError, match="no session store"):
        resolve_store(thing)


def test_a_class_instead_of_an_object_is_a_type_error():
    with pytest.raises(TypeError, match="pass an object of it"):
        resolve_store(MemorySessionStore)


def test_importing_the_stores_imports_no_sdk():
    names = "binding, entries, file, journal, memory, names, sqlite, worker"
    code = f"import sys; from computeragent.stores import {names}; print('claude_agent_sdk' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


# ── Binding ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_engines_id_of_a_session_is_the_same_everywhere():
    assert engine_session_id("my-session") == engine_session_id("my-session") != engine_session_id("my-session2")
    assert UUID(engine_session_id("my-session")).version == 5
    assert engine_session_id("sess_1") == "e477dcd5-ee53-54d3-8031-08eb3f2e4ec3"


@pytest.mark.anyio
async def test_the_engines_keys_mean_our_session(make_store):
    inner = make_store()
    bound = BoundStore(inner, "computeragent", "sess_1", ENGINE)
    await bound.append(THEIRS, [entry("a", sessionId=ENGINE)])
    await bound.append({**THEIRS, "subpath": "subagents/agent-1"}, [entry("b")])
    await bound.append({"project_key": "-other", "session_id": "agent-2"}, [entry("c")])
    assert await inner.load(OURS) == [entry("a", sessionId=ENGINE)]
    assert await inner.load({**OURS, "subpath": "subagents/agent-1"}) == [entry("b")]
    assert sorted(await bound.list_subkeys(THEIRS)) == ["subagents/agent-1", "subagents/agent-2"]
    assert await bound.load({**THEIRS, "project_key": "-another-folder"}) == [entry("a", sessionId=ENGINE)]


@pytest.mark.anyio
async def test_what_another_id_wrote_is_loaded_under_the_engines_id(make_store):
    inner = make_store()
    stored = [entry("a", sessionId="0000"), entry("b", sessionId=ENGINE), entry("c")]
    await inner.append(OURS, stored)
    bound = BoundStore(inner, "computeragent", "sess_1", ENGINE)
    assert await bound.load(THEIRS) == [entry("a", sessionId=ENGINE), entry("b", sessionId=ENGINE), entry("c")]
    assert await inner.load(OURS) == stored


@pytest.mark.anyio
async def test_only_this_session_is_listed(make_store):
    inner = make_store()
    bound = BoundStore(inner, "computeragent", "sess_1", ENGINE)
    await inner.append({**OURS, "session_id": "sess_2"}, [entry("x")])
    assert await bound.list_sessions("-home-me-project") == []
    assert await bound.load(THEIRS) is None
    await bound.append(THEIRS, [entry("a")])
    (listed,) = await bound.list_sessions("-home-me-project")
    assert listed["session_id"] == ENGINE
    assert listed["mtime"] > 1e12


@pytest.mark.anyio
async def test_deleting_deletes_this_session_alone(make_store):
    inner = make_store()
    bound = BoundStore(inner, "computeragent", "sess_1", ENGINE)
    await inner.append({**OURS, "session_id": "sess_2"}, [entry("x")])
    await bound.append(THEIRS, [entry("a")])
    await bound.append({**THEIRS, "subpath": "s"}, [entry("a")])
    await bound.delete({**THEIRS, "subpath": "s"})
    assert await bound.list_subkeys(THEIRS) == []
    await bound.delete(THEIRS)
    assert await bound.load(THEIRS) is None
    assert await inner.load({**OURS, "session_id": "sess_2"}) == [entry("x")]


class Smallest(SessionStore):
    def __init__(self):
        self.kept = {}

    async def append(self, key, entries):
        self.kept.setdefault(str(key), []).extend(entries)

    async def load(self, key):
        return self.kept.get(str(key))


@pytest.mark.anyio
async def test_a_store_without_the_optional_methods_will_do():
    bound = BoundStore(Smallest(), "p", "s", ENGINE)
    assert await bound.list_sessions("x") == []
    await bound.append(THEIRS, [entry("a")])
    assert [session["session_id"] for session in await bound.list_sessions("x")] == [ENGINE]
    assert await bound.list_subkeys(THEIRS) == []
    await bound.delete(THEIRS)
    assert await bound.load(THEIRS) == [entry("a")]


@pytest.mark.anyio
async def test_upstream_lists_and_reads_a_bound_session():
    from claude_agent_sdk import get_session_messages_from_store, list_sessions_from_store

    bound = BoundStore(MemorySessionStore(), "p", "s", ENGINE)
    message = entry(
        "a",
        message={"role": "user", "content": "hello"},
        parentUuid=None,
        sessionId=ENGINE,
        timestamp="2025-01-01T00:00:00Z",
    )
    await bound.append(THEIRS, [message])
    (listed,) = await list_sessions_from_store(bound, directory="/tmp")
    assert (listed.session_id, listed.first_prompt) == (ENGINE, "hello")
    (read,) = await get_session_messages_from_store(bound, ENGINE, directory="/tmp")
    assert read.message["content"] == "hello"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("file", {"root": 5}),
        ("file", {"root": "a\0b"}),
        ("file", {"root": ""}),
        ("file", {"lock_timeout": "soon"}),
        ("sqlite", {"path": ["x"]}),
        ("sqlite", {"path": "a\0b"}),
        ("sqlite", {"timeout": -1}),
        ("sqlite", {"timeout": True}),
        ("postgres", {"url": 5}),
        ("postgres", {"url": "postgresql://u:hidden@127.0.0.1:1/x", "timeout": "30"}),
        ("postgres", {"url": "postgresql://u:hidden@127.0.0.1:1/x", "max_connections": 0}),
        ("mongo", {"url": {"host": "hidden"}}),
        ("mongo", {"url": "mongodb://u:hidden@127.0.0.1:1/", "max_connections": 1.5}),
    ],
)
def test_options_of_another_kind_are_told_when_the_store_is_made(kind, options):
    with pytest.raises(ValidationError) as caught:
        resolve_store({"kind": kind, "options": options})
    assert "of a session store is" in caught.value.message
    assert "hidden" not in str(caught.value)
