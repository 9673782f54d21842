"""The scripted engine: a deterministic agent for tests, demos and docs. No model, no process, no network.

A script is a list of turns, each a list of steps, given as ``options={"script": …}`` in Python or as the path
of a YAML file with a top-level ``turns``. The turn with the number of the user's message is played; past the
end the engine echoes. Turn numbers go on across runs where a session store remembers the earlier ones.

Steps, one key each (`input` and `result` go with `tool`)::

    - text: "You said: {message}"          # an assistant message; {message}, {turn} and {user} are filled in
    - tool: Write                          # a tool call, asked like any other; Write and Read really act
      input: {file_path: notes.txt, content: hello}
      result: ok                           # what any other tool answers
    - usage: {input_tokens: 3, cost_usd: 0.01}
    - delay: 0.2                           # seconds
    - raise: "the engine broke"            # the run ends with an error
    - end: budget_exceeded                 # the run ends with this reason
    - hang: true                           # deaf to interrupts, cancellation and its task's first cancel
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from computeragent.errors import ComputerAgentError, ScriptError
from computeragent.ids import new_id
from computeragent.jail import Jail
from computeragent.protocol_types import EngineContext, EngineEvent, PermissionRequest
from computeragent.wire.events import Capabilities, CostSemantic, EndReason
from computeragent.wire.requests import PermissionDecision, UserInput


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """What a `usage` step reports."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cost_usd: float | None = None
    cost_semantic: CostSemantic | None = None


class Step(Struct, frozen=True, forbid_unknown_fields=True, rename={"raise_": "raise"}):
    """One step of a turn; see the module's docstring."""

    text: str | None = None
    tool: str | None = None
    input: dict[str, Any] | None = None
    result: Any = None
    usage: Usage | None = None
    delay: float | None = None
    raise_: str | None = None
    end: EndReason | None = None
    hang: bool = False


Script = Sequence[Sequence[Step]]


def parse_script(source: Any) -> Script:
    """Read a script: None, a list of turns, a mapping with ``turns``, or the path of a YAML file of that shape.

    Raises `ScriptError`, naming the turn and step that is wrong.
    """
    name = "script"
    if isinstance(source, (str, Path)):
        import yaml

        name = Path(source).name
        try:
            source = yaml.safe_load(Path(source).read_text("utf-8"))
        except OSError as error:
            raise ScriptError(f"script {name} cannot be read: {error.strerror}", hint="Check the path.") from error
        except yaml.YAMLError as error:
            raise ScriptError(f"script {name} is not valid YAML: {error}", hint="Mend the file.") from error
    if isinstance(source, dict):
        if "turns" not in source:
            raise ScriptError(f"{name} has no turns", hint="A script is {'turns': […]}, or the list of turns itself.")
        source = cast("dict[str, Any]", source)["turns"]
    try:
        return msgspec.convert(source or [], list[list[Step]])
    except msgspec.ValidationError as error:
        raise ScriptError(
            f"{name}: {error}", hint="A script is a list of turns; a turn is a list of steps, such as {'text': 'Hi'}."
        ) from error


class ScriptedEngine:
    """Plays a script; implements `EngineDriver`. `script` is the default for sessions that give none."""

    name = "scripted"
    capabilities = Capabilities(
        streaming_input=True, partial_messages=False, permission_callback=True, sessions=True, budget=True
    )

    def __init__(self, script: Any = None) -> None:
        self._script = script

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        """See `EngineDriver.start_session`."""
        run = _Run(ctx, parse_script(ctx.options.get("script", self._script)))
        async for event in run.play():
            yield event


class _TurnInterruptedError(Exception):
    """The current turn was told to end."""


