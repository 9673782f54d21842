"""The `claude-agent-sdk` engine: the real Claude Code CLI, one warm process per run, every tool call asked.

The stream is the CLI's own: each `sdk_message` payload is its stream-json object, taken before the SDK turns it
into a Python message. Tool calls are gated by a PreToolUse hook, the only place that sees every one of them
(sub-agents, `allowed_tools` and `bypassPermissions` included); it denies or stays silent, never allows.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeragent.engines.claude_gate import Gate, closed
from computeragent.engines.claude_options import build, check_options, confine
from computeragent.engines.claude_process import ClaudeProcess
from computeragent.errors import EngineError, EngineUnavailableError
from computeragent.logs import Logger
from computeragent.protocol_types import EngineContext, EngineEvent
from computeragent.stores.binding import engine_session_id
from computeragent.wire.events import Capabilities
from computeragent.wire.requests import UserInput

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

Json = dict[str, Any]

# Modes in which the CLI asks nobody, so that a callback would never be called; the hook gates them all the same.
_UNASKED_MODES = frozenset({"bypassPermissions", "dontAsk"})
_REFUSALS = 3
_log = Logger("engine.claude")
_SETTLE = 1.0


class ClaudeAgentEngine:
    """Claude Code through `claude-agent-sdk`; implements `EngineDriver`.

    Options are the fields of `ClaudeAgentOptions`; the harness sets those that concern sessions, permissions and
    the environment. Default model: `DEFAULT_MODEL`.
    """

    name = "claude-agent-sdk"
    capabilities = Capabilities(
        streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True
    )

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        """See `EngineDriver.start_session`."""
        run = _Run(ctx)
        try:
            await run.connect()
            async for event in run.events():
                yield event
        finally:
            await run.close()


class _Run:
    """One run: the client, its process, and the tasks that feed and interrupt it."""

    def __init__(self, ctx: EngineContext) -> None:
        self._ctx = ctx
        self._options = check_options(ctx.options, library_mode=ctx.library_mode)
        self._process = ClaudeProcess(ctx, self._options.pop("cli_path", None))
        self._gate = Gate(ctx.on_permission_request, strict=ctx.strict)
        self._client: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._awaited: set[str] = set()
        self._sent = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending = False

    # ── Start and end ──

    async def connect(self) -> None:
        """Start the CLI. Raises `EngineError` with what the CLI complained about."""
        from claude_agent_sdk import ClaudeSDKClient

        self._client = ClaudeSDKClient(await self._sdk_options())
        connecting = asyncio.ensure_future(self._client.connect())
        cancelled = asyncio.ensure_future(self._ctx.cancel_event.wait())
        try:
            await asyncio.wait({connecting, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                self._process.kill()
            await connecting
        except Exception as error:
            if not self._ctx.cancel_event.is_set():
                raise self._failure("the Claude CLI could not start", error) from error
        finally:
            cancelled.cancel()
            connecting.cancel()
        self._tasks = [asyncio.create_task(task) for task in (self._feed(), self._interrupt(), self._cancel())]

    async def close(self) -> None:
        """End the CLI and whatever its tools left running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._idle.is_set():
            await asyncio.to_thread(self._process.kill)  # a busy CLI would take its time to hang up
        await self._disconnect()
        await asyncio.to_thread(self._process.kill)

    async def _disconnect(self) -> None:
        self._ending = True
        if self._client is not None:
            with suppress(Exception):
                await self._client.disconnect()

    async def _sdk_options(self) -> ClaudeAgentOptions:
        chosen = confine(dict(self._options), trusted=self._ctx.trusted)
        mode = chosen.get("permission_mode")
        if mode == "bypassPermissions" and (self._ctx.strict or _is_unsandboxed_root(self._process.stated)):
            # The CLI refuses this mode to root. Asked mode with the gate's own answers is the same thing.
            mode = chosen["permission_mode"] = "default"
            if self._ctx.strict:
                _log.warn("bypass_is_gated", hint="permission_mode bypassPermissions bypasses no policy")
        if mode not in _UNASKED_MODES:
            # The gate has decided already; a list of tools that pass unasked would only hide calls from it.
            chosen.pop("allowed_tools", None)
            chosen["can_use_tool"] = self._gate.answer
        chosen |= {
            "hooks": self._gate.hooks(chosen.get("hooks"), approval_timeout=self._ctx.approval_timeout),
            "cwd": str(self._ctx.workspace_path),
            "env": self._process.env,
            "cli_path": str(self._process.launcher),
            "stderr": self._process.note_stderr,
        }
        if self._ctx.strict:
            chosen |= closed(chosen.get("settings"), self._process.env, self._ctx.workspace_path)
        if self._ctx.budget_max_usd is not None:
            chosen["max_budget_usd"] = self._ctx.budget_max_usd
        chosen |= await self._memory()
        return build(chosen)

    async def _memory(self) -> Json:
        """Resume where the store has entries; otherwise pin the CLI's session id, so that the next run finds it."""
        engine_id = engine_session_id(self._ctx.session_id)
        store = self._ctx.session_store
        if store is None:
            return {"session_id": str(uuid.uuid4())}
        key: Any = {"project_key": self._ctx.project_key, "session_id": engine_id}
        if await store.load(key):
            return {"session_store": store, "resume": engine_id}
        if _transcript_exists(self._process.stated, engine_id):
            # The CLI refuses an id that its own folder knows, and the store says that nothing is remembered.
            engine_id = str(uuid.uuid4())
        return {"session_store": store, "session_id": engine_id}

    # ── The stream ──

    async def events(self) -> AsyncIterator[EngineEvent]:
        """The CLI's messages as events, until it is done."""
        try:
            async for payload in self._messages():
                _check_refused(payload)
                if payload.get("type") != "result":
                    yield EngineEvent("sdk_message", payload, ends_turn=False)
                    continue
                yield _usage(payload)
                if payload.get("subtype") == "error_max_budget_usd":
                    yield EngineEvent("sdk_message", payload, ends_turn=False)
                    yield EngineEvent("session_ended", reason="budget_exceeded")
                    return
                yield EngineEvent("sdk_message", payload, ends_turn=self._answers(payload))
        except EngineUnavailableError:
            raise
        except Exception as error:
            if not self._ending:
                raise self._failure("the Claude CLI ended unexpectedly", error) from error
        if not self._ending and not self._ctx.cancel_event.is_set():
            raise self._failure("the Claude CLI ended unexpectedly", None)

    async def _messages(self) -> AsyncIterator[Json]:
        query = getattr(self._client, "_query", None)
        if query is None:
            return
        async for payload in query.receive_messages():
            yield payload

    def _answers(self, payload: Json) -> bool:
        """Whether a result answers a message of ours; the CLI also has turns of its own."""
        answered: list[str] | None = payload.get("user_message_uuids")
        if answered is not None and self._awaited and not self._awaited.intersection(answered):
            return False
        self._awaited.clear()
        self._idle.set()
        return True

    def _failure(self, what: str, error: Exception | None) -> EngineError:
        said = self._process.complaint()
        signal_number = -(getattr(error, "exit_code", None) or 0)
        if not said and signal_number > 0:
            said = f"it was killed by signal {signal_number}"
        elif not said and error is not None:
            said = self._process.redacted((str(error).splitlines() or [type(error).__name__])[0])
            if said.startswith("Failed to write to process stdin"):  # it was gone before the SDK knew
                said = "its process ended"
        return EngineError(f"{what}: {said}" if said else what, hint="Run with debug=True to see its whole output.")

    # ── The tasks ──

    async def _feed(self) -> None:
        """Hand each turn's message to the CLI; at the end of input, let the last turn finish and hang up."""
        async for message in self._ctx.user_message_queue:
            self._sent.clear()
            self._idle.clear()
            await self._client.query(_one(self._stamp(message)))
            self._sent.set()
        await self._idle.wait()
        await self._disconnect()

    def _stamp(self, message: UserInput) -> Json:
        marker = str(uuid.uuid4())
        self._awaited.add(marker)
        return {
            "type": "user",
            "message": {"role": "user", "content": message.content},
            "parent_tool_use_id": None,
            "uuid": marker,
        }

    async def _interrupt(self) -> None:
        """End the turn when told to; again while the CLI has not begun it yet."""
        while True:
            await self._sent.wait()
            await self._ctx.interrupt_event.wait()
            if not self._idle.is_set():
                with suppress(Exception):
                    await self._client.interrupt()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLE):
                        await self._idle.wait()
            if self._idle.is_set():
                self._sent.clear()

    async def _cancel(self) -> None:
        """End the run when told to: an interrupted CLI hangs up at once, a busy one would take seconds."""
        await self._ctx.cancel_event.wait()
        self._ending = True
        if not self._idle.is_set():
            with suppress(Exception):
                async with asyncio.timeout(_SETTLE):
                    await self._client.interrupt()
                    await self._idle.wait()
        if not self._idle.is_set():
            await asyncio.to_thread(self._process.kill)
        await self._disconnect()


