"""The engine `acp`: a command line agent that speaks the Agent Client Protocol, one process per run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from computeragent.engines.acp.connection import answered, choose, connect, failure, initialize, refuse, told, withdrawn
from computeragent.engines.acp.launch import Launch, prepare
from computeragent.engines.acp.memory import Memory
from computeragent.engines.acp.options import read_options
from computeragent.engines.acp.process import AgentProcess
from computeragent.engines.acp.prompts import prompt_blocks, server_blocks, takes_urls, text_of
from computeragent.engines.acp.telling import Teller, breach_error
from computeragent.errors import EngineError, EngineUnavailableError, UnknownPriceError, ValidationError
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.protocol_types import EngineContext, EngineEvent, PermissionRequest
from computeragent.telemetry.prices import estimate
from computeragent.wire.events import Capabilities
from computeragent.wire.requests import UserInput

if TYPE_CHECKING:
    from acp import RequestPermissionResponse
    from acp.core import ClientSideConnection
    from acp.schema import AgentCapabilities, PermissionOption, PromptResponse, SessionModeState, ToolCallUpdate

Json = dict[str, Any]
T = TypeVar("T")

_AHEAD = 1_000  # events that the agent may be ahead of its readers
_AGAIN = 1.0  # seconds between two requests to stop: one that comes too early is lost on some agents
_SETTLE = 1.0
_SUBTYPES = {"end_turn": "success", "max_tokens": "error_max_tokens", "max_turn_requests": "error_max_turns"}
_log = Logger("engine.acp")


class AcpEngine:
    """Any agent that speaks the Agent Client Protocol; implements `EngineDriver`. Options: `options.Options`."""

    name = "acp"
    capabilities = Capabilities(
        streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True
    )

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        """See `EngineDriver.start_session`."""
        import acp  # noqa: F401 # pyright: ignore[reportUnusedImport] - missing, it is said before anything is fetched

        options = read_options(ctx.options)
        run = _Run(ctx, await prepare(ctx, options), partial=options.include_partial_messages)
        try:
            async for event in run.events(options.start_timeout):
                yield event
        finally:
            await run.close()


class _StoppedError(Exception):
    """The run was told to end while the agent was waited for."""


class _Run:
    """One run: the process, the connection, and the task that leads the conversation."""

    def __init__(self, ctx: EngineContext, launch: Launch, *, partial: bool) -> None:
        self._ctx = ctx
        self._launch = launch
        self._process = AgentProcess(launch)
        self._memory = Memory(ctx, launch.title)
        self._teller = Teller(self._tell, model=launch.model, partial=partial, strict=ctx.strict and launch.asks)
        self._told: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._connection: ClientSideConnection | None = None
        self._capabilities: AgentCapabilities | None = None
        self._leading: asyncio.Task[None] | None = None
        self._exited: asyncio.Task[int] | None = None
        self._session_id = ""
        self._preface = launch.preface
        self._replaying = True
        self._stopping = False
        self._stop = asyncio.Event()  # the turn must not go on: over budget, or a call that nobody was asked about
        self._spent = 0.0
        self._turns = 0

    # ── Start and end ──

    async def events(self, start_timeout: float) -> AsyncIterator[EngineEvent]:
        """Everything that the run has to say."""
        self._leading = asyncio.create_task(self._lead(start_timeout))
        self._leading.add_done_callback(lambda _: self._told.put_nowait(None))
        while (event := await self._told.get()) is not None:
            yield event
            self._told.task_done()
        await self._leading

    async def close(self) -> None:
        """End the agent and whatever it left running."""
        if self._leading is not None:
            busy = not self._leading.done() or self._ctx.cancel_event.is_set()
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
            await self._process.close(patience=0.0 if busy else _SETTLE)
        if self._connection is not None:
            await self._connection.close()
        if self._exited is not None:
            self._exited.cancel()

    async def _lead(self, start_timeout: float) -> None:
        try:
            await self._begin(start_timeout)
            async for message in self._ctx.user_message_queue:
                await self._turn(message)
                if self._ctx.cancel_event.is_set() or self._over_budget:
                    return
        except _StoppedError:
            return

    async def _begin(self, limit: float) -> None:
        """Start the agent and its session. Raises `EngineUnavailableError` where it does not get ready in time."""
        await self._memory.recall()
        await self._process.start()
        self._exited = asyncio.create_task(self._process.ended())
        self._connection = connect(
            self._process.read, self._process.write, permit=self._permit, on_update=self._on_update
        )
        answer = await self._during(initialize(self._connection), "initialize", limit)
        self._capabilities = answer.agent_capabilities
        known = self._memory.session_id
        modes = await self._open_session(known, limit)
        await self._set_mode(modes, limit)
        self._replaying = False
        resumed = known is not None and known == self._session_id
        if not resumed and (story := self._memory.story):
            self._preface = "\n\n".join(part for part in (self._preface, story) if part)
        await self._memory.remember_session(self._session_id)
        await self._teller.init(self._session_id, self._launch.title, resumed=resumed)

    async def _open_session(self, known: str | None, limit: float) -> SessionModeState | None:
        """The agent's own session: the one that is remembered, where it still has it, else a new one."""
        from acp import RequestError

        assert self._connection is not None
        servers = server_blocks(self._launch.servers, urls=takes_urls(self._capabilities))
        meta = dict(self._launch.meta)
        if known is not None and self._capabilities is not None and self._capabilities.load_session:
            loading = self._connection.load_session(self._launch.cwd, known, mcp_servers=servers, **meta)
            try:
                loaded = await self._during(loading, "session/load", limit)
            except RequestError as error:
                _log.info("session_not_loaded", session=self._ctx.session_id, reason=told(error, self._launch.redacted))
            else:
                self._session_id = known
                if self._launch.preface:
                    self._preface = ""  # the conversation has it already
                return loaded.modes
        opening = self._connection.new_session(self._launch.cwd, mcp_servers=servers, **meta)
        opened = await self._during(opening, "session/new", limit)
        self._session_id = opened.session_id
        return opened.modes

    async def _set_mode(self, modes: SessionModeState | None, limit: float) -> None:
        wanted = self._launch.mode
        if not wanted or (modes is not None and modes.current_mode_id == wanted):
            return
        assert self._connection is not None
        offered = [mode.id for mode in modes.available_modes] if modes is not None else []
        if wanted not in offered:
            raise EngineUnavailableError(
                f"{self._launch.title} does not offer the mode {wanted!r}, only {', '.join(offered) or 'none'}",
                hint="Use another version of the agent (options['version']).",
            )
        await self._during(self._connection.set_session_mode(self._session_id, wanted), "session/set_mode", limit)

    async def _during(self, request: Awaitable[T], what: str, limit: float) -> T:
        """Wait, `limit` seconds, for an answer of an agent that gets ready, while it lives and the run is wanted."""
        from acp import RequestError

        assert self._exited is not None
        cancelled = asyncio.ensure_future(self._ctx.cancel_event.wait())
        try:
            return await answered(request, limit, cancelled, self._exited)
        except TimeoutError:
            error = EngineUnavailableError(
                f"{self._launch.title} did not answer {what} within {limit:g} s",
                hint="Check that it speaks the Agent Client Protocol when it is started as "
                f"{self._launch.shown}; options['start_timeout'] gives it longer.",
            )
            raise await self._explained(error) from None
        except ConnectionError:
            if cancelled.done():
                raise _StoppedError from None
            gone = f"{self._launch.title} ended before it answered {what}"
            raise await self._gone(gone, EngineUnavailableError) from None
        except RequestError as error:
            if what == "session/load":
                raise
            raise await self._explained(
                failure(f"{self._launch.title} refused {what}", error, self._launch.redacted)
            ) from error
        except ValueError as error:  # the SDK's, of an answer that has another shape
            strange = EngineError(f"{self._launch.title} answers {what} with what the protocol does not know")
            raise await self._explained(strange) from error
        finally:
            cancelled.cancel()

    # ── Turns ──

    async def _turn(self, message: UserInput) -> None:
        began = time.monotonic()
        if self._teller.breach is not None:  # after the last turn's end
            raise breach_error(self._teller.breach)
        if self._over_budget:
            await self._broke(began)
            return
        self._turns += 1
        self._stopping = False
        self._stop.clear()
        self._teller.begin_turn()
        try:
            blocks = prompt_blocks(message, self._preface, self._capabilities)
        except ValidationError as error:
            await self._result("error_during_execution", error.message, began, failed=True)
            return
        answer, problem = await self._prompt(blocks)
        if answer is not None:
            self._preface = ""
        await self._teller.end_turn()
        if self._teller.breach is not None:
            raise breach_error(self._teller.breach)
        await self._usage(answer)
        await self._memory.remember(text_of(message), self._teller.text)
        if self._over_budget:
            await self._broke(began)
            return
        if answer is None:
            await self._result("error_during_execution", problem, began, failed=True)
            return
        subtype = _SUBTYPES.get(answer.stop_reason, "error_during_execution")
        text = self._teller.text
        if answer.stop_reason == "refusal":
            text = text or "the agent refused to go on"
        await self._result(subtype, text, began, failed=subtype != "success", stop_reason=answer.stop_reason)

    async def _broke(self, began: float) -> None:
        await self._result("error_max_budget_usd", self._teller.text, began, failed=True, ends_turn=False)
        await self._tell(EngineEvent("session_ended", reason="budget_exceeded"))

    async def _prompt(self, blocks: list[Any]) -> tuple[PromptResponse | None, str]:
        """Have the agent answer. The answer; or None, and why there is none: it refused, or was cut off."""
        from acp import RequestError

        assert self._connection is not None
        assert self._exited is not None
        prompt = asyncio.ensure_future(self._connection.prompt(self._session_id, blocks))
        signals = [self._ctx.interrupt_event, self._ctx.cancel_event, self._stop]
        waits = [asyncio.ensure_future(signal.wait()) for signal in signals]
        try:
            await asyncio.wait({prompt, self._exited, *waits}, return_when=asyncio.FIRST_COMPLETED)
            while not prompt.done() and not self._exited.done():
                self._stopping = True
                final = self._ctx.cancel_event.is_set() or self._stop.is_set()
                with suppress(ConnectionError, TimeoutError):  # an agent that reads nothing is not waited for
                    await asyncio.wait_for(self._connection.cancel(self._session_id), _AGAIN)
                ends = waits[1:] if not final else []
                await asyncio.wait({prompt, self._exited, *ends}, timeout=_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                if final and not prompt.done():
                    return None, "the run was ended"
            if not prompt.done():
                await asyncio.wait({prompt}, timeout=_SETTLE)
            if not prompt.done():
                raise ConnectionError("it has ended, and somebody that it started has its output open")
            return await prompt, ""
        except RequestError as error:
            return None, told(error, self._launch.redacted)
        except ValueError:  # the SDK's, of an answer that has another shape
            return None, "the agent answers the prompt with what the protocol does not know"
        except (ConnectionError, asyncio.CancelledError):
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            raise await self._gone(f"{self._launch.title} ended in the middle of a turn", EngineError) from None
        finally:
            for each in (prompt, *waits):
                each.cancel()

    async def _usage(self, answer: PromptResponse | None) -> None:
        """What the turn used: tokens as the agent tells them; money as it tells it, else by the price table."""
        tokens = _tokens(answer)
        cost = self._teller.cost
        if cost is None and tokens and self._launch.model:
            priced = estimate(self._launch.model.replace("/", ":"), tokens)
            if priced is None and self._ctx.budget_max_usd is not None:
                raise UnknownPriceError(
                    f"there is a budget, but {self._launch.title} does not tell what {self._launch.model} costs",
                    hint="Leave the budget out, or use a model that the price table has.",
                )
            cost = None if priced is None else self._spent + priced
        self._spent = max(self._spent, cost or 0.0)
        if tokens or cost is not None:
            await self._tell(
                EngineEvent(
                    "usage_snapshot",
                    input_tokens=tokens.get("input_tokens"),
                    output_tokens=tokens.get("output_tokens"),
                    cache_creation_input_tokens=tokens.get("cache_creation_input_tokens"),
                    cache_read_input_tokens=tokens.get("cache_read_input_tokens"),
                    cost_usd=cost,
                    cost_semantic="cumulative",
                )
            )

    @property
    def _over_budget(self) -> bool:
        limit = self._ctx.budget_max_usd
        return limit is not None and max(self._spent, self._teller.cost or 0.0) > limit

    async def _result(
        self, subtype: str, text: str, began: float, *, failed: bool, ends_turn: bool = True, **more: Any
    ) -> None:
        payload: Json = {
            "type": "result",
            "subtype": subtype,
            "is_error": failed,
            "result": text,
            "session_id": self._session_id,
            "num_turns": self._turns,
            "duration_ms": round((time.monotonic() - began) * 1000),
            **({"total_cost_usd": self._spent} if self._spent else {}),
            **more,
        }
        await self._tell(EngineEvent("sdk_message", payload, ends_turn=ends_turn))

    # ── What the agent says and asks ──

    async def _tell(self, event: EngineEvent) -> None:
        self._told.put_nowait(event)
        if self._told.qsize() > _AHEAD:
            await self._told.join()

    async def _on_update(self, update: Json) -> None:
        if self._replaying:
            return  # a loaded session tells its past
        await self._teller.update(update)
        if self._teller.breach is not None or self._over_budget:
            self._stop.set()

    async def _permit(self, tool_call: ToolCallUpdate, options: list[PermissionOption]) -> RequestPermissionResponse:
        """Ask the permission chain. What the protocol cannot say, a changed input, is refused."""
        call = self._teller.calls.learn(tool_call.model_dump(mode="json", by_alias=True, exclude_none=True))
        await self._teller.asked(call)
        if self._withdrawn:
            return withdrawn()
        await self._told.join()  # whoever decides has read what came before
        asked = call.input
        request = PermissionRequest(call.call_id or new_id("call"), call.name, asked)
        decision = await self._ctx.on_permission_request(request)
        call.allowed = False
        if self._withdrawn:
            return withdrawn()
        allowed = decision.decision == "allow" or (decision.decision == "modify" and decision.input == asked)
        answer = choose(options, "allow_once") if allowed else None
        if answer is not None:
            call.allowed, call.refused = True, None
            return answer
        call.refused = decision.reason or "denied"
        if decision.decision == "modify":
            call.refused = "the call was to be changed, and this agent takes no changed input: denied"
        elif allowed:
            call.refused = "the agent offers no way to allow this call alone: denied"
        return refuse(options)

    @property
    def _withdrawn(self) -> bool:
        """Whether nothing more is to be done in this turn."""
        return self._stopping or self._ctx.cancel_event.is_set() or self._ctx.interrupt_event.is_set()

    # ── Failures ──

    async def _explained(self, error: EngineError) -> EngineError:
        """An error with what the agent said last on stderr, without secrets: it may have quoted some of them."""
        said = await self._process.last_words()
        error.message = self._launch.redacted(error.message) + (f". It said:\n{said}" if said else "")
        error.args = (error.message,)
        return error

    async def _gone(self, what: str, kind: type[EngineError]) -> EngineError:
        """The agent's process ended, or its output did."""
        if self._exited is not None:
            await asyncio.wait({self._exited}, timeout=_SETTLE)
        status = self._process.status() or "it closed its output"
        return await self._explained(kind(f"{what}: {status}", hint="Look at what it says on stderr."))


def _tokens(answer: PromptResponse | None) -> dict[str, int]:
    """The turn's tokens, by the names of `EngineEvent`; empty where the agent tells none."""
    if answer is None:
        return {}
    if (usage := answer.usage) is not None:
        read, written = usage.cached_read_tokens, usage.cached_write_tokens
        cached = {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
        known = {name: count for name, count in cached.items() if count is not None}
        return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, **known}
    quota: Any = (answer.field_meta or {}).get("quota")
    counted: Any = cast("Json", quota).get("token_count") if isinstance(quota, dict) else None
    if not isinstance(counted, dict):
        return {}
    names = ("input_tokens", "output_tokens")
    counts = {name: cast("Json", counted).get(name) for name in names}
    return {name: count for name, count in counts.items() if isinstance(count, int) and count >= 0}
