"""The connection to Redis: made on first use, in one event loop; its faults as errors of ours."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from computeragent.errors import EventLogError, EventLogUnavailableError, MissingExtraError, ValidationError

SCHEMES = ("redis", "rediss", "unix")
_TIMEOUT = 5.0


class RedisLink:
    """A Redis server at a URL: ``redis://host:6379/0``, ``rediss://…`` or ``unix:///path``.

    Raises `ValidationError` for another URL, `MissingExtraError` without redis-py.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError:
            parts, port = None, 0
        if parts is None or parts.scheme not in SCHEMES or not (parts.netloc or parts.path):
            start = url.partition("://")[0]  # the rest may have a password
            raise ValidationError(
                f"{start}://… is no address of a Redis server", hint="Such as redis://localhost:6379/0."
            )
        try:
            self._library: Any = import_module("redis.asyncio")
            self._errors: Any = import_module("redis.exceptions")
            backoff: Any = import_module("redis.backoff")
        except ImportError as error:
            raise MissingExtraError(
                f"the Redis event log needs redis-py: {error}", hint="pip install 'computer-agent-py[redis]'"
            ) from error
        self._url = url
        self.name = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{port}"
        self._retry = lambda: self._library.retry.Retry(backoff.NoBackoff(), 1)
        self._clients: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """What redis-py raises."""
        return (self._errors.RedisError, OSError)

    @property
    def client(self) -> Any:
        """For commands that answer at once."""
        return self._client(0)

    @property
    def waiting(self) -> Any:
        """For commands that wait in the server for something to happen."""
        return self._client(1)

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run a script. Raises `EventLogUnavailableError`."""
        try:
            try:
                return await self.client.evalsha(digest(script), 0, *arguments)
            except self._errors.NoScriptError:
                return await self.client.eval(script, 0, *arguments)
        except self.faults as error:
            raise self.failure(error) from error

    async def command(self, name: str, *arguments: Any) -> Any:
        """Run a command by its method of redis-py. Raises `EventLogUnavailableError`."""
        try:
            return await getattr(self.client, name)(*arguments)
        except self.faults as error:
            raise self.failure(error) from error

    async def run_each(self, script: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Run a script many times in one round trip; a call that fails has its error for an answer.

        All of them are run again where the server did not know the script yet. Raises what redis-py raises.
        """
        while True:
            pipeline = self.client.pipeline(transaction=False)
            for arguments in calls:
                pipeline.evalsha(digest(script), 0, *arguments)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            if not any(isinstance(answer, self._errors.NoScriptError) for answer in answers):
                return answers
            await self.client.script_load(script)

    def failure(self, error: Exception) -> EventLogUnavailableError:
        """What redis-py raised, as an error of ours; a password in the URL is not told."""
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        return EventLogUnavailableError(
            f"the event log in Redis at {self.name} cannot be used: {text}",
            hint="Is the Redis server up, is the URL right, does it take writes?",
        )

    async def close(self) -> None:
        """Close the connections; there will be no others."""
        self._closed = True
        clients, self._clients = self._clients, []
        if asyncio.get_running_loop() is self._loop:
            for client in clients:
                await client.aclose()

    def _client(self, index: int) -> Any:
        if self._closed:  # what was still waiting for an answer when the log was closed
            raise EventLogError("the event log is closed", hint="Open a new one.")
        loop = asyncio.get_running_loop()
        if self._loop not in {None, loop}:
            raise EventLogError(
                "a Redis event log belongs to one event loop, and this is another one",
                hint="Make a RedisEventLog in each event loop, and close it there.",
            )
        self._loop = loop
        if not self._clients:
            settings = {"protocol": 2, "socket_connect_timeout": _TIMEOUT, "decode_responses": False}
            self._clients = [
                self._library.Redis.from_url(self._url, socket_timeout=timeout, retry=self._retry(), **settings)
                for timeout in (_TIMEOUT, 3 * _TIMEOUT)
            ]
        return self._clients[index]


def digest(text: str) -> str:
    """SHA-1, by which Redis knows scripts."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
