"""`ComputerAgentServerClient`: the sandbox server's wire, request by request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Self, cast
from urllib.parse import quote

import httpx2
import msgspec

from computeragent.client.connection import Connection, name_of
from computeragent.client.harness_client import OPENING
from computeragent.errors import ComputerAgentError, HarnessProtocolError
from computeragent.wire.encoding import from_json
from computeragent.wire.requests import PermissionDecision

_GONE = frozenset({"NOT_FOUND", "GONE"})
LAST_KINDS = frozenset({"ca_done", "ca_error"})
"""The last event of a stream sums it up: ``ca_done`` with the usage, ``ca_error`` with what went wrong."""


class ComputerAgentServerClient:
    """Talks to a sandbox server.

    Args:
        base_url: Where it is, such as ``http://127.0.0.1:8787``.
        token: A bearer token. `auth` may be one as well, or a user and password.
        timeout: Seconds for connecting and for each answer; a stream may be silent for longer.
        client: An `httpx2.AsyncClient` to use instead of one of its own.

    Bodies and answers are those of the wire, as plain data. What the server refuses is raised as the error of the same
    code that the library has.

    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: tuple[str, str] | str | None = None,
        token: str | None = None,
        timeout: float | None = 30.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._wire = Connection(base_url, auth=auth, token=token, timeout=timeout, client=client)
        self.base_url = self._wire.base_url

    def __repr__(self) -> str:
        return f"ComputerAgentServerClient({self.base_url!r})"

    async def health(self) -> dict[str, Any]:
        """What the server has, and how busy it is."""
        return await self._wire.json("GET", "/health")

    # ── Sandboxes ──

    async def create_sandbox(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Open a sandbox, or get the live one of the same ``sessionId`` (``"reused": true``).

        A lost connection is tried again where the body names a ``sessionId``, so that there is one sandbox.
        """
        answer = await self._wire.json("POST", "/sandboxes", body, again="sessionId" in body)
        if not isinstance(answer.get("sandboxId"), str):
            raise HarnessProtocolError(
                f"{self.base_url} did not say which sandbox it opened", hint="Is it a sandbox server?"
            )
        return answer

    async def sandboxes(self) -> list[dict[str, Any]]:
        """The caller's sandboxes."""
        return list((await self._wire.json("GET", "/sandboxes")).get("sandboxes", []))

    async def sandbox(self, sandbox_id: str) -> dict[str, Any]:
        """A sandbox as it is now. Raises `NotFoundError`."""
        return await self._wire.json("GET", _place(sandbox_id))

    async def delete_sandbox(self, sandbox_id: str, *, save: bool = True) -> None:
        """End a sandbox; one that is gone already is fine. `save` False leaves its last snapshot out."""
        try:
            await self._wire.request("DELETE", _place(sandbox_id), params={} if save else {"save": "false"})
        except ComputerAgentError as error:
            if error.code not in _GONE:
                raise

    async def heartbeat(self, sandbox_id: str) -> dict[str, Any]:
        """Keep an idle sandbox for another while."""
        return await self._wire.json("POST", f"{_place(sandbox_id)}/heartbeat", again=True)

    def chat(
        self,
        sandbox_id: str,
        message: Any,
        *,
        attachments: list[Any] | None = None,
        taken: Callable[[], object] | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """One turn: its events as they come, ``ca_done`` or ``ca_error`` last. Leaving does not end the turn.

        `message` is text or ``[{"role": "user", "content": …}]``; `attachments` are written before it is said. `taken`
        is called when the server has taken the message.
        """
        body = {"message": message} | ({"attachments": attachments} if attachments else {})
        return self._events("POST", f"{_place(sandbox_id)}/chat", body, taken=taken)

    def sandbox_events(self, sandbox_id: str, *, after: int | None = None) -> AsyncGenerator[dict[str, Any]]:
        """The events of a sandbox's session after an id, for whoever lost the stream of a chat. It does not end."""
        return self._events("GET", f"{_place(sandbox_id)}/events", None, after=after)

    async def cancel(self, sandbox_id: str) -> None:
        """End the turn under way; the sandbox stays. Raises `NotFoundError` where the server cannot."""
        await self._wire.request("POST", f"{_place(sandbox_id)}/cancel")

    async def decide_permission(
        self, sandbox_id: str, call_id: str, decision: PermissionDecision, *, by: str | None = None
    ) -> None:
        """Answer a permission request, as `by`. Raises `NotFoundError` where the server decides by itself."""
        path = f"{_place(sandbox_id)}/permission/{quote(call_id, safe='')}"
        answer = msgspec.structs.asdict(decision) | {"by": name_of(by)}
        answer = {name: value for name, value in answer.items() if value is not None}
        await self._wire.json("POST", path, answer, again=True)

    async def workdir(self, sandbox_id: str, *, depth: int = 3) -> list[dict[str, Any]]:
        """What is in the working directory, `depth` levels of it."""
        timeout = httpx2.Timeout(30.0, read=OPENING)  # the first look may fetch the source
        answer = await self._wire.json(
            "GET", f"{_place(sandbox_id)}/workdir", params={"depth": str(depth)}, timeout=timeout
        )
        return list(answer.get("entries", []))

    async def artifact(self, sandbox_id: str, path: str) -> bytes:
        """A file's bytes. Raises `NotFoundError`."""
        timeout = httpx2.Timeout(30.0, read=OPENING)
        place = f"{_place(sandbox_id)}/artifact"
        return (await self._wire.request("GET", place, params={"path": path}, timeout=timeout)).content

    # ── Snapshots ──

    async def snapshot(self, sandbox_id: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Take a snapshot: ``{"snapshotId", "sizeBytes", "takenAt", "fileCount"}``."""
        return await self._wire.json("POST", f"{_place(sandbox_id)}/snapshot", dict(body or {}))

    async def restore(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Open a sandbox from a snapshot: ``{"snapshotId", "stateStore", …}``."""
        return await self._wire.json("POST", "/sandboxes/restore", body)

    async def snapshots(self, **query: str) -> list[dict[str, Any]]:
        """The caller's snapshots, newest first."""
        return list((await self._wire.json("GET", "/snapshots", params=query)).get("snapshots", []))

    async def delete_snapshot(self, snapshot_id: str, **query: str) -> None:
        """Delete a snapshot."""
        await self._wire.request("DELETE", f"/snapshots/{quote(snapshot_id, safe='')}", params=query)

    # ── Runs and tasks ──

    def run(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """One turn in a sandbox of its own: its events, ``ca_done`` or ``ca_error`` last."""
        return self._events("POST", "/run", dict(body))

    async def create_task(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run in the background: ``{"taskId", "sessionId", "status"}``."""
        return await self._wire.json("POST", "/tasks", body)

    async def tasks(self, **query: str) -> list[dict[str, Any]]:
        """The caller's tasks, newest first."""
        return list((await self._wire.json("GET", "/tasks", params=query)).get("tasks", []))

    async def task(self, task_id: str) -> dict[str, Any]:
        """A task as it is now."""
        return await self._wire.json("GET", _task(task_id))

    async def task_events(self, task_id: str, *, since: int = -1) -> dict[str, Any]:
        """The events after an id: ``{"events", "nextSince", "done", "status"}``."""
        return await self._wire.json("GET", f"{_task(task_id)}/events", params={"since": str(since)})

    def stream_task(self, task_id: str, *, after: int | None = None) -> AsyncGenerator[dict[str, Any]]:
        """The events of a task as they come, with their ``id``; ``ca_done`` last."""
        return self._events("GET", f"{_task(task_id)}/events", None, after=after)

    async def task_artifact(self, task_id: str, path: str) -> bytes:
        """A file of a task that still runs."""
        return (await self._wire.request("GET", f"{_task(task_id)}/artifact", params={"path": path})).content

    async def delete_task(self, task_id: str) -> None:
        """Cancel a task that runs, forget one that has ended."""
        await self._wire.request("DELETE", _task(task_id))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _events(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        after: int | None = None,
        taken: Callable[[], object] | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events of a stream, each with its ``kind``. Raises `HarnessProtocolError` when it breaks off."""
        try:
            async with aclosing(self._wire.frames(method, path, body=body, after=after)) as frames:
                async for frame in frames:
                    if frame is None:
                        if taken is not None:
                            taken()
                        continue
                    event = _object(frame.data)
                    kind = event.setdefault("kind", frame.event or "")  # older servers name it beside the data alone
                    if frame.id is not None and frame.id.isdigit():
                        event.setdefault("id", int(frame.id))
                    yield event
                    if kind in LAST_KINDS:
                        return
        except httpx2.TransportError as error:
            raise self._lost(path, type(error).__name__) from error
        raise self._lost(path, "it ended without its last event")

    def _lost(self, path: str, why: str) -> HarnessProtocolError:
        return HarnessProtocolError(
            f"the stream of {path} was lost: {why}", hint=f"Check that {self.base_url} is up. The turn may go on there."
        )


def _object(data: str) -> dict[str, Any]:
    try:
        event = from_json(data)
    except msgspec.DecodeError as error:
        raise HarnessProtocolError(f"an event cannot be read: {error}") from error
    if not isinstance(event, dict):
        raise HarnessProtocolError("an event is not a JSON object")
    return cast("dict[str, Any]", event)


def _place(sandbox_id: str) -> str:
    return f"/sandboxes/{quote(sandbox_id, safe='')}"


def _task(task_id: str) -> str:
    return f"/tasks/{quote(task_id, safe='')}"
