"""`SandboxHarness`: sessions in sandboxes of a sandbox server, used like those of this process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from computeragent.client.remote import named, travelling_policy, travelling_store
from computeragent.client.sandbox_session import SandboxSession
from computeragent.client.server_client import ComputerAgentServerClient
from computeragent.client.telling import Telling
from computeragent.errors import ComputerAgentError, NotRemotableError
from computeragent.eventlog import MemoryEventLog
from computeragent.harness.told import RunTelemetry
from computeragent.ids import new_id
from computeragent.protocol_types import SessionRequest

_ENDING = 30.0


class SandboxHarness:
    """Opens sandboxes on a sandbox server; implements `Harness`.

    `runtime` is the substrate there, `asks` whether the caller means to answer tool calls, which not every server of
    this wire can carry; `telling` is who hears of its runs here.
    """

    def __init__(
        self,
        client: ComputerAgentServerClient,
        *,
        runtime: str | None = None,
        asks: bool = False,
        telling: Telling | None = None,
    ) -> None:
        self._client = client
        self._runtime = runtime
        self._asks = asks
        self._telling = telling or Telling()
        self._log = MemoryEventLog()
        self._sessions: set[SandboxSession] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self, request: SessionRequest) -> SandboxSession:
        """Open a sandbox, or the session's next run in the one that is live.

        Raises `NotRemotableError` for what cannot travel, and what the server refuses.
        """
        body = sandbox_body(request, self._runtime)
        if self._asks and "engines" not in await self._client.health():
            raise NotRemotableError(
                "on_tool_call does not reach this sandbox server: it decides tool calls by itself",
                hint="Use a policy or permission mode of the server, or harness_kind='protocol'.",
            )
        creating = asyncio.ensure_future(self._client.create_sandbox(body))
        try:
            opened = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._leave(creating)
            raise
        channel = await self._log.open(body["sessionId"])
        for before in [session for session in self._sessions if session.ended is not None]:
            self._sessions.discard(before)  # its sandbox, where it lives on, is the new one's

        def follow(session: SandboxSession) -> RunTelemetry | None:
            return self._telling.follow(session, request)

        session = SandboxSession(self._client, channel, opened, engine=body["harness"], log=self._log, follow=follow)
        self._sessions.add(session)
        session.start()
        return session

    async def close(self) -> None:
        """End the sandboxes, and close the connections."""
        closing = [session.close() for session in list(self._sessions)]
        results = await asyncio.gather(*closing, return_exceptions=True)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_ENDING)
        for task in self._leaving:
            task.cancel()
        await self._telling.close()
        await self._client.aclose()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _leave(self, creating: asyncio.Future[dict[str, Any]]) -> None:
        """End a sandbox whose opener was cancelled meanwhile."""

        async def end() -> None:
            with suppress(ComputerAgentError):
                await self._client.delete_sandbox(str((await creating)["sandboxId"]), save=False)

        task = asyncio.create_task(end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def sandbox_body(request: SessionRequest, runtime: str | None) -> dict[str, Any]:
    """A request as that wire spells it. Raises `NotRemotableError` for what it does not carry."""
    if request.git_credentials is not None:
        raise NotRemotableError(
            "git_credentials is an object of this process", hint="Configure git_credentials on the server."
        )
    for name in ("identity_loader", "approval_timeout", "project_key"):
        if getattr(request, name) != getattr(SessionRequest, name):
            raise NotRemotableError(f"a sandbox server chooses {name} by itself", hint="Leave it out.")
    body: dict[str, Any] = {
        "source": request.source,
        "harness": named(request.engine, "engine"),
        "sessionId": request.session_id or new_id("session"),
        "envs": dict(request.envs),
        "options": dict(request.options),
        "attachments": list(request.attachments),
    }
    optional = {
        "runtime": runtime,
        "model": request.model,
        "sessionStore": travelling_store(request.session_store),
        "budgetMaxUsd": request.budget_max_usd,
        "identity": {"agentId": request.agent_id} if request.agent_id is not None else None,
        "agentName": request.agent_name,
        "policy": travelling_policy(request),
    }
    return body | {key: value for key, value in optional.items() if value is not None}
