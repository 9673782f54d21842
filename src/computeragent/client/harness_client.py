"""`HarnessClient`: the harness protocol, request by request, and its stream, which survives lost connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx2
import msgspec

from computeragent.client.connection import Connection, name_of
from computeragent.errors import HarnessProtocolError, NotFoundError, ProtocolVersionError
from computeragent.logs import Logger
from computeragent.wire.events import PROTOCOL_VERSION, CaSessionEnded, Recorded, decode_event
from computeragent.wire.requests import UserInput

PATIENCE = 60.0
"""Seconds that a lost stream is tried for, without one new event, before it is given up."""
OPENING = 330.0
"""Seconds that opening a session may take, its source fetched."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_log = Logger("client")


class HarnessClient:
    """Talks to a harness server.

    Args:
        base_url: Where it is, such as ``http://127.0.0.1:7700``.
        token: A bearer token. `auth` may be one as well, or a user and password.
        timeout: Seconds for connecting and for each answer; a stream may be silent for longer.
        client: An `httpx2.AsyncClient` to use instead of one of its own.

    What the server refuses is raised as the error of the same code that the library has.

    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: tuple[str, str] | str | None = None,
        token: str | None = None,
        timeout: float | None = 30.0,
        client: httpx2.AsyncClient | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self._wire = Connection(
            base_url,
            auth=auth,
            token=token,
            timeout=timeout,
            client=client,
            headers={"x-protocol-version": PROTOCOL_VERSION},
        )
        self.base_url = self._wire.base_url

    def __repr__(self) -> str:
        return f"HarnessClient({self.base_url!r})"

    # ── Requests ──

    async def health(self) -> dict[str, Any]:
        """What the server has."""
        return await self._wire.json("GET", "/v1/health")

    async def create_session(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Open a session; the answer has ``sessionId``, ``engine``, ``identity`` and ``capabilities``.

        Waits up to `OPENING` seconds, as for a clone. However often it must be asked for, it is opened once.
        """
        timeout = httpx2.Timeout(30.0, read=OPENING)
        opened = await self._wire.json("POST", "/v1/sessions", body, again=True, headers=_once(), timeout=timeout)
        spoken = opened.get("protocolVersion", PROTOCOL_VERSION)
        if not isinstance(opened.get("sessionId"), str):
            raise HarnessProtocolError(
                f"{self.base_url} did not say which session it opened", hint="Is it a harness server?"
            )
        if spoken != PROTOCOL_VERSION:
            await self.delete_session(opened["sessionId"])
            raise ProtocolVersionError(
                f"this client speaks protocol version {PROTOCOL_VERSION}, the server {str(spoken)[:20]!r}",
                hint="Use a server of the same version.",
            )
        return opened

    async def send_message(self, session_id: str, message: UserInput | Mapping[str, Any]) -> int:
        """Say something, once; the index of the turn that it will be."""
        path = f"{_place(session_id)}/messages"
        answer = await self._wire.json("POST", path, {"message": message}, again=True, headers=_once())
        return int(answer.get("turnIndex", -1))

    async def decide_permission(
        self,
        session_id: str,
        call_id: str,
        decision: str,
        *,
        input: Any = None,  # noqa: A002
        reason: str | None = None,
        by: str | None = None,
    ) -> None:
        """Answer a permission request: ``allow``, ``deny`` or ``modify``. Raises `UnknownCallError` when late.

        `by` names who answered; it is recorded beside who the token says. What no name has in it is left out.
        """
        answer = {"decision": decision, "input": input, "reason": reason, "by": name_of(by)}
        answer = {name: value for name, value in answer.items() if value is not None}
        path = f"{_place(session_id)}/permission/{quote(call_id, safe='')}"
        await self._wire.json("POST", path, answer, again=True)

    async def approvals(self) -> dict[str, Any]:
        """The calls of all your sessions that wait for an answer: ``approvals``, oldest first, each with ``sessionId``,
        ``callId``, ``toolName``, ``input``, ``risk``, ``policy``, ``reason``, ``askedAt``, ``expiresAt`` and ``agent``;
        ``unreachable`` are sessions whose server could not be asked.
        """
        return await self._wire.json("GET", "/v1/approvals")

    async def end_input(self, session_id: str) -> None:
        """No more messages: the run ends when the turns that wait are done."""
        await self._wire.json("POST", f"{_place(session_id)}/end-input", again=True)

    async def cancel(self, session_id: str, *, scope: str = "session", turn_index: int | None = None) -> bool:
        """End the run or a turn; True when the turn had not begun, and was taken back."""
        body = {"scope": scope} | ({} if turn_index is None else {"turnIndex": turn_index})
        answer = await self._wire.json("POST", f"{_place(session_id)}/cancel", body, again=turn_index is not None)
        return bool(answer.get("withdrawn"))

    async def session(self, session_id: str) -> dict[str, Any]:
        """A session as it is now."""
        return await self._wire.json("GET", _place(session_id))

    async def delete_session(self, session_id: str) -> None:
        """End a session and forget it."""
        await self._wire.json("DELETE", _place(session_id))

    async def stream_events(self, session_id: str, last_event_id: int | None = None) -> AsyncGenerator[Recorded]:
        """The events of the current run, or those after an id, each exactly once, to the end of the run.

        A lost connection is made again, going on after the last event. Raises `HarnessProtocolError` when that has not
        brought an event for `patience` seconds, and what the server refuses.
        """
        after = last_event_id
        lost_at: float | None = None
        pause = _FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._connection(session_id, after)) as connection:
                    async for recorded in connection:
                        if after is not None and recorded.id <= after:
                            continue
                        if after is not None and recorded.id > after + 1:
                            missing = f"events {after + 1} to {recorded.id - 1} of the stream are missing"
                            raise HarnessProtocolError(missing)
                        after, lost_at, pause = recorded.id, None, _FIRST_PAUSE
                        yield recorded
                        if isinstance(recorded.event, CaSessionEnded):
                            return
                reason = "the server closed the stream"
            except NotFoundError as error:
                if after is None:
                    raise
                raise HarnessProtocolError(
                    f"session {session_id} is not at {self.base_url} any more: the server was started anew without it, "
                    "or somebody deleted it",
                    hint="Say it again: that begins the session anew.",
                    details={"last_event_id": after},
                ) from error
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            now = time.monotonic()
            lost_at = lost_at or now
            if now - lost_at > self._patience:
                raise HarnessProtocolError(
                    f"the event stream of {session_id} was lost: {reason}",
                    hint=f"Check that {self.base_url} is up; resume after event {after}.",
                    details={"last_event_id": after},
                )
            _log.info("stream_reconnects", session=session_id, after=after, reason=reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(_LONGEST_PAUSE, pause * 2)

    def give_up(self) -> None:
        """From now on a lost stream is not waited for: its server is known to be gone."""
        self._patience = 0.0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ── The wire ──

    async def request(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """One request. Raises the error that the server told, `HarnessProtocolError` for what is none of ours."""
        return await self._wire.request(method, path, **how)

    async def _connection(self, session_id: str, after: int | None) -> AsyncGenerator[Recorded]:
        """One connection's events."""
        async with aclosing(self._wire.frames("GET", f"{_place(session_id)}/events", after=after)) as frames:
            async for frame in frames:
                if frame is None or frame.id is None or not frame.id.isdigit():
                    continue
                data = frame.data.encode()
                try:
                    event = decode_event(data)
                except msgspec.DecodeError as error:
                    raise HarnessProtocolError(f"event {frame.id} cannot be read: {error}") from error
                yield Recorded(int(frame.id), time.time(), event, data)


def _once() -> dict[str, str]:
    """A header by which a server knows a request that it has had already."""
    return {"idempotency-key": uuid4().hex}


def _place(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"
