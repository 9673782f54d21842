"""A store of each kind, on its own folder."""

from __future__ import annotations

import pytest

from computeragent.stores import FileSessionStore, MemorySessionStore, SqliteSessionStore

KEY = {"project_key": "proj", "session_id": "sess"}


def entry(uuid: str | None = None, **fields):
    return {"type": "user", **({"uuid": uuid} if uuid else {}), **fields}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(params=["memory", "file", "sqlite"])
def make_store(request, tmp_path):
    """A factory of stores of one kind; every call of `make_store(name)` with one name opens the same data."""
    kept = {}

    def make(name="a"):
        if request.param == "memory":
            return kept.setdefault(name, MemorySessionStore())
        if request.param == "file":
            return FileSessionStore(tmp_path / name)
        return SqliteSessionStore(tmp_path / f"{name}.db")

    make.kind = request.param
    return make


@pytest.fixture(params=["file", "sqlite"])
def make_durable_store(request, tmp_path):
    if request.param == "file":
        return lambda: FileSessionStore(tmp_path / "transcripts")
    return lambda: SqliteSessionStore(tmp_path / "sessions.db")
