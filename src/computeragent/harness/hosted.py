"""An engine in a sandbox, seen from outside: the engine host there is driven like any engine.

The judge, the log, the memory and the keys stay here. The host asks for every tool call, and tells what its engine
wants remembered; what it says is data, whoever controls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from computeragent.errors import ComputerAgentError, EngineError, NotRemotableError, UnknownCallError, told
from computeragent.logs import Logger
from computeragent.protocol_types import (
    EngineContext,
    EngineDriver,
    EngineEvent,
    PermissionRequest,
    Session,
    SessionRequest,
    SubstrateHandle,
)
from computeragent.stores.binding import engine_session_id
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.events import (
    CaPermissionRequest,
    CaSessionEnded,
    CaUsageSnapshot,
    HarnessEvent,
    SdkMessage,
    UnknownEvent,
)
from computeragent.wire.identity import LocalSource
from computeragent.wire.requests import HostedRun, PermissionDecision, Transcript

TRANSCRIPT = "engine_transcript"
"""The kind of event in which an engine host tells what its engine wants remembered; it stays between the two."""

_MARGIN = 10.0  # seconds by which a host waits longer for an answer than the chain outside takes to give one
_LAST_WORDS = 2.0
_log = Logger("hosted")


class HostedEngine:
    """An engine that runs in a booted substrate; implements `EngineDriver`.

    Raises `NotRemotableError` for an engine object, and for options that are no plain data.
    """

    def __init__(
        self,
        chosen: str | EngineDriver,
        engine: EngineDriver,
        placed: SubstrateHandle,
        options: Mapping[str, Any],
    ) -> None:
        if not isinstance(chosen, str):
            raise NotRemotableError(
                f"engine {engine.name!r} is an object of this process, which cannot go into a sandbox",
                hint="Register it under a name, in a package that the sandbox has; or use runtime='local'.",
            )
        self.name = engine.name
        self.capabilities = engine.capabilities
        self._placed = placed
        self._options = _relocated(_plain(options), placed.inside)

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        """See `EngineDriver.start_session`."""
        assert self._placed.harness is not None
        request = await self._request(ctx)
        opening = asyncio.ensure_future(self._placed.harness.open(request))
        try:
            session = await self._while_alive(opening)
        except asyncio.CancelledError:
            opening.cancel()
            raise
        run = _Run(ctx, session)
        try:
            async for event in run.events():
                yield event
        except ComputerAgentError as error:
            if ctx.cancel_event.is_set() or not run.broken:
                raise
            raise await self._ended(error) from error
        finally:
            await run.close()

    async def _request(self, ctx: EngineContext) -> SessionRequest:
        inside = self._placed.inside
        return SessionRequest(
            source=LocalSource(path=_place(ctx.workspace_path, inside)),
            engine=self.name,
            envs=self._placed.envs,
            options=self._options,
            session_id=ctx.session_id,
            budget_max_usd=ctx.budget_max_usd,
            hosted=HostedRun(
                name=ctx.manifest.name,
                version=ctx.manifest.version,
                sha=ctx.manifest.sha,
                trusted=ctx.trusted,
                strict=ctx.strict,
                state_dir=_place(ctx.state_dir, inside),
                project_key=ctx.project_key,
                approval_timeout=ctx.approval_timeout + _MARGIN,
                transcripts=await _remembered(ctx),
            ),
        )

    async def _while_alive(self, opening: asyncio.Future[Session]) -> Session:
        """The opened session; an error at once where the sandbox ends before it answers."""
        ended = self._placed.ended
        if ended is None:
            return await opening
        dying = asyncio.ensure_future(ended())
        try:
            await asyncio.wait({opening, dying}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                return opening.result()
            opening.cancel()
            raise EngineError(f"the sandbox could not start: {dying.result()}", hint="Run `computeragent doctor`.")
        finally:
            dying.cancel()

    async def _ended(self, error: ComputerAgentError) -> ComputerAgentError:
        """What became of a sandbox that does not answer any more."""
        if self._placed.ended is not None:
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    reason = await self._placed.ended()
            except TimeoutError:
                return error
            return EngineError(f"the sandbox ended: {reason}", hint="Its memory may have been used up.")
        return error


class _Run:
    """One run of an engine in a sandbox: its session there, and the tasks that carry things in."""

    def __init__(self, ctx: EngineContext, session: Session) -> None:
        self._ctx = ctx
        self._session = session
        self._over = False
        self._sent = asyncio.Event()
        self.broken = False
        self._asked: set[asyncio.Task[None]] = set()
        self._tasks = [asyncio.create_task(each) for each in (self._feed(), self._interrupt(), self._cancel())]

    async def events(self) -> AsyncIterator[EngineEvent]:
        """What the host says, as events of an engine."""
        stream = self._session.events()
        while True:
            try:
                recorded = await anext(stream, None)
            except ComputerAgentError:
                self.broken = True
                raise
            if recorded is None:
                break
            for task in self._tasks:
                if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                    raise failure
            event = recorded.event
            if isinstance(event, CaSessionEnded):
                self._over = True
                if event.reason == "error":
                    message = event.error_message or "the engine failed"
                    raise told(event.error_code or EngineError.code, message, event.error_hint, default=EngineError)
                yield EngineEvent("session_ended", reason=event.reason, error_message=event.error_message)
                return
            made = await self._taken(event)
            if made is not None:
                yield made

    async def _taken(self, event: HarnessEvent) -> EngineEvent | None:
        if isinstance(event, SdkMessage):
            return EngineEvent("sdk_message", event.raw, ends_turn=event.ends_turn)
        if isinstance(event, CaUsageSnapshot):
            return EngineEvent(
                "usage_snapshot",
                input_tokens=event.input_tokens,
                output_tokens=event.output_tokens,
                cache_creation_input_tokens=event.cache_creation_input_tokens,
                cache_read_input_tokens=event.cache_read_input_tokens,
                cost_usd=event.cost_usd,
                cost_semantic=event.cost_semantic,
            )
        if isinstance(event, CaPermissionRequest):
            asked = asyncio.create_task(self._ask(event))
            self._asked.add(asked)
            asked.add_done_callback(self._asked.discard)
        elif isinstance(event, UnknownEvent) and event.kind == TRANSCRIPT:
            await self._remember(event)
        return None

    async def _ask(self, event: CaPermissionRequest) -> None:
        """Have the chain outside judge a call, and carry its answer in. Whatever goes wrong denies."""
        asked: Any = event.input
        tool_input = cast("dict[str, Any]", asked) if type(asked) is dict else {}
        try:
            decision = await self._ctx.on_permission_request(
                # What it risks is judged out here; that a person must be asked is believed.
                PermissionRequest(event.call_id, event.tool_name, tool_input, policy=event.policy, reason=event.reason)
            )
        except Exception as error:  # noqa: BLE001 - a fault of the judge's is no permission
            _log.error("permission_failed", session=self._ctx.session_id, error=repr(error))
            decision = PermissionDecision(decision="deny", reason="the permission chain failed")
        try:
            await self._session.decide(event.call_id, decision)
        except UnknownCallError:
            pass  # the turn has ended meanwhile, and its calls with it
        except ComputerAgentError as error:
            _log.warn("decision_not_delivered", session=self._ctx.session_id, error=error.message)

    async def _remember(self, event: UnknownEvent) -> None:
        """Store what the engine wants remembered: in this session's memory, whatever the event claims."""
        store = self._ctx.session_store
        if store is None:
            return
        transcript = msgspec.convert(from_json(bytes(event.raw)), Transcript)
        await store.append(_key(self._ctx, transcript.subpath), cast("Any", transcript.entries))

    async def _feed(self) -> None:
        async for message in self._ctx.user_message_queue:
            self._sent.clear()
            await self._session.send(message)
            self._sent.set()
        if not self._over:
            await self._session.end_input()

    async def _interrupt(self) -> None:
        while True:
            await self._sent.wait()
            await self._ctx.interrupt_event.wait()
            self._sent.clear()
            await self._session.interrupt()

    async def _cancel(self) -> None:
        await self._ctx.cancel_event.wait()
        await self._session.cancel()

    async def close(self) -> None:
        """Stop carrying, and end the session in the sandbox."""
        running = [*self._tasks, *self._asked]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if not self._over and not self.broken:
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    await self._session.cancel()
            except (ComputerAgentError, TimeoutError) as error:
                _log.debug("sandbox_session_not_ended", session=self._ctx.session_id, error=str(error))


