"""`create_view_server`: a computer's screen as a web page, live, with an optional take-over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from computeragent.desk.door import Door
from computeragent.desk.hands import Hand, Hands
from computeragent.desk.pages import KEPT, render
from computeragent.desk.screen import Frame, Open, Screen, Status
from computeragent.errors import ComputerAgentError, InsufficientPermissionError, ValidationError
from computeragent.server.auth import LOOPBACK
from computeragent.server.endpoint import failed, http_error, json_response, told

PUBLIC = ("/health", "/static/desk.css")
MAX_MESSAGE = 512 * 1024
"""Bytes of one message of a viewer's."""
_IN_FLIGHT = 2
"""Frames that a viewer may have been sent and not drawn; after that frames are skipped."""
_HELD_BACK = 100
_PAUSE = 0.25
_BOUNDARY = b"frame"


def create_view_server(
    open_: Open,
    *,
    token: str | None = None,
    allowed_hosts: Iterable[str] = LOOPBACK,
    take_over: bool = False,
    fps: float = 12.0,
    title: str = "computer",
) -> Starlette:
    """A computer's screen as a web page.

    A server that stops ends its streams first: ``await app.state.leave()``.

    Args:
        open_: Opens the computer, when somebody first looks; and another one, where it has gone and a viewer asks.
        token: What lets in; without it everybody is: for loopback alone.
        allowed_hosts: Host names that requests may be for; empty for any.
        take_over: Whether viewers may use the pointer and the keyboard.
        fps: Frames per second at most.
        title: What the page is called.

    """
    view = View(Screen(open_, fps=fps), take_over=take_over, title=title)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await view.screen.close()

    app = Starlette(
        routes=[
            Route("/", view.page),
            Route("/health", view.health),
            Route("/screenshot.png", view.screenshot),
            Route("/screen.mjpg", view.motion),
            WebSocketRoute("/screen", view.socket),
            Mount("/static", StaticFiles(packages=[("computeragent.desk", "static")])),
        ],
        lifespan=lifespan,
        middleware=[Middleware(Door, token=token, hosts=list(allowed_hosts), public=PUBLIC)],
        exception_handlers={ComputerAgentError: told, HTTPException: http_error, Exception: failed},
    )
    app.state.leave = view.screen.close
    app.state.screen = view.screen
    return app


class View:
    """The routes of the live view."""

    def __init__(self, screen: Screen, *, take_over: bool, title: str) -> None:
        self.screen = screen
        self._hands = Hands(screen)
        self._take_over = take_over
        self._title = title

    async def page(self, request: Request) -> Response:
        """`GET /`."""
        del request
        body = render("view.html", title=self._title, take_over=self._take_over)
        return Response(body, headers=KEPT, media_type="text/html")

    async def health(self, request: Request) -> Response:
        """`GET /health`."""
        del request
        return json_response({"status": "healthy"})

    async def screenshot(self, request: Request) -> Response:
        """`GET /screenshot.png`."""
        del request
        shot = await self.screen.screenshot()
        return Response(shot.data, headers={"cache-control": "no-store"}, media_type=shot.media_type)

    async def motion(self, request: Request) -> Response:
        """`GET /screen.mjpg`: for whatever shows pictures and has no script."""
        del request
        await self.screen.computer()  # a computer that cannot be had is an answer, not an endless picture
        media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        return StreamingResponse(self._parts(), headers={"cache-control": "no-store"}, media_type=media_type)

    async def _parts(self) -> AsyncIterator[bytes]:
        shown, quiet = 0, False
        yield b"--%s\r\n" % _BOUNDARY
        with self.screen.watching() as news:
            while self.screen.status.state != "gone":
                news.clear()
                frame = self.screen.frame
                if frame is not None and (frame.number != shown or not quiet):
                    quiet = frame.number == shown
                    shown = frame.number
                    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(frame.jpeg)
                    yield b"%s%s\r\n--%s\r\n" % (head, frame.jpeg, _BOUNDARY)
                # Browsers show a part when the next one begins: the last frame before a pause is sent twice.
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), None if quiet else _PAUSE)

    async def socket(self, websocket: WebSocket) -> None:
        """`/screen`: frames as binary messages, everything else as JSON."""
        await websocket.accept()
        with self.screen.watching() as news:
            viewer = Viewer(websocket, self.screen, self._hands, news, take_over=self._take_over)
            with suppress(WebSocketDisconnect):
                await viewer.run()


class Viewer:
    """One open page. It is sent what is new once it has drawn what it was sent."""

    def __init__(
        self, websocket: WebSocket, screen: Screen, hands: Hands, news: asyncio.Event, *, take_over: bool
    ) -> None:
        self._websocket = websocket
        self._screen = screen
        self._hands = hands
        self._news = news
        self._take_over = take_over
        self._hand: Hand = hands.join(news.set)
        self._undrawn = 0
        self._notes: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Serve the viewer until it leaves."""
        tasks = [asyncio.create_task(job) for job in (self._tell(), self._listen(), self._hand.work(self._note))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._hands.leave(self._hand)

    async def _tell(self) -> None:
        status: Status | None = None
        control: dict[str, Any] | None = None
        frame: Frame | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            if (now := self._control()) != control:
                control = now
                await self._send(now)
            if (how := self._screen.status) is not status:
                status = how
                await self._send(self._status(how))
            while self._notes:
                await self._send(self._notes.pop(0))
            latest = self._screen.frame
            if latest is not None and latest is not frame and self._undrawn < _IN_FLIGHT:
                frame = latest
                self._undrawn += 1
                await self._websocket.send_bytes(latest.jpeg)

    async def _listen(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._hear(_decoded(message))
            except ComputerAgentError as error:
                self._note(error)

    async def _hear(self, said: dict[str, Any]) -> None:
        kind = said.get("type")
        if kind == "drawn":
            self._undrawn = max(0, self._undrawn - 1)
            self._news.set()
        elif kind == "again":
            await self._screen.again()
        elif kind in {"take", "release", "act"}:
            if not self._take_over:
                raise InsufficientPermissionError("this view is for looking", hint="Start it with --take-over.")
            if kind == "act":
                await self._hand.ask(said.get("do"))
            else:
                await (self._hand.take() if kind == "take" else self._hand.release())
        else:
            raise ValidationError(f"there is no message {str(kind)[:40]!r}", hint="drawn, again, take, release, act.")

    def _note(self, error: ComputerAgentError) -> None:
        if len(self._notes) < _HELD_BACK:
            self._notes.append({"type": "error", **error.to_wire()["error"]})
        self._news.set()

    def _status(self, status: Status) -> dict[str, Any]:
        size = self._screen.size
        return {
            "type": "status",
            "state": status.state,
            "problem": status.problem,
            "hint": status.hint,
            "kind": self._screen.kind,
            "size": None if size is None else list(size),
        }

    def _control(self) -> dict[str, Any]:
        return {"type": "control", "mine": self._hands.holds(self._hand), "held": self._hands.is_held}

    async def _send(self, value: dict[str, Any]) -> None:
        await self._websocket.send_text(msgspec.json.encode(value).decode())


def _decoded(message: Any) -> dict[str, Any]:
    text: str | None = message.get("text")
    if text is None or len(text) > MAX_MESSAGE:
        raise ValidationError("a viewer sends JSON", hint="As the page does.")
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValidationError("this is no JSON", hint="Send an object.") from None
    if not isinstance(value, dict):
        raise ValidationError("this is no JSON object", hint="Send an object with a type.")
    return cast("dict[str, Any]", value)
