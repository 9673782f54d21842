"""A response while it runs and after: one turn of a session, followed to its end by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import PurePath
from typing import Literal, cast

from msgspec import Raw
from msgspec.structs import replace

from computeragent.errors import ComputerAgentError, UnknownCallError
from computeragent.harness.session import LocalSession
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.protocol_types import SessionRequest
from computeragent.responses.bodies import Approve, CreateResponse
from computeragent.responses.conversations import Conversation
from computeragent.responses.items import Json, Projection, now, output_text, without_image
from computeragent.wire.encoding import to_json
from computeragent.wire.events import CaPermissionRequest, CaSessionEnded, Recorded, SdkMessage, UnknownEvent
from computeragent.wire.requests import PermissionDecision, UserInput

Status = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
_IMAGES = "computer_call_output.output.image_url"
_ENDS: dict[Status, str] = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    "cancelled": "response.cancelled",
}
_INCOMPLETE = {
    "error_max_turns": "max_steps",
    "error_deadline": "deadline",
    "error_max_budget_usd": "budget",
    "error_safety_check": "safety_check",
}
_NOBODY = PermissionDecision(decision="deny", reason="nobody can be asked here")
_log = Logger("responses")


class Run:
    """One response. `told` is its stream so far; `done` is set when nothing more will be added."""

    def __init__(
        self,
        request: CreateResponse,
        *,
        owner: str,
        conversation: Conversation,
        previous: str | None = None,
        can_ask: bool = False,
    ) -> None:
        self.id = new_id("response")
        self.owner = owner
        self.conversation = conversation
        self.previous = previous
        self.request = replace(request, input="", env={}, agent_kwargs={}, computer_kwargs={})
        """What was asked, without what is large or secret."""
        self.status: Status = "queued"
        self.created_at = now()
        self.done = asyncio.Event()
        self.told: list[Recorded] = []
        self.size = len(to_json(request.input))
        """Bytes that the response holds, and its conversation of it."""
        self.trajectory: str | None = None
        self._error: Json | None = None
        self._incomplete: str | None = None
        self._projection = Projection(
            self._tell,
            self.id.rpartition("_")[2][-12:],
            results=request.mode != "first",
            images=request.include is None or _IMAGES in request.include,
        )
        self._session: LocalSession | None = None
        self._changed: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self._can_ask = can_ask

    # ── Running ──

    def start(self, opening: SessionRequest, message: UserInput) -> None:
        """Begin; returns at once."""
        self._tell("response.created", {"response": self.as_dict(images=False)})
        self._task = asyncio.create_task(self._work(opening, message))

    async def _work(self, opening: SessionRequest, message: UserInput) -> None:
        try:
            await self._follow(opening, message)
        except asyncio.CancelledError:
            self._end("cancelled")
            raise
        except ComputerAgentError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - told as what it is, without its insides
            _log.error("response_failed", response=self.id, error=repr(error))
            self._fail(ComputerAgentError("internal error", hint="See the server's log."))
        finally:
            self._session = None
            try:
                if self.request.store and self.status in {"completed", "incomplete"}:
                    await self.conversation.rest()
                else:
                    await self.conversation.close()
            finally:
                self._finish()

    async def _follow(self, opening: SessionRequest, message: UserInput) -> None:
        session = await self.conversation.session(opening)
        self._session = session
        if self._cancelled:
            self._end("cancelled")
            return
        self._projection.cost_before = session.cost_so_far
        with contextlib.closing(session.events(after=session.newest)) as stream:
            self.status = "in_progress"
            self._tell("response.in_progress", {"response": self.as_dict(images=False)})
            turn = await session.send(message)
            result: Json | None = None
            async for recorded in stream:
                event = recorded.event
                if isinstance(event, CaSessionEnded):
                    self._ended(result, event)
                    return
                if getattr(event, "turn_index", None) != turn:
                    continue
                if isinstance(event, CaPermissionRequest) and not self._can_ask:
                    with contextlib.suppress(UnknownCallError):  # the turn has ended meanwhile
                        await session.decide(event.call_id, _NOBODY, by="responses")
                    continue
                result = self._projection.take(event) or result
                if isinstance(event, SdkMessage) and event.ends_turn:
                    self._ended(result)
                    return

    def _ended(self, result: Json | None, event: CaSessionEnded | None = None) -> None:
        """The turn is over, with its result, or the whole run with its last event: what that means."""
        self._projection.close()
        self.trajectory = None if result is None else _name_of(result.get("trajectory"))
        subtype = "" if result is None else str(result.get("subtype", ""))
        reason = "complete" if event is None else event.reason
        if self._cancelled or reason == "cancelled":
            self._end("cancelled")
        elif reason == "budget_exceeded" or subtype in _INCOMPLETE:
            self._incomplete = _INCOMPLETE.get(subtype, "budget")
            one_step = self._incomplete == "max_steps" and self.request.mode != "run"
            if one_step:
                self._incomplete = None
            self._end("completed" if one_step else "incomplete")
        elif reason == "error" or result is None or result.get("is_error"):
            self._error = _error_of(result, event)
            self._end("failed")
        else:
            self._end("completed")

    def _fail(self, error: ComputerAgentError) -> None:
        self._error = {"code": error.code, "message": error.message}
        if error.hint:
            self._error["hint"] = error.hint
        self._end("cancelled" if self._cancelled else "failed")

    def _end(self, status: Status) -> None:
        if self.status not in _ENDS:
            self._projection.close()
            self.status = status

    def _finish(self) -> None:
        """Tell the end, once the session is closed: then nothing is left running."""
        if self.done.is_set():
            return
        self._end("failed")
        self.conversation.end(self.id, failed=self.status in {"failed", "cancelled"})
        try:
            self._tell(_ENDS[self.status], {"response": self.as_dict()})
        finally:
            self.done.set()
            self._wake()

    async def cancel(self) -> None:
        """Stop it, and wait until nothing of it runs any more."""
        if self.done.is_set():
            return
        self._cancelled = True
        if self._session is not None:
            await self._session.cancel()
        await self.done.wait()

    async def close(self) -> None:
        """Stop it, by force if need be."""
        try:
            await asyncio.wait_for(asyncio.shield(self.cancel()), 15)
        except TimeoutError:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})

    async def approve(self, call_id: str, answer: Approve, by: str) -> None:
        """Answer a call that waits. Raises `UnknownCallError`."""
        if self._session is None:
            raise UnknownCallError(f"nothing of {self.id} waits for an answer", hint="It has ended, or not begun.")
        decision = PermissionDecision(decision=answer.decision, reason=answer.reason)
        await self._session.decide(call_id, decision, by=by)

    # ── Being read ──

    def as_dict(self, *, images: bool = True) -> Json:
        """The response object; without pictures where they are not wanted."""
        request = self.request
        output = self._projection.output
        told: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": self.status,
            "model": request.model,
            "output": output if images else [without_image(item) for item in output],
            "output_text": output_text(output),
            "usage": self._projection.usage,
            "error": self._error,
            "incomplete_details": None if self._incomplete is None else {"reason": self._incomplete},
            "instructions": request.instructions,
            "metadata": request.metadata,
            "previous_response_id": self.previous,
            "background": request.background,
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": request.tools,
            "session_id": self.conversation.session_id,
        }
        if self._projection.waiting:
            told["pending_approvals"] = list(self._projection.waiting.values())
        if self.trajectory:
            told["trajectory"] = self.trajectory
        return told

    def stream(self, after: int = -1) -> RunStream:
        """A reader of what is told, from after an event."""
        return RunStream(self, after)

    def _tell(self, kind: str, fields: Json) -> None:
        number = len(self.told)
        data = to_json({"type": kind, "sequence_number": number, **fields})
        event = UnknownEvent(kind=kind, session_id=self.conversation.session_id, raw=Raw(data))
        self.told.append(Recorded(id=number, at=time.time(), event=event, data=data))
        self.size += len(data)
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    async def changed(self) -> None:
        """Wait until more is told."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)