def _check_refused(payload: Json) -> None:
    """The CLI tries refused credentials again for three minutes. Raises `EngineUnavailableError` much sooner."""
    tried = payload.get("attempt")
    if payload.get("subtype") == "api_retry" and payload.get("error_status") == 401 and tried == _REFUSALS:
        raise EngineUnavailableError(
            "the model's provider refuses the credentials (HTTP 401)",
            hint="Check ANTHROPIC_API_KEY (or the login), and that it belongs to the base URL.",
        )


async def _one(message: Json) -> AsyncIterator[Json]:
    yield message


def _usage(payload: Json) -> EngineEvent:
    """The turn's tokens and the session's cost so far, from the result message."""
    usage: Json = payload.get("usage") or {}
    return EngineEvent(
        "usage_snapshot",
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cache_creation_input_tokens=usage.get("cache_creation_input_tokens"),
        cache_read_input_tokens=usage.get("cache_read_input_tokens"),
        cost_usd=payload.get("total_cost_usd"),
        cost_semantic="cumulative",
    )


def _is_unsandboxed_root(stated: dict[str, str]) -> bool:
    return os.geteuid() == 0 and stated.get("IS_SANDBOX") != "1"  # the only value that the CLI accepts


def _transcript_exists(stated: dict[str, str], engine_id: str) -> bool:
    config = stated.get("CLAUDE_CONFIG_DIR") or str(Path(stated.get("HOME", "~")).expanduser() / ".claude")
    return any(Path(config, "projects").glob(f"*/{engine_id}.jsonl"))
