"""The picture of a computer for all who watch it: taken once, while somebody watches, sent when it changed."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from computeragent.computer.types import Computer, HasGlimpses, Screenshot, Size
from computeragent.errors import ComputerActionError, ComputerAgentError, ComputerError
from computeragent.logs import Logger

ANSWER = 15.0
"""Seconds that a computer may take for one picture; after that it counts as gone."""
_QUALITY = 80
_log = Logger("desk")

Open = Callable[[], Awaitable[Computer]]
"""Opens the computer that is shown; a new one each time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the screen showed: a JPEG, and its number."""

    number: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """How the computer is; `problem` and `hint` say what is wrong with one that has gone, or only does not answer."""

    state: Literal["starting", "live", "waiting", "gone"]
    problem: str = ""
    hint: str = ""


class Screen:
    """One computer and one grabber, however many watch.

    A watcher has an event that is set when `frame` or `status` is new; what it has not seen by then is skipped.
    """

    def __init__(self, open_: Open, *, fps: float = 12.0) -> None:
        self.frame: Frame | None = None
        self.status = Status("starting")
        self._open = open_
        self._interval = 1.0 / fps
        self._computer: Computer | None = None
        self._known = b""
        self._watchers: set[asyncio.Event] = set()
        self._wanted = asyncio.Event()
        self._grabbing: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    @property
    def size(self) -> Size | None:
        """The size of the screen, once there is one."""
        return None if self._computer is None else self._computer.dimensions

    @property
    def kind(self) -> str:
        """The kind of the computer; empty while there is none."""
        return "" if self._computer is None else self._computer.kind

    async def computer(self) -> Computer:
        """The computer, opened if it is not. Raises `ComputerError` where that cannot be."""
        async with self._opening:
            if self._closed:
                raise ComputerError("the view is closed")
            if self._computer is None:
                try:
                    self._computer = await self._open()
                except ComputerAgentError as error:
                    self._tell(_gone(error))
                    raise
                self._tell(Status("live"))
            return self._computer

    async def screenshot(self) -> Screenshot:
        """What the screen shows now. Raises `ComputerError`."""
        if self.status.state == "gone":
            raise ComputerError(self.status.problem, hint=self.status.hint or None)
        computer = await self.computer()
        try:
            async with asyncio.timeout(ANSWER):
                return await computer.screenshot()
        except ComputerActionError:
            raise
        except (ComputerAgentError, TimeoutError) as error:
            self._tell(_gone(error))
            raise ComputerError(self.status.problem, hint=self.status.hint or None) from None

    async def again(self) -> None:
        """Let a computer that has gone go, and open another."""
        if self.status.state != "gone" or self._closed:
            return
        async with self._opening:
            computer, self._computer = self._computer, None
            self._known = b""
            self._tell(Status("starting"))
            await _let_go(computer)
        self._watch()

    def look(self) -> None:
        """Take the next picture at once: something was done."""
        self._wanted.set()

    @contextmanager
    def watching(self) -> Generator[asyncio.Event]:
        """Watch: the event is set whenever there is something new, and to begin with."""
        news = asyncio.Event()
        news.set()
        self._watchers.add(news)
        self._watch()
        try:
            yield news
        finally:
            self._watchers.discard(news)

    async def close(self) -> None:
        """Stop, and let the computer go."""
        self._closed = True
        self._tell(Status("gone", "the view was closed"))
        grabbing, self._grabbing = self._grabbing, None
        if grabbing is not None:
            grabbing.cancel()
            await asyncio.wait({grabbing})
        async with self._opening:
            computer, self._computer = self._computer, None
            await _let_go(computer)

    def _watch(self) -> None:
        self._wanted.set()
        if not self._closed and (self._grabbing is None or self._grabbing.done()):
            self._grabbing = asyncio.create_task(self._grab())

    async def _grab(self) -> None:
        while self._watchers and self.status.state != "gone":
            self._wanted.clear()
            began = time.monotonic()
            try:
                computer = await self.computer()
                async with asyncio.timeout(ANSWER):
                    await self._take(computer)
            except ComputerActionError as error:  # a page that is busy, say: the computer is there
                self._tell(Status("waiting", error.message, error.hint or ""))
            except (ComputerAgentError, TimeoutError) as error:
                self._tell(_gone(error))
                return
            except Exception as error:  # noqa: BLE001 - whoever watches is told
                _log.error("grabbing_failed", error=repr(error))
                self._tell(Status("gone", "the screen could not be taken", "See the log of this command."))
                return
            else:
                self._tell(Status("live"))
            took = time.monotonic() - began
            with suppress(TimeoutError):  # a slow computer is given as long again to do its work
                await asyncio.wait_for(self._wanted.wait(), max(self._interval - took, took))

    async def _take(self, computer: Computer) -> None:
        if isinstance(computer, HasGlimpses):
            taken = await computer.glimpse(self._known, quality=_QUALITY)
            if taken is not None:
                self._known = taken.digest
                self._show(taken.jpeg)
            return
        shot = await computer.screenshot()
        if shot.data != self._known:
            self._known = shot.data
            self._show(await asyncio.to_thread(_as_jpeg, shot))

    def _show(self, jpeg: bytes) -> None:
        self.frame = Frame(1 if self.frame is None else self.frame.number + 1, jpeg)
        self._wake()

    def _tell(self, status: Status) -> None:
        if self.status != status:
            self.status = status
            self._wake()

    def _wake(self) -> None:
        for news in self._watchers:
            news.set()


def _as_jpeg(shot: Screenshot) -> bytes:
    if shot.format == "jpeg":
        return shot.data
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(shot.data)) as image:
        image.convert("RGB").save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _gone(error: ComputerAgentError | TimeoutError) -> Status:
    if isinstance(error, ComputerAgentError):
        return Status("gone", error.message, error.hint or "")
    return Status("gone", f"the computer has not answered for {ANSWER:g} seconds")


async def _let_go(computer: Computer | None) -> None:
    if computer is None:
        return
    try:
        async with asyncio.timeout(ANSWER):
            await computer.close()
    except Exception as error:  # noqa: BLE001 - it is let go all the same
        _log.warn("not_closed", error=repr(error))
