"""What an agent remembers: session stores, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.stores.binding import BoundStore, engine_session_id, resolve_store
    from computeragent.stores.file import FileSessionStore
    from computeragent.stores.memory import MemorySessionStore, shared_memory_store
    from computeragent.stores.mongo import MongoSessionStore
    from computeragent.stores.postgres import PostgresSessionStore
    from computeragent.stores.sqlite import SqliteSessionStore

__all__ = [
    "BoundStore",
    "FileSessionStore",
    "MemorySessionStore",
    "MongoSessionStore",
    "PostgresSessionStore",
    "SqliteSessionStore",
    "engine_session_id",
    "resolve_store",
    "shared_memory_store",
]

_HOMES = {
    "BoundStore": "binding",
    "FileSessionStore": "file",
    "MemorySessionStore": "memory",
    "MongoSessionStore": "mongo",
    "PostgresSessionStore": "postgres",
    "SqliteSessionStore": "sqlite",
    "engine_session_id": "binding",
    "resolve_store": "binding",
    "shared_memory_store": "memory",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"computeragent.stores.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
