"""A store of each kind, on its own folder."""

from __future__ import annotations

import uuid

import pytest

from computeragent.stores import FileSessionStore, MemorySessionStore, PostgresSessionStore, SqliteSessionStore

from .servers import Postgres, postgres

KEY = {"project_key": "proj", "session_id": "sess"}


def entry(uuid: str | None = None, **fields):
    return {"type": "user", **({"uuid": uuid} if uuid else {}), **fields}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session")
def database():
    with postgres() as server:
        yield server


@pytest.fixture
def schema(request):
    """A name that no other test has."""
    return f"s{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["memory", "file", "sqlite", "postgres"])
def make_store(request, tmp_path, schema):
    """A factory of stores of one kind; every call of `make_store(name)` with one name opens the same data."""
    kept = {}
    server: Postgres | None = request.getfixturevalue("database") if request.param == "postgres" else None

    def make(name="a"):
        if request.param == "memory":
            return kept.setdefault(name, MemorySessionStore())
        if request.param == "file":
            return FileSessionStore(tmp_path / name)
        if server is not None:
            return PostgresSessionStore(server.url(f"{schema}_{name}"))
        return SqliteSessionStore(tmp_path / f"{name}.db")

    make.kind = request.param
    return make


@pytest.fixture(params=["file", "sqlite"])
def make_local_store(request, tmp_path):
    if request.param == "file":
        return lambda: FileSessionStore(tmp_path / "transcripts")
    return lambda: SqliteSessionStore(tmp_path / "sessions.db")


@pytest.fixture(params=["file", "sqlite", "postgres"])
def make_durable_store(request, tmp_path, schema):
    if request.param == "file":
        return lambda: FileSessionStore(tmp_path / "transcripts")
    if request.param == "postgres":
        url = request.getfixturevalue("database").url(schema)
        return lambda: PostgresSessionStore(url)
    return lambda: SqliteSessionStore(tmp_path / "sessions.db")
