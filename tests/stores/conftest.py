"""A store of each kind, on its own folder."""

from __future__ import annotations

import os
import uuid

import pytest

from computeragent.stores import (
    FileSessionStore,
    MemorySessionStore,
    MongoSessionStore,
    PostgresSessionStore,
    SqliteSessionStore,
)

from .servers import Postgres, mongo, postgres

KEY = {"project_key": "proj", "session_id": "sess"}
_REAL_MONGO = os.environ.get("COMPUTERAGENT_TEST_MONGO_URL", "")
MONGOS = [
    "mongo",  # the stand-in of `mongo_wire.py`
    pytest.param(
        "real-mongo",
        marks=[
            pytest.mark.soak,
            pytest.mark.skipif(not _REAL_MONGO, reason="COMPUTERAGENT_TEST_MONGO_URL names no server"),
        ],
    ),
]


def entry(uuid: str | None = None, **fields):
    return {"type": "user", **({"uuid": uuid} if uuid else {}), **fields}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session")
def database():
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mongo_url():
    with mongo() as url:
        yield url


@pytest.fixture
def schema(request):
    """A name that no other test has."""
    return f"s{uuid.uuid4().hex[:12]}"


@pytest.fixture
def mongo_databases():
    """The databases that a test used, by address: dropped in the end."""
    import pymongo

    used = set()
    yield used
    for url, name in used:
        with pymongo.MongoClient(url, retryWrites=False) as client:
            client.drop_database(name)


@pytest.fixture(params=MONGOS)
def make_mongo(request):
    """A factory of mongo stores; every call of `make_mongo(name)` with one name opens the same database."""
    return _mongo(request)


def _mongo(request):
    url = _REAL_MONGO if request.param == "real-mongo" else request.getfixturevalue("mongo_url")
    schema, used = request.getfixturevalue("schema"), request.getfixturevalue("mongo_databases")

    def make(name="a", **options):
        used.add((url, f"{schema}_{name}"))
        return MongoSessionStore(url, f"{schema}_{name}", **options)

    make.kind = request.param
    make.url = url
    make.schema = schema
    return make


@pytest.fixture(params=["memory", "file", "sqlite", "postgres", *MONGOS])
def make_store(request, tmp_path, schema):
    """A factory of stores of one kind; every call of `make_store(name)` with one name opens the same data."""
    kept = {}
    server: Postgres | None = request.getfixturevalue("database") if request.param == "postgres" else None

    if request.param in {"mongo", "real-mongo"}:
        return _mongo(request)

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


@pytest.fixture(params=["file", "sqlite", "postgres", *MONGOS])
def make_durable_store(request, tmp_path, schema):
    if request.param in {"mongo", "real-mongo"}:
        return _mongo(request)
    if request.param == "file":
        return lambda: FileSessionStore(tmp_path / "transcripts")
    if request.param == "postgres":
        url = request.getfixturevalue("database").url(schema)
        return lambda: PostgresSessionStore(url)
    return lambda: SqliteSessionStore(tmp_path / "sessions.db")
