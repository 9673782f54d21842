"""One sandbox: a workspace and a session that stay warm between turns, for as long as it may live."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from computeragent.errors import ComputerAgentError, EventsGoneError
from computeragent.harness.session import LocalSession
from computeragent.harness.workspace import LocalWorkspace
from computeragent.identity.sources import fetch
from computeragent.logs import Logger
from computeragent.protocol_types import Workspace
from computeragent.server.sandboxes.errors import AttachmentError, BusyError, GoneError, RestoringError
from computeragent.server.sandboxes.orders import Order
from computeragent.server.sandboxes.relay import Relay, failed, failed_run
from computeragent.server.sandboxes.shapes import AutoSave, SandboxOpened, SandboxPhase, SandboxState, Usage
from computeragent.server.stream import Pages
from computeragent.server.times import iso, now
from computeragent.wire.events import CaSessionEnded, CaUsageSnapshot, Recorded, SdkMessage
from computeragent.wire.requests import Attachment, UserInput
from computeragent.wire.usage import UsageRollup

_log = Logger("sandboxes")


class Turn:
    """One chat. It goes on to its end whether or not anybody listens."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.began = now()
        self.usage = UsageRollup()
        self.session: LocalSession | None = None
        self.after: int | None = None
        self.number: int | None = None
        self.failure: ComputerAgentError | None = None
        self.ended: CaSessionEnded | None = None
        self.attached = asyncio.Event()
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    def ends_with(self, recorded: Recorded) -> bool:
        """Whether an event is this turn's last."""
        event = recorded.event
        return isinstance(event, CaSessionEnded) or (
            isinstance(event, SdkMessage) and event.ends_turn and event.turn_index == self.number
        )

    def read(self) -> Pages:
        """The events from this turn's beginning on."""
        assert self.session is not None
        try:
            return self.session.events(self.after)
        except EventsGoneError as gone:  # what lay between two turns was more than is kept
            return self.session.events(gone.earliest - 1)


