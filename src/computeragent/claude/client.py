"""`ClaudeSDKClient`: upstream's class, with a tap on what it receives."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any

import claude_agent_sdk
from claude_agent_sdk import ClaudeAgentOptions, Message, Transport

from computeragent.claude.beside import beside
from computeragent.claude.gated import gated
from computeragent.claude.tap import Tap
from computeragent.logs import Logger

_log = Logger("client")


class ClaudeSDKClient(claude_agent_sdk.ClaudeSDKClient):
    """Upstream's client, with the same methods, messages and errors, told to the process's telemetry pipeline as well.

    Where `can_use_tool` is a `PolicyToolAuthorizer`, it decides every tool call, in every permission mode. A session in
    telemetry lasts from `connect` to `disconnect`. When an enforcing guard stops it, the turn under way
    is interrupted, and the next `query` raises `GuardrailError`.
    """

    options: ClaudeAgentOptions

    def __init__(self, options: ClaudeAgentOptions | None = None, transport: Transport | None = None) -> None:
        super().__init__(options, transport)
        self._tap: Tap | None = None
        self._connecting = False
        self._interrupted = False

    async def connect(self, prompt: str | AsyncIterable[dict[str, Any]] | None = None) -> None:
        """Connect, as upstream does; the session begins."""
        if self._tap is not None:  # connected anew without a disconnect
            self._tap.end(cancelled=True)
        tap = self._tap = Tap.open(self.options, prompt)
        if tap is None:
            with self._passing(gated(self.options)):
                await super().connect(prompt)
            return
        self._connecting, self._interrupted = True, False
        try:
            with self._passing(gated(tap.options(), tap)), tap.span():
                await super().connect(tap.watched(prompt))
        except Exception as error:
            tap.end(error)
            raise
        except BaseException:
            tap.end(cancelled=True)
            raise
        finally:
            self._connecting = False

    async def query(self, prompt: str | AsyncIterable[dict[str, Any]], session_id: str = "default") -> None:
        """Send a prompt, as upstream does. Raises `GuardrailError` when a guard has stopped the session."""
        tap = self._tap
        if tap is None or tap.ended:
            await super().query(prompt, session_id)
            return
        if tap.trip is not None:
            raise tap.refusal()
        if isinstance(prompt, str):
            tap.prompt(prompt)
        watched: Any = tap.watched(prompt)
        await super().query(watched, session_id)

    async def receive_messages(self) -> AsyncIterator[Message]:
        """All messages as they come, as upstream yields them."""
        tap = self._tap
        if tap is None:
            async for message in super().receive_messages():
                yield message
            return
        try:
            async for message in super().receive_messages():
                tap.message(message)
                yield message
                if tap.trip is not None and not self._interrupted:
                    self._interrupted = True
                    beside(self._stop_turn)  # its answer comes through the stream that is read here
        except Exception as error:
            tap.fail(error)  # the client may go on: one message that cannot be read is no end
            raise

    async def disconnect(self) -> None:
        """Disconnect, as upstream does; the session is over."""
        tap = self._tap
        try:
            await super().disconnect()
        finally:
            if tap is not None and not self._connecting:
                tap.end(cancelled=True)
                self._tap = None
        if tap is not None and not self._connecting:
            await tap.settle()

    @contextmanager
    def _passing(self, options: ClaudeAgentOptions | None) -> Generator[None]:
        """Have upstream connect with other options than the caller's own, which are back afterwards."""
        own = self.options
        try:
            self.options = options or own
            yield
        finally:
            self.options = own

    async def _stop_turn(self) -> None:
        """A guard tripped: interrupt the turn under way."""
        try:
            await self.interrupt()
        except Exception as error:  # noqa: BLE001 - the turn may be over already
            _log.debug("interrupt_failed", error=repr(error))
