"""`MongoTelemetry`: the hooks of a `ComputerAgent`, written as AgentOS's registry and log documents to MongoDB."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import unquote

import anyio.to_thread

from computeragent.errors import MissingExtraError, ValidationError
from computeragent.logs import Logger
from computeragent.telemetry.lane import Lane
from computeragent.telemetry.redaction import Redactor, credentials_in
from computeragent.telemetry.sinks.documents import (
    RegisteredAgent,
    chat_log,
    clean_log,
    clean_registry,
    now,
    same_repository,
)

WRITE_TIMEOUT = 2.0
"""Seconds that one document may take, on a thread of its own."""
PATIENCE = 0.25
"""Seconds that the end of a chat waits at most until its document is written. Nobody waits for a server that fails."""
CLOSE_PATIENCE = 2.0
_WAITING = 1_000
# Another process put the same agent in just now, or the connection was cut.
_TRIED_AGAIN = frozenset({"DuplicateKeyError", "AutoReconnect", "NetworkTimeout", "NotPrimaryError"})
_log = Logger("mongo")


@dataclass(slots=True)
class _Write:
    """Documents to write, or with none a place in the queue; `done` once they were tried."""

    registry: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    seen: datetime | None = None
    closing: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class MongoTelemetry:
    """Writes the agent to ``agent_registry`` and every chat to ``agent_logs``; for ``ComputerAgent(telemetry=…)``.

    Args:
        url: The server, such as ``mongodb://host:27017``. Credentials in it are never logged.
        database: The database that the AgentOS server reads.
        agent: The name that the agent has in the registry, or a mapping of ``name`` and, to say them otherwise than
            the agent itself does, ``source``, ``harness`` and ``model``.
        redactor: What texts go through; default: a `Redactor` that knows the credentials of the environment.

    An agent whose source is a git repository is known by that: whatever it is called elsewhere, it has one document,
    and its chats go by the name in there.

    Writing happens on a thread of its own and is best effort: what fails is tried once more, then counted in `failures`
    and logged, and never reaches the agent. At most 1,000 documents wait; beyond that the oldest go, counted in
    `dropped`. Raises `MissingExtraError` without the extra ``mongo``, `ValidationError` for what is no address or name.

    """

    def __init__(
        self, *, url: str, database: str, agent: str | Mapping[str, Any], redactor: Redactor | None = None
    ) -> None:
        if find_spec("pymongo") is None:
            raise MissingExtraError(
                "MongoTelemetry requires the [mongo] extra", hint="pip install 'computer-agent-py[mongo]'"
            )
        if not url.startswith(("mongodb://", "mongodb+srv://")):
            raise ValidationError(
                "the URL must be mongodb://… or mongodb+srv://…", hint="Such as mongodb://host:27017."
            )
        if not database or re.search(r'[/\\. "$\x00]', database):
            raise ValidationError("MongoTelemetry needs the name of a database", hint='Such as database="agentos".')
        self.failures = 0
        self.written = 0
        self._url = url
        self._database = database
        self._agent = RegisteredAgent.of(agent)
        self._name = self._agent.name
        self._unregistered: dict[str, Any] | None = None
        known = credentials_in(dict(os.environ)) if redactor is None else []
        self._redact = redactor or Redactor(known_values=known)
        self._failing = False
        self._client: Any = None
        self._pid = os.getpid()
        self._lane: Lane[_Write] = Lane("mongo", self._handle, max_items=_WAITING, keep=lambda item: item.closing)

    def __repr__(self) -> str:
        return f"MongoTelemetry({_place(self._url)}, database={self._database!r}, agent={self._agent.name!r})"

    @property
    def dropped(self) -> int:
        """Documents that the queue had no room for."""
        return self._lane.dropped

    # ── The hooks ──

    def on_agent_constructed(self, info: Mapping[str, Any]) -> None:
        """Put the agent into the registry, behind the run's back."""
        self._lane.put(_Write(registry=self._agent.registry(info)))

    def on_chat_start(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was asked until the chat is over."""
        return {"message": info.get("message")}

    async def on_chat_end(self, info: Mapping[str, Any], context: Any = None) -> None:
        """Write the chat's log document; waits at most `PATIENCE` seconds for it, under asyncio and trio."""
        asked = cast("Mapping[str, Any]", context).get("message") if isinstance(context, Mapping) else None
        write = _Write(log=chat_log(info, asked), seen=now())
        self._lane.put(write)
        if not self._failing:
            await _wait(write.done, PATIENCE)

    async def on_close(self) -> None:
        """Write what waits and close the connection; waits at most `CLOSE_PATIENCE` seconds. Chats may follow."""
        write = _Write(closing=True)
        self._lane.put(write)
        await _wait(write.done, PATIENCE if self._failing else CLOSE_PATIENCE)

    # ── On the thread of the lane ──

    async def _handle(self, items: list[_Write]) -> None:
        for item in items:
            try:
                await self._attempt(item)
            finally:
                item.done.set()
                if item.closing:
                    await self._disconnect()

    async def _attempt(self, item: _Write) -> None:
        if item.registry is None and item.log is None:
            return
        try:
            if item.registry is not None:
                clean_registry(item.registry, self._redact)
                self._unregistered = item.registry
            if item.log is not None:
                clean_log(item.log, self._redact)
            async with asyncio.timeout(WRITE_TIMEOUT):
                try:
                    await self._write(item)
                except Exception as error:
                    if type(error).__name__ not in _TRIED_AGAIN:
                        raise
                    await self._write(item)
        except Exception as error:  # noqa: BLE001 - best effort: a log that cannot be written stops nobody
            self.failures += 1
            if not self._failing:
                _log.warn("not_written", database=repr(self), error=f"{type(error).__name__}: {self._reason(error)}")
            self._failing = True
        else:
            self.written += 1
            self._failing = False

    def _reason(self, error: Exception) -> str:
        """What an error says, without the credentials of the URL."""
        text = str(error)
        user = self._url.partition("://")[2].partition("?")[0].rpartition("@")[0]
        for secret in (self._url, user, user.partition(":")[2], unquote(user.partition(":")[2])):
            text = text.replace(secret, "***") if secret else text
        return self._redact.redact_text(text[:500])

    async def _write(self, item: _Write) -> None:
        database = self._connected()[self._database]
        if self._unregistered is not None:  # also when it failed before
            await self._register(database["agent_registry"], self._unregistered)
            self._unregistered = None
        if item.log is not None:  # by its id, so that a second attempt writes no second one
            rest = {name: value for name, value in item.log.items() if name != "_id"}
            rest |= {"bot": self._name, "agentName": self._name}
            await database["agent_logs"].update_one({"_id": item.log["_id"]}, {"$setOnInsert": rest}, upsert=True)
        if item.seen is not None:
            await database["agent_registry"].update_one({"name": self._name}, {"$set": {"lastSeen": item.seen}})

    async def _register(self, registry: Any, document: dict[str, Any]) -> None:
        """Write the agent's document: the one of its repository, if there is one, else the one of its name."""
        self._name = self._agent.name
        repository = same_repository(document["source"])
        if repository is not None:
            found = await registry.find_one_and_update(
                repository, {"$set": document}, projection={"name": True}, sort=[("registeredAt", 1)]
            )
            if found is not None:
                self._name = str(found["name"])
                return
        change = {"$set": document, "$setOnInsert": {"registeredAt": document["updatedAt"]}}
        await registry.update_one({"name": self._name}, change, upsert=True)

    def _connected(self) -> Any:
        if self._client is None or self._pid != os.getpid():  # a forked child leaves the parent's connections alone
            self._pid = os.getpid()
            self._client = import_module("pymongo").AsyncMongoClient(
                self._url,
                retryWrites=False,  # servers that speak the protocol do not all have them
                serverSelectionTimeoutMS=int(WRITE_TIMEOUT * 1000),
                connectTimeoutMS=int(WRITE_TIMEOUT * 1000),
                appname="computeragent",
                maxPoolSize=2,
            )
        return self._client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            try:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await client.close()
            except Exception as error:  # noqa: BLE001 - there is nothing left to do with it
                _log.debug("not_closed", error=type(error).__name__)


def _place(url: str) -> str:
    """A MongoDB URL, which may name several hosts, without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


async def _wait(done: threading.Event, seconds: float) -> bool:
    return await anyio.to_thread.run_sync(lambda: done.wait(seconds), abandon_on_cancel=True)
