"""One turn of a sandbox: what its stream tells, as events of the session's log here."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import msgspec

from computeragent.errors import EngineError, HarnessProtocolError, TurnFailedError
from computeragent.errors import told as error_told
from computeragent.eventlog import Channel
from computeragent.wire.encoding import to_json
from computeragent.wire.events import (
    AgentIdentity,
    Capabilities,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    EndReason,
    HarnessEvent,
    SdkMessage,
    decode_event,
    raw_payload,
)
from computeragent.wire.requests import UserInput

Failure = tuple[EndReason, str, str, str | None]
"""How a run ended that did not go well: reason, message, code, hint."""
_UNKNOWN = Capabilities(
    streaming_input=True, partial_messages=False, permission_callback=False, sessions=False, budget=False
)


class Host(Protocol):
    """The session that a turn belongs to."""

    id: str
    engine: str

    @property
    def channel(self) -> Channel:
        """Its log."""
        ...


class Turn:
    """See the module. `taken` is done with the turn's first event, or with what kept it from coming."""

    def __init__(self, index: int, message: UserInput, host: Host) -> None:
        self.index = index
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.accepted = False  # whether the server has the message
        self.last_id: int | None = None
        self.failure: Failure | None = None
        self._message = message
        self._host = host
        self._held: SdkMessage | None = None
        self._over: CaSessionEnded | None = None
        self._begun = False

    def said(self) -> Any:
        """The message as the wire has it."""
        return self._message.content if isinstance(self._message.content, str) else [self._message]

    def accept(self) -> None:
        """The server has the message."""
        self.accepted = True

    def settle(self, error: Exception | None = None) -> None:
        """The turn's first event is here, or will not come."""
        if self.taken.done():
            return
        if error is None:
            self.taken.set_result(None)
        else:
            self.taken.set_exception(error)
            self.taken.exception()  # it may be that nobody waits for it: then the run's end says so

    def take(self, told: dict[str, Any], *, resumed: bool = False) -> bool:
        """One event of the stream; whether it was the last. A `resumed` stream has none of its own to sum it up."""
        kind, number = told.get("kind"), told.pop("id", None)
        if isinstance(number, int):
            self.last_id = number
        if kind == "ca_done":
            self.end()
            return True
        if kind == "ca_error":
            self._failed(told)
            return True
        event = self._read(told)
        if isinstance(event, CaSessionStarted):
            if not self._host.channel.live:
                self._host.channel.append(event)
            return False
        if isinstance(event, SdkMessage) and not self._begun and "turnIndex" not in told and _is_system(event.payload):
            self._host.channel.append(msgspec.structs.replace(event, turn_index=None))
            return False  # what an engine says of itself when it starts
        self._begin(event)
        if isinstance(event, CaSessionEnded):
            self._over = event
        elif isinstance(event, SdkMessage):
            self._release()
            if event.ends_turn or _is_result(event.payload):
                self._held = event
            else:
                self._host.channel.append(event)
        elif not isinstance(event, CaTurnStarted):
            self._host.channel.append(event)
        is_last = resumed and (self._over is not None or (self._held is not None and self._held.ends_turn))
        if is_last:
            self.end()
        return is_last

    def end(self) -> None:
        """The turn is over, and the run goes on."""
        if self._over is not None and self._over.reason not in {"complete", "cancelled"} and self._held is None:
            over = self._over
            self.failure = (over.reason, over.error_message or "the run ended", over.error_code or "", over.error_hint)
            return
        self._begin(None)
        last = self._held or SdkMessage(
            session_id=self._host.id, raw=raw_payload({"type": "system", "subtype": "session_end"})
        )
        self._held = None
        self._host.channel.append(msgspec.structs.replace(last, ends_turn=True, turn_index=self.index))

    def _failed(self, told: dict[str, Any]) -> None:
        """The turn failed; the sandbox may live on."""
        over = self._over
        reason: EndReason = over.reason if over is not None and over.reason != "complete" else "error"
        code = told.get("code") or (over.error_code if over is not None else None) or TurnFailedError.code
        message = told.get("message") or (over.error_message if over is not None else None) or "the turn failed"
        hint = told.get("hint") if isinstance(told.get("hint"), str) else None
        self._release()
        self.failure = (reason, str(message), str(code), hint)
        self.settle(error_told(str(code), str(message), hint, default=EngineError))

    def _begin(self, event: HarnessEvent | None) -> None:
        """Write the start of the run and of the turn before the first thing that happens in it."""
        channel = self._host.channel
        if not channel.live:
            identity = AgentIdentity(name="agent", version="0.0.0")
            channel.append(
                CaSessionStarted(
                    session_id=self._host.id, engine=self._host.engine, identity=identity, capabilities=_UNKNOWN
                )
            )
        if not self._begun:
            self._begun = True
            started = event if isinstance(event, CaTurnStarted) else None
            channel.append(
                started
                or CaTurnStarted(
                    session_id=self._host.id,
                    turn_index=self.index,
                    message=self._message,
                    user_text_len=self._message.text_length(),
                )
            )
        self.settle()

    def _release(self) -> None:
        """A message that looked like the last one was not."""
        if self._held is not None:
            self._host.channel.append(msgspec.structs.replace(self._held, ends_turn=False))
            self._held = None

    def _read(self, told: dict[str, Any]) -> HarnessEvent:
        ours = told | {"sessionId": self._host.id}
        if told.get("kind") not in {"ca_session_started", "ca_session_ended"}:
            ours["turnIndex"] = self.index
        try:
            return decode_event(to_json(ours))
        except (msgspec.DecodeError, TypeError) as error:
            raise HarnessProtocolError(f"an event of the sandbox cannot be read: {error}") from error


def _is_system(payload: Any) -> bool:
    return isinstance(payload, dict) and cast("dict[str, Any]", payload).get("type") == "system"


def _is_result(payload: Any) -> bool:
    return isinstance(payload, dict) and cast("dict[str, Any]", payload).get("type") == "result"
