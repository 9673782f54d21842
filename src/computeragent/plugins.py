"""The registries: a name on an axis resolves to an object, built in, registered, or from an entry point.

Built-ins are named by import path and loaded on first use. Third parties either call `register_*` or declare
an entry point in one of the groups ``computeragent.engines``, ``.substrates``, ``.stores``,
``.identity_loaders``, ``.sinks``. An entry that is a class or a factory is called without arguments, or with the
options of a `StoreConfig`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from computeragent.errors import (
    ComputerAgentError,
    MissingExtraError,
    UnknownEngineError,
    UnknownLoaderError,
    UnknownSinkError,
    UnknownStoreError,
    UnknownSubstrateError,
)
from computeragent.protocol_types import EngineDriver, IdentityLoader, Substrate

if TYPE_CHECKING:
    from importlib import metadata

_DISTRIBUTION = "computer-agent-py"


class Registry:
    """Names of one axis. `needs` are the methods that an entry must have."""

    def __init__(
        self, group: str, needs: str, unknown: Callable[[str, list[str]], ComputerAgentError], built_in: dict[str, str]
    ) -> None:
        self._group = f"computeragent.{group}"
        self._needs = needs
        self._unknown = unknown
        self._built_in = built_in
        self._registered: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        self._lock = threading.RLock()  # a factory may resolve another name of its axis

    def register(self, name: str, entry: Any) -> None:
        """Add or replace an entry: an object of the axis, or a factory of one."""
        if not callable(entry):
            self.check(entry)
        with self._lock:
            self._registered[name] = entry
            self._made.pop(name, None)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._built_in, *self._registered, *self._entry_points()})

    def require(self, name: str) -> None:
        """Raise the axis's `Unknown…Error` unless the name is known."""
        if name not in self._built_in and name not in self.names():
            raise self._unknown(name, self.names())

    def resolve(self, name: str) -> Any:
        """The shared object of this name. Raises the axis's `Unknown…Error`."""
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(name, {})
            return self._made[name]

    def create(self, name: str, options: Mapping[str, Any]) -> Any:
        """A new object of this name, made with `options`."""
        return self._make(name, options)

    def check(self, entry: Any) -> Any:
        """Return `entry` if it has the axis's methods, else raise `TypeError`."""
        if not callable(getattr(entry, self._needs, None)):
            raise TypeError(f"{entry!r} has no method {self._needs}(), which {self._group} entries need")
        return entry

    def _make(self, name: str, options: Mapping[str, Any]) -> Any:
        entry = self._find(name)
        is_factory = isinstance(entry, type) or (callable(entry) and not hasattr(entry, self._needs))
        if options and not is_factory:
            raise TypeError(f"{name!r} is registered as an object, not as a factory that takes options")
        return self.check(entry(**options) if is_factory else entry)

    def _find(self, name: str) -> Any:
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            try:
                return getattr(import_module(module), attribute)
            except ModuleNotFoundError as error:
                from importlib import metadata

                extras = metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
                extra = name if name in extras else "server"
                hint = f"pip install '{_DISTRIBUTION}[{extra}]'"
                raise MissingExtraError(f"{name!r} needs the [{extra}] extra: {error}", hint=hint) from error
        points = self._entry_points()
        if name in points:
            return points[name].load()
        raise self._unknown(name, self.names())

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        from importlib import metadata  # which is slow to import, and needed for what is not built in alone

        return {point.name: point for point in metadata.entry_points(group=self._group)}


engines = Registry(
    "engines",
    "start_session",
    UnknownEngineError,
    {
        "acp": "computeragent.engines.acp:AcpEngine",
        "claude-agent-sdk": "computeragent.engines.claude_agent_sdk:ClaudeAgentEngine",
        "computer-use": "computeragent.engines.computer_use:ComputerUseEngine",
        "scripted": "computeragent.engines.scripted:ScriptedEngine",
    },
)
substrates = Registry(
    "substrates",
    "boot",
    UnknownSubstrateError,
    {
        "local": "computeragent.substrates.local:LocalSubstrate",
        "local-process": "computeragent.substrates.local:local_process",
        "bwrap": "computeragent.substrates.bwrap:BwrapSubstrate",
        "docker": "computeragent.substrates.docker:DockerSubstrate",
        "e2b": "computeragent.substrates.e2b:E2BSubstrate",
        "vz": "computeragent.substrates.vz:VZSubstrate",
    },
)
stores = Registry(
    "stores",
    "append",
    UnknownStoreError,
    {
        "memory": "computeragent.stores.memory:shared_memory_store",
        "file": "computeragent.stores.file:FileSessionStore",
        "sqlite": "computeragent.stores.sqlite:SqliteSessionStore",
        "postgres": "computeragent.stores.postgres:PostgresSessionStore",
        "mongo": "computeragent.stores.mongo:MongoSessionStore",
    },
)
identity_loaders = Registry(
    "identity_loaders",
    "load",
    UnknownLoaderError,
    {
        "passthrough": "computeragent.identity.passthrough:PassthroughLoader",
        "gap": "computeragent.identity.gap:GapIdentityLoader",
        "gitagentprotocol": "computeragent.identity.gap:GapIdentityLoader",
    },
)


sinks = Registry(
    "sinks",
    "aclose",
    UnknownSinkError,
    {
        "otel": "computeragent.telemetry.sinks:OtelSink",
        "agentos": "computeragent.telemetry.sinks:AgentOSHttpSink",
        "console": "computeragent.telemetry.sinks:ConsoleSink",
        "jsonl": "computeragent.telemetry.sinks:JsonlSink",
        "audit": "computeragent.telemetry.sinks:AuditFileSink",
    },
)


def register_engine(name: str, engine: EngineDriver | Callable[[], EngineDriver]) -> None:
    """Make an engine available under a name."""
    engines.register(name, engine)


def resolve_engine(name: str) -> EngineDriver:
    """The engine of this name. Raises `UnknownEngineError`."""
    return engines.resolve(name)


def register_substrate(name: str, substrate: Substrate | Callable[[], Substrate]) -> None:
    """Make a substrate available under a name."""
    substrates.register(name, substrate)


def resolve_substrate(name: str) -> Substrate:
    """The substrate of this name. Raises `UnknownSubstrateError`."""
    return substrates.resolve(name)


def register_session_store(name: str, store: Any) -> None:
    """Make a session store, or a factory that takes the options of a `StoreConfig`, available under a name."""
    stores.register(name, store)


def resolve_session_store(name: str) -> Any:
    """The session store of this name. Raises `UnknownStoreError`."""
    return stores.resolve(name)


def register_identity_loader(name: str, loader: IdentityLoader | Callable[[], IdentityLoader]) -> None:
    """Make an identity loader available under a name."""
    identity_loaders.register(name, loader)


def resolve_identity_loader(name: str) -> IdentityLoader:
    """The identity loader of this name. Raises `UnknownLoaderError`."""
    return identity_loaders.resolve(name)


def register_sink(name: str, sink: Any) -> None:
    """Make a telemetry sink, or a factory of one, available under a name that `configure(sinks=[…])` takes."""
    sinks.register(name, sink)