class RunStream:
    """Reads what a response tells; satisfies `server.stream.Pages`."""

    def __init__(self, run: Run, after: int) -> None:
        self._run = run
        self._closed = False
        self.position = after

    async def page(self) -> list[Recorded]:
        """All that is there now, waiting for at least one; empty at the end."""
        while not self._closed:
            if found := self._run.told[self.position + 1 :]:
                self.position = found[-1].id
                return found
            if self._run.done.is_set():
                break
            await self._run.changed()
        return []

    def close(self) -> None:
        """Read no further."""
        self._closed = True


def _error_of(result: Json | None, event: CaSessionEnded | None) -> Json:
    """Why a turn failed: as the engine's result says, else as the run's end does."""
    told: object = None if result is None else result.get("error")
    if isinstance(told, dict):
        return {name: value for name, value in cast("Json", told).items() if name in {"code", "message", "hint"}}
    message = (None if event is None else event.error_message) or (None if result is None else result.get("result"))
    code = (None if event is None else event.error_code) or "ENGINE_ERROR"
    hint = None if event is None else event.error_hint
    error = {"code": code, "message": str(message or "the agent ended without a result")}
    return {**error, "hint": hint} if hint else error


def _name_of(path: object) -> str | None:
    """The name of a trajectory's folder; where the server keeps it is its own business."""
    return PurePath(path).name if isinstance(path, str) else None
