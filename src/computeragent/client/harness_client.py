"""`HarnessClient`: the harness protocol, request by request, and its stream, which survives lost connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from importlib import metadata
from typing import Any, Self, cast
from urllib.parse import quote

import httpx2
import msgspec

from computeragent.errors import ComputerAgentError, HarnessProtocolError, told
from computeragent.logs import Logger
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.events import PROTOCOL_VERSION, CaSessionEnded, Recorded, decode_event
from computeragent.wire.requests import PermissionDecision, UserInput
from computeragent.wire.sse import SseDecoder

PATIENCE = 60.0
"""Seconds that a lost stream is tried for, without one new event, before it is given up."""
SILENCE = 45.0
"""Seconds without a byte, heartbeats included, after which a connection is taken to be dead."""
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
        self.base_url = base_url.rstrip("/")
        self._patience = patience
        self._own = client is None
        bearer = token or (auth if isinstance(auth, str) else None)
        self._headers = {
            "x-protocol-version": PROTOCOL_VERSION,
            "user-agent": f"computer-agent-py/{metadata.version('computer-agent-py')}",
        }
        if bearer:
            self._headers["authorization"] = f"Bearer {bearer}"
        self._auth = auth if isinstance(auth, tuple) else None
        self._http = client or httpx2.AsyncClient(timeout=timeout)

    def __repr__(self) -> str:
        return f"HarnessClient({self.base_url!r})"

    # ── Requests ──

    async def health(self) -> dict[str, Any]:
        """What the server has."""
        return await self._json("GET", "/v1/health")

    async def create_session(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Open a session; the answer has ``sessionId``, ``engine``, ``identity`` and ``capabilities``."""
        return await self._json("POST", "/v1/sessions", body)

    async def send_message(self, session_id: str, message: UserInput | Mapping[str, Any]) -> int:
        """Say something; the index of the turn that it will be."""
        answer = await self._json("POST", f"{_place(session_id)}/messages", {"message": message})
        return int(answer.get("turnIndex", -1))

    async def decide_permission(
        self,
        session_id: str,
        call_id: str,
        decision: str,
        *,
        input: Any = None,  # noqa: A002
        reason: str | None = None,
    ) -> None:
        """Answer a permission request: ``allow``, ``deny`` or ``modify``. Raises `UnknownCallError` when late."""
        answer = PermissionDecision(decision=cast("Any", decision), input=input, reason=reason)
        await self._json("POST", f"{_place(session_id)}/permission/{quote(call_id, safe='')}", answer)

    async def end_input(self, session_id: str) -> None:
        """No more messages: the run ends when the turns that wait are done."""
        await self._json("POST", f"{_place(session_id)}/end-input")

    async def cancel(self, session_id: str, *, scope: str = "session", turn_index: int | None = None) -> bool:
        """End the run or a turn; True when the turn had not begun, and was taken back."""
        body = {"scope": scope} | ({} if turn_index is None else {"turnIndex": turn_index})
        answer = await self._json("POST", f"{_place(session_id)}/cancel", body)
        return bool(answer.get("withdrawn"))

    async def session(self, session_id: str) -> dict[str, Any]:
        """A session as it is now."""
        return await self._json("GET", _place(session_id))

    async def delete_session(self, session_id: str) -> None:
        """End a session and forget it."""
        await self._json("DELETE", _place(session_id))

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
                async for recorded in self._connection(session_id, after):
                    if after is not None and recorded.id <= after:
                        continue
                    if after is not None and recorded.id > after + 1:
                        raise HarnessProtocolError(f"events {after + 1} to {recorded.id - 1} of the stream are missing")
                    after, lost_at, pause = recorded.id, None, _FIRST_PAUSE
                    yield recorded
                    if isinstance(recorded.event, CaSessionEnded):
                        return
                reason = "the server closed the stream"
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

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ── The wire ──

    async def request(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """One request. Raises the error that the server told, `HarnessProtocolError` for what is none of ours."""
        headers = self._headers | how.pop("headers", {})
        try:
            response = await self._http.request(
                method, f"{self.base_url}{path}", headers=headers, auth=self._auth, **how
            )
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise told_error(method, path, response.status_code, response.content)
        return response

    async def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        how: dict[str, Any] = {}
        if body is not None:
            how = {"content": to_json(body), "headers": {"content-type": "application/json"}}
        response = await self.request(method, path, **how)
        try:
            answer = from_json(response.content)
        except msgspec.DecodeError as error:
            raise HarnessProtocolError(f"{method} {path}: the answer is not JSON") from error
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}

    async def _connection(self, session_id: str, after: int | None) -> AsyncGenerator[Recorded]:
        """One connection's events."""
        headers = self._headers | {"accept": "text/event-stream"}
        if after is not None:
            headers["last-event-id"] = str(after)
        decoder = SseDecoder()
        path = f"{_place(session_id)}/events"
        timeout = httpx2.Timeout(30.0, read=SILENCE)
        url = f"{self.base_url}{path}"
        async with self._http.stream("GET", url, headers=headers, auth=self._auth, timeout=timeout) as response:
            if response.status_code >= 400:
                error = told_error("GET", path, response.status_code, await response.aread())
                if response.status_code in {502, 503, 504}:
                    raise httpx2.ConnectError(error.message)
                raise error
            async for chunk in response.aiter_bytes():
                for frame in decoder.feed(chunk):
                    if frame.id is None or not frame.id.isdigit():
                        continue
                    data = frame.data.encode()
                    try:
                        event = decode_event(data)
                    except msgspec.DecodeError as error:
                        raise HarnessProtocolError(f"event {frame.id} cannot be read: {error}") from error
                    yield Recorded(int(frame.id), time.time(), event, data)

    def _unreachable(self, error: Exception) -> HarnessProtocolError:
        return HarnessProtocolError(
            f"the harness server at {self.base_url} cannot be reached: {type(error).__name__}",
            hint="Is `computeragent serve` running there, and the address right?",
        )


def told_error(method: str, path: str, status: int, body: bytes) -> ComputerAgentError:
    """The error that an answer tells, as the library's own class where the code is known."""
    try:
        answer: Any = from_json(body)
        inner = answer["error"]
        code, message = str(inner["code"]), str(inner["message"])
        hint, details = inner.get("hint"), inner.get("details")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        text = body[:200].decode("utf-8", "replace").strip()
        return HarnessProtocolError(f"{method} {path}: HTTP {status} {text}".rstrip(), details={"status": status})
    return told(code, message, hint, details, default=HarnessProtocolError)


def _place(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"
