"""What an agent tells, as the messages that every reader of a run knows; and the questions about its calls."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, cast

from computeragent.engines.acp.calls import Call, Calls
from computeragent.errors import EngineError
from computeragent.protocol_types import EngineEvent

Json = dict[str, Any]
Tell = Callable[[EngineEvent], Awaitable[None]]

_SILENT = frozenset({"available_commands_update", "user_message_chunk", "config_option_update"})
"""Updates that are a client's furniture: long, and said again and again."""


class Teller:
    """Turns updates into events, which `tell` takes. With `strict` a call that nobody was asked about is a breach."""

    def __init__(self, tell: Tell, *, model: str, partial: bool, strict: bool) -> None:
        self._tell = tell
        self._model = model
        self._partial = partial
        self._strict = strict
        self.calls = Calls()
        self.text = ""
        self.cost: float | None = None
        self.breach: str | None = None
        self._kind = ""
        self._spoken = ""
        self._message_id = ""

    async def init(self, session_id: str, title: str, *, resumed: bool) -> None:
        """The run's first message."""
        await self._system("init", model=self._model, session_id=session_id, agent=title, resumed=resumed)

    async def update(self, update: Json) -> None:
        """One update of the agent's."""
        kind: Any = update.get("sessionUpdate")
        if not isinstance(kind, str):
            return
        if kind in {"agent_message_chunk", "agent_thought_chunk"}:
            await self._chunk("text" if kind == "agent_message_chunk" else "thinking", update)
        elif kind == "tool_call_update" and self.calls.late(update):
            return
        elif kind in {"tool_call", "tool_call_update"}:
            await self._call(self.calls.learn(update))
        elif kind == "usage_update":
            self._price(update.get("cost"))
        elif kind == "plan":
            await self._system("plan", entries=update.get("entries") or [])
        elif kind not in _SILENT:
            await self._system("acp", update=update)

    async def asked(self, call: Call) -> None:
        """A call is to be asked about: whoever decides has read it before."""
        call.asked = True
        await self._announce(call)

    async def end_turn(self) -> None:
        """The turn is over: what was begun is told; calls without an end have been cut off."""
        await self._flush()
        for call in self.calls.open():
            await self._result(call, call.refused or "the turn ended before the call did", failed=True)
        self.calls.forget()

    def begin_turn(self) -> None:
        """A message goes to the agent."""
        self.text = ""

    # ── Text ──

    async def _chunk(self, kind: str, update: Json) -> None:
        content: Any = update.get("content")
        text: Any = cast("Json", content).get("text") if isinstance(content, dict) else None
        message_id = str(update.get("messageId") or "")
        if kind != self._kind or (message_id and self._message_id and message_id != self._message_id):
            await self._flush()
        self._kind = kind
        self._message_id = message_id or self._message_id or str(uuid.uuid4())
        if not isinstance(text, str):
            await self._system("acp", update=update)
            return
        self._spoken += text
        if self._partial and text:
            delta = (
                {"type": "text_delta", "text": text} if kind == "text" else {"type": "thinking_delta", "thinking": text}
            )
            event = {"type": "content_block_delta", "index": 0, "delta": delta}
            await self._say({"type": "stream_event", "event": event, "message_id": self._message_id})

    async def _flush(self) -> None:
        spoken, self._spoken = self._spoken, ""
        if spoken:
            if self._kind == "text":
                self.text = spoken
            await self._assistant({"type": self._kind, self._kind: spoken}, self._message_id)
        self._message_id = ""

    # ── Calls ──

    async def _call(self, call: Call) -> None:
        if call.done:
            await self._announce(call)
            if self._strict and self.breach is None:
                if not call.asked:
                    self.breach = f"the agent ran {call.name} without asking"
                elif not (call.allowed or call.failed):
                    self.breach = f"the agent ran {call.name} without being allowed to"
            await self._result(call, call.refused or call.output, failed=call.failed or call.refused is not None)

    async def _announce(self, call: Call) -> None:
        if not call.announced:
            call.announced = True
            await self._flush()
            block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": call.input}
            await self._assistant(block, str(uuid.uuid4()))

    async def _result(self, call: Call, text: str, *, failed: bool) -> None:
        if call.finished:
            return
        call.finished = True
        block = {"type": "tool_result", "tool_use_id": call.call_id, "content": text, "is_error": failed}
        await self._say({"type": "user", "message": {"role": "user", "content": [block]}, "uuid": str(uuid.uuid4())})

    # ── Money ──

    def _price(self, cost: Any) -> None:
        if isinstance(cost, dict) and cast("Json", cost).get("currency") == "USD":
            amount: Any = cast("Json", cost).get("amount")
            if isinstance(amount, (int, float)) and amount >= 0:
                self.cost = float(amount)

    # ── Messages ──

    async def _assistant(self, block: Json, message_id: str) -> None:
        message = {"id": message_id, "role": "assistant", "model": self._model, "content": [block]}
        await self._say({"type": "assistant", "message": message, "uuid": str(uuid.uuid4())})

    async def _system(self, subtype: str, **fields: Any) -> None:
        await self._say({"type": "system", "subtype": subtype, **fields})

    async def _say(self, payload: Json) -> None:
        await self._tell(EngineEvent("sdk_message", {**payload, "parent_tool_use_id": None}, ends_turn=False))


def breach_error(what: str) -> EngineError:
    """An agent did what nobody was asked about, though it was set up to ask."""
    return EngineError(
        f"{what}, so the run was ended", hint="This release of the agent cannot be held by a policy; use another one."
    )