class Sandbox:
    """See the module. Its engine starts with the first chat; its workspace when something first needs it."""

    def __init__(
        self, sandbox_id: str, session_id: str, order: Order, *, ttl: float, idle_ttl: float, auto_save: AutoSave | None
    ) -> None:
        self.id = sandbox_id
        self.session_id = session_id
        self.order = order
        self.auto_save = auto_save
        self.ttl, self.idle_ttl = ttl, idle_ttl
        self.created = self.last_activity = now()
        self.turn: Turn | None = None
        self.turns = 0
        self.used = Usage()
        self.ended: SandboxPhase | None = None
        self.restoring = False
        self.snapshotting = False
        self.touched = False  # a chat or heartbeat has come: the boot deadline is met
        self.gone = asyncio.Event()
        self.session: LocalSession | None = None
        self._harness = order.tenant.harness(order.runtime)
        self.at_work = asyncio.Lock()  # held while its files are packed or replaced; its end waits for that
        self._preparing: asyncio.Task[Path] | None = None
        self._closed = False
        self._read_to: int | None = None
        self._following: set[asyncio.Task[None]] = set()

    # ── What it is ──

    @property
    def phase(self) -> SandboxPhase:
        """Its state."""
        if self.ended is not None:
            return self.ended
        if self.restoring:
            return "restoring"
        if self.turn is not None:
            return "busy"
        return "ready" if self.session is not None else "booting"

    @property
    def expires(self) -> float:
        """When its life ends, in epoch seconds."""
        return self.created + self.ttl / 1000

    @property
    def idle_expires(self) -> float:
        """When it ends if nobody uses it."""
        return min(self.last_activity + self.idle_ttl / 1000, self.expires)

    @property
    def is_live(self) -> bool:
        """Whether it can still be chatted with."""
        return self.ended is None and now() < self.expires

    @property
    def pending_calls(self) -> list[str]:
        """The tool calls that wait for an answer."""
        return self.session.pending_calls if self.session is not None else []

    def opened(self, **more: Any) -> SandboxOpened:
        """What its creator is told."""
        return SandboxOpened(
            sandbox_id=self.id,
            session_id=self.session_id,
            state=self.phase,
            created_at=iso(self.created),
            expires_at=iso(self.expires),
            idle_expires_at=iso(self.idle_expires),
            idle_ttl_ms=self.idle_ttl,
            ttl_ms=self.ttl,
            **more,
        )

    def state(self) -> SandboxState:
        """What it is now."""
        return SandboxState(
            sandbox_id=self.id,
            session_id=self.session_id,
            state=self.phase,
            created_at=iso(self.created),
            last_activity_at=iso(self.last_activity),
            expires_at=iso(self.expires),
            idle_expires_at=iso(self.idle_expires),
            turn_count=self.turns,
            busy=self.turn is not None,
            usage=self.used,
            pending_calls=self.pending_calls,
            config=self.order.config,
        )

    def touch(self) -> None:
        """It was used just now."""
        self.last_activity = now()
        self.touched = True

    def renew(self, ttl: float, idle_ttl: float) -> None:
        """A new life from now on, in milliseconds."""
        self.ttl = (now() - self.created) * 1000 + ttl
        self.idle_ttl = idle_ttl
        self.touch()

    def require_idle(self) -> None:
        """Raise unless it is free for a turn, a snapshot or a restore."""
        if not self.is_live:
            raise self.gone_error()
        if self.restoring:
            raise RestoringError(f"sandbox {self.id} is being restored", hint="Try again in a moment.")
        if self.turn is not None or self.snapshotting:
            details = {"currentTurnStartedAt": iso(self.turn.began)} if self.turn is not None else {}
            raise BusyError(
                f"sandbox {self.id} is in the middle of something", hint="Wait for its end.", details=details
            )

    # ── Files ──

    async def files(self) -> Workspace:
        """Its working directory, fetched when it is not there yet."""
        return self.session.files if self.session is not None else LocalWorkspace(await self.prepare())

    async def prepare(self) -> Path:
        """Bring the source to disk with its attachments, once. Raises what fetching raises, and `GoneError`."""
        if self._closed:
            raise self.gone_error()
        if self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare(), name=f"files of {self.id}")
        preparing = self._preparing
        try:
            return await asyncio.shield(preparing)
        except asyncio.CancelledError:
            if preparing.cancelled() and self._closed:
                raise self.gone_error() from None
            raise
        except Exception:
            if self._preparing is preparing:
                self._preparing = None  # to be tried again
            raise

    async def _prepare(self) -> Path:
        order = self.order
        fetched = await fetch(
            order.source,
            into=order.tenant.work / self.session_id / "source",
            git_credentials=order.git_credentials,
            envs=order.envs,
        )
        await _write(LocalWorkspace(fetched.path), order.attachments)
        return fetched.path

    async def attach(self, attachments: Sequence[Attachment]) -> None:
        """Write the files of a chat. Raises `AttachmentError`."""
        if not attachments:
            return
        try:
            await _write(await self.files(), attachments)
        except ComputerAgentError as error:
            raise AttachmentError(f"an attachment was not written: {error.message}", hint=error.hint) from error

    # ── Turns ──

    def chat(self, message: UserInput, attachments: Sequence[Attachment]) -> tuple[Turn, Relay]:
        """Take the place and begin a turn; its events, to its end. Raises what `require_idle` does."""
        self.require_idle()
        turn = self.turn = Turn(self.turns)
        self.touch()
        task = asyncio.create_task(self._run(turn, message, attachments), name=f"turn of {self.id}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

        async def begin() -> Pages:
            await turn.begun.wait()
            if turn.failure is not None:
                raise turn.failure
            return turn.read()

        async def last(failure: ComputerAgentError | None) -> dict[str, Any]:
            if failure is None:
                await turn.over.wait()
            more = {"sandboxId": self.id, "sessionId": self.session_id, "turn": turn.index}
            if self.ended is not None and (failure or turn.failure or turn.ended):
                failure = self.gone_error()
            failure = failure or turn.failure
            if failure is not None:
                return failed(failure, **more)
            if turn.ended is not None and turn.ended.reason in {"error", "cancelled"}:
                return failed_run(turn.ended, **more)
            return {"kind": "ca_done", **more, "usage": Usage.of(turn.usage)}

        return turn, Relay(begin, last, ends=turn.ends_with)

    def gone_error(self) -> GoneError:
        """What whoever still asks for it is told."""
        return GoneError(
            f"sandbox {self.id} is gone", hint="Open a new one.", details={"state": self.ended or "expired"}
        )

    async def _run(self, turn: Turn, message: UserInput, attachments: Sequence[Attachment]) -> None:
        stream: Pages | None = None
        try:
            await self.attach(attachments)
            turn.attached.set()
            session = await self._boot(turn)
            stream = turn.read()
            turn.usage.baseline = session.cost_so_far
            turn.number = await session.send(message)
            turn.begun.set()
            while turn.ended is None and (page := await stream.page()):
                if self._read(turn, page):
                    break
        except ComputerAgentError as error:
            turn.failure = error
        except asyncio.CancelledError:
            turn.failure = self.gone_error()
            raise
        except Exception as error:  # noqa: BLE001 - the caller is told, and the sandbox stays
            _log.error("turn_failed", sandbox=self.id, error=repr(error))
            turn.failure = ComputerAgentError("internal error", hint="See the server's log.")
        finally:
            if stream is not None:
                stream.close()
            self.used = self.used + Usage.of(turn.usage)
            self.turns += 1
            self.turn = None
            self.last_activity = now()
            turn.attached.set()
            turn.begun.set()
            turn.over.set()

    def _read(self, turn: Turn, page: Sequence[Recorded]) -> bool:
        """Count what a page used; whether the turn ended in it."""
        for one in page:
            self._read_to = one.id
            if isinstance(one.event, CaUsageSnapshot):
                turn.usage.absorb(one.event)
            if turn.ends_with(one):
                turn.ended = one.event if isinstance(one.event, CaSessionEnded) else None
                return True
        return False

    async def _boot(self, turn: Turn) -> LocalSession:
        """The session, started when there is none or its engine has ended."""
        session = self.session
        if session is None or session.ended is not None:
            await self.prepare()
            session = await self._harness.open(self.order.request(self.session_id, attach=False))
            if self.ended is not None:
                await session.cancel()
                raise self.gone_error()
            self.session, self._read_to = session, None
        turn.session, turn.after = session, self._read_to
        return session

    async def interrupt(self) -> None:
        """End the turn under way; the sandbox stays."""
        if self.session is not None and self.turn is not None:
            await self.session.interrupt()

    async def stop(self) -> None:
        """End the engine; files and settings stay. A turn under way ends with it."""
        if self.session is not None:
            await self.session.cancel()
        for task in list(self._following):
            if self.session is None:
                task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        """End everything, and delete the files."""
        self._closed = True
        try:
            await self.stop()
            if self._preparing is not None:
                self._preparing.cancel()
                await asyncio.gather(self._preparing, return_exceptions=True)
            await self._harness.close()
        finally:
            await self.order.tenant.forget(self.session_id, transcript=self.order.store is None)
            self.gone.set()


async def _write(files: Workspace, attachments: Sequence[Attachment]) -> None:
    for each in attachments:
        text = each.content
        data = base64.b64decode(text) if each.encoding == "base64" else text.encode("utf-8", "replace")
        await files.write(each.path, data)