class _Run:
    def __init__(self, ctx: EngineContext, script: Script) -> None:
        self._ctx = ctx
        self._script = script
        self._history: list[str] = []
        self._cost = 0.0
        self._jail = Jail(ctx.workspace_path)

    async def play(self) -> AsyncIterator[EngineEvent]:
        await self._recall()
        yield _message({"type": "system", "subtype": "init", "model": self._ctx.options.get("model") or "scripted"})
        async for message in self._ctx.user_message_queue:
            text = _text(message)
            turn = len(self._history)
            self._history.append(text)
            await self._remember(text)
            steps = self._script[turn] if turn < len(self._script) else [Step(text="You said: {message}")]
            said = ""
            try:
                for step in steps:
                    async for event in self._step(step, text, turn):
                        if event.kind == "session_ended":
                            yield event
                            return
                        yield event
                    said = self._fill(step.text, text, turn) if step.text is not None else said
                    if self._over_budget():
                        yield _result("error_max_budget_usd", said, is_error=True, ends_turn=False)
                        yield EngineEvent("session_ended", reason="budget_exceeded")
                        return
                yield _result("success", said)
            except _TurnInterruptedError:
                yield _result("error_during_execution", said, is_error=True)
            if self._ctx.cancel_event.is_set():
                return

    async def _step(self, step: Step, message: str, turn: int) -> AsyncIterator[EngineEvent]:
        if self._ctx.cancel_event.is_set() or self._ctx.interrupt_event.is_set():
            raise _TurnInterruptedError
        if step.text is not None:
            yield _assistant({"type": "text", "text": self._fill(step.text, message, turn)})
        if step.tool is not None:
            async for event in self._call(step.tool, step.input or {}, step.result):
                yield event
        if step.usage is not None:
            cost = step.usage.cost_usd or 0.0
            self._cost = self._cost + cost if step.usage.cost_semantic == "delta" else max(self._cost, cost)
            yield EngineEvent("usage_snapshot", **msgspec.structs.asdict(step.usage))
        if step.delay is not None:
            await self._sleep(step.delay)
        if step.hang:
            await _hang()
        if step.raise_ is not None:
            raise RuntimeError(step.raise_)
        if step.end is not None:
            yield EngineEvent("session_ended", reason=step.end)

    async def _call(self, tool: str, tool_input: dict[str, Any], result: Any) -> AsyncIterator[EngineEvent]:
        call_id = new_id("call")
        yield _assistant({"type": "tool_use", "id": call_id, "name": tool, "input": tool_input})
        decision = await self._ctx.on_permission_request(PermissionRequest(call_id, tool, tool_input))
        if decision.decision == "deny":
            content, failed = decision.reason or "denied", True
        else:
            content, failed = self._act(tool, _effective(decision, tool_input), result)
        block = {"type": "tool_result", "tool_use_id": call_id, "content": content, "is_error": failed}
        yield _message({"type": "user", "message": {"role": "user", "content": [block]}})

    def _act(self, tool: str, tool_input: dict[str, Any], result: Any) -> tuple[Any, bool]:
        path = str(tool_input.get("file_path", ""))
        try:
            if tool == "Write":
                size = self._jail.write_bytes(path, str(tool_input.get("content", "")).encode())
                return f"wrote {size} bytes to {path}", False
            if tool == "Read":
                return self._jail.read_bytes(path).decode("utf-8", "replace"), False
        except ComputerAgentError as error:
            return error.message, True
        return ("ok" if result is None else result), False

    async def _sleep(self, seconds: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._ctx.cancel_event, self._ctx.interrupt_event)]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if done:
            raise _TurnInterruptedError

    def _fill(self, text: str, message: str, turn: int) -> str:
        first = self._history[0] if self._history else ""
        return text.replace("{message}", message).replace("{turn}", str(turn)).replace("{user}", first)

    def _over_budget(self) -> bool:
        limit = self._ctx.budget_max_usd
        return limit is not None and self._cost > limit

    async def _recall(self) -> None:
        store = self._ctx.session_store
        if store is not None:
            entries = await store.load({"project_key": self._ctx.project_key, "session_id": self._ctx.session_id})
            said = [cast("dict[str, Any]", entry) for entry in entries or []]
            self._history = [str(entry.get("text", "")) for entry in said if entry.get("type") == "ca_user"]

    async def _remember(self, text: str) -> None:
        store = self._ctx.session_store
        if store is not None:
            entry: Any = {"type": "ca_user", "uuid": str(uuid.uuid4()), "text": text}
            key: Any = {"project_key": self._ctx.project_key, "session_id": self._ctx.session_id}
            await store.append(key, [entry])


async def _hang() -> None:
    """An engine at its worst: deaf to events, and to the first cancellation of its task."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


def _effective(decision: PermissionDecision, original: dict[str, Any]) -> dict[str, Any]:
    return original if decision.input is None else decision.input


def _text(message: UserInput) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(block.get("text", "")) for block in message.content if block.get("type") == "text")


def _message(payload: dict[str, Any]) -> EngineEvent:
    return EngineEvent("sdk_message", payload)


def _assistant(block: dict[str, Any]) -> EngineEvent:
    return _message({"type": "assistant", "message": {"role": "assistant", "content": [block]}})


def _result(subtype: str, text: str, *, is_error: bool = False, ends_turn: bool = True) -> EngineEvent:
    payload = {"type": "result", "subtype": subtype, "result": text, "is_error": is_error}
    return EngineEvent("sdk_message", payload, ends_turn=ends_turn)