def _key(ctx: EngineContext, subpath: str | None) -> Any:
    key = {"project_key": ctx.project_key, "session_id": engine_session_id(ctx.session_id)}
    return key | ({} if subpath is None else {"subpath": subpath})


async def _remembered(ctx: EngineContext) -> list[Transcript]:
    """All that the session's store holds."""
    store = ctx.session_store
    if store is None:
        return []
    subkeys = await store.list_subkeys(_key(ctx, None))
    found = [(subpath, await store.load(_key(ctx, subpath))) for subpath in (None, *subkeys)]
    return [Transcript(subpath=subpath, entries=cast("Any", entries)) for subpath, entries in found if entries]


def _place(path: Path, inside: Mapping[Path, str]) -> str:
    """Where a folder of this machine is in the sandbox."""
    return inside.get(path, str(path))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as plain data. Raises `NotRemotableError` for what cannot travel."""
    for name, value in options.items():
        try:
            to_json(value)
        except (TypeError, ValueError):
            raise NotRemotableError(
                f"option {name!r} holds a Python object, which cannot go into a sandbox",
                hint="Use runtime='local', or give plain data, such as an MCP server's command or URL.",
            ) from None
    return from_json(to_json(dict(options)))


def _relocated(value: Any, inside: Mapping[Path, str]) -> Any:
    """A value with paths of the workspace and the state folder as the sandbox has them."""
    if isinstance(value, dict):
        return {key: _relocated(item, inside) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_relocated(item, inside) for item in cast("list[Any]", value)]
    if isinstance(value, str) and value.startswith("/"):
        for outer, inner in inside.items():
            if value == str(outer) or value.startswith(f"{outer}/"):
                return inner + value[len(str(outer)) :]
    return value
