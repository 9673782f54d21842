"""From what a caller chose to the store that one session's engine sees."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

from computeragent import plugins
from computeragent.errors import ValidationError
from computeragent.wire.requests import StoreConfig

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStore, SessionStoreEntry, SessionStoreListEntry
    from claude_agent_sdk.types import SessionListSubkeysKey

_ENGINE_NAMESPACE = UUID("f8d9cb1a-3e7e-4d8d-9aa4-1d3f8d7b6c2e")
_PROTOCOL = (
    "claude_agent_sdk.SessionStore: async append(key, entries) and async load(key) -> entries or None, "
    'with key = {"project_key", "session_id", "subpath"?}'
)


def engine_session_id(session_id: str) -> str:
    """The UUID by which an engine knows a session: the same one on every host, in every folder."""
    return str(uuid5(_ENGINE_NAMESPACE, session_id))


def resolve_store(choice: object) -> SessionStore | None:
    """The store for a name, a `StoreConfig`, a dict of that shape, or a store itself; None for None.

    Raises `UnknownStoreError` for a name that is not registered, `TypeError` for an object that is no store, and
    `ValidationError` for options that the store does not take.
    """
    if choice is None:
        return None
    if isinstance(choice, str):
        return _checked(plugins.stores.resolve(choice))
    if isinstance(choice, Mapping):
        choice = _config(cast("Mapping[str, Any]", choice))
    if isinstance(choice, StoreConfig):
        return _checked(_create(choice))
    return _checked(choice)


def _config(choice: Mapping[str, Any]) -> StoreConfig:
    kind, options = choice.get("kind"), choice.get("options")
    unknown = sorted(str(name) for name in set(choice) - {"kind", "options"})
    if unknown or not isinstance(kind, str) or not isinstance(options, Mapping | None):
        raise ValidationError(
            f"a session store cannot be made from {dict(choice)!r}",
            hint='Write {"kind": "sqlite", "options": {"path": "sessions.db"}}; options may be left out.',
        )
    return StoreConfig(kind=kind, options=None if options is None else dict(cast("Mapping[str, Any]", options)))


def _create(config: StoreConfig) -> Any:
    if not config.options:
        return plugins.stores.resolve(config.kind)
    try:
        return plugins.stores.create(config.kind, config.options)
    except TypeError as error:
        raise ValidationError(f"session store {config.kind!r} does not take these options: {error}") from error


def _checked(store: Any) -> SessionStore:
    if isinstance(store, type):
        raise TypeError(f"session_store is the class {store.__name__}; pass an object of it")
    methods = [getattr(store, name, None) for name in ("append", "load")]
    if not all(callable(method) for method in methods):
        raise TypeError(f"{store!r} is no session store; it needs the protocol {_PROTOCOL}")
    if not (_takes(methods[0], 2) and _takes(methods[1], 1)):
        older = (
            "of the older create/load/append shape" if callable(getattr(store, "create", None)) else "of another shape"
        )
        raise TypeError(f"{type(store).__name__} is a session store {older}; it needs the protocol {_PROTOCOL}")
    return store


def _takes(method: Any, count: int) -> bool:
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return True
    older = {"project_key", "session_id"} & set(signature.parameters)
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return not older


class BoundStore:
    """A store seen from one session's engine: whatever key the engine makes up, it means this session.

    The engine derives its project key from its working directory and knows the session as `engine_id`; stored is
    under `project_key` and `session_id`, so that a session resumes in another folder and on another host.
    `appended` is told of what was stored, with the sub-agent's path where it is one's.
    """

    def __init__(
        self,
        store: SessionStore,
        project_key: str,
        session_id: str,
        engine_id: str,
        appended: Callable[[str | None, list[SessionStoreEntry]], None] | None = None,
    ) -> None:
        self._store = store
        self._project_key = project_key
        self._session_id = session_id
        self._engine_id = engine_id
        self._appended = appended

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Store the engine's entries as they are."""
        ours = self._ours(key)
        await self._store.append(ours, entries)
        if self._appended is not None:
            self._appended(ours.get("subpath"), entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The session's entries, under the id that the engine knows."""
        entries = await self._store.load(self._ours(key))
        return [self._as_engines(entry) for entry in entries] if entries else None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """This session, if it has been stored; no other is visible."""
        del project_key
        if not _has(self._store, "list_sessions"):
            stored = await self._store.load(self._ours(None))
            return [{"session_id": self._engine_id, "mtime": time.time_ns() // 1_000_000}] if stored else []
        sessions = await self._store.list_sessions(self._project_key)
        return [
            {"session_id": self._engine_id, "mtime": session["mtime"]}
            for session in sessions
            if session["session_id"] == self._session_id
        ]

    async def delete(self, key: SessionKey) -> None:
        """Delete the session or a sub-agent's transcript, where the store can."""
        if _has(self._store, "delete"):
            await self._store.delete(self._ours(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The session's sub-agent paths; none where the store cannot list them."""
        del key
        if not _has(self._store, "list_subkeys"):
            return []
        return await self._store.list_subkeys({"project_key": self._project_key, "session_id": self._session_id})

    def _ours(self, key: SessionKey | None) -> SessionKey:
        ours: SessionKey = {"project_key": self._project_key, "session_id": self._session_id}
        if key is None:
            return ours
        if "subpath" in key:
            ours["subpath"] = key["subpath"]
        elif key["session_id"].startswith("agent-"):  # a sub-agent that the engine keeps beside the session
            ours["subpath"] = f"subagents/{key['session_id']}"
        return ours

    def _as_engines(self, entry: SessionStoreEntry) -> SessionStoreEntry:
        if entry.get("sessionId", self._engine_id) == self._engine_id:
            return entry
        return cast("SessionStoreEntry", {**entry, "sessionId": self._engine_id})


def _has(store: object, method: str) -> bool:
    """Whether a store has an optional method, and not only the protocol's own placeholder for it."""
    implementation = getattr(type(store), method, None) or getattr(store, method, None)
    return callable(implementation) and getattr(implementation, "__module__", "") != "claude_agent_sdk.types"
