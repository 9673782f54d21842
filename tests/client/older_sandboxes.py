"""A stand-in of a sandbox server that has the documented wire and nothing more: no ids, no cancel, no questions.

Frames name their kind on the ``event:`` line; ``ca_done`` and ``ca_error`` have none in their data.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


class OlderServer:
    """Answers what it is told; "fail", "cut" and "hang" do that."""

    def __init__(self, idle_ttl: float = 600) -> None:
        self.idle_ttl = idle_ttl
        self.live: dict[str, str] = {}
        self.opened = self.asked_to_open = self.heartbeats = self.busy = 0
        self.deleted: list[str] = []
        self.opening = asyncio.Event()
        self.opening.set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/sandboxes", self._open, methods=["POST"]),
                Route("/sandboxes/{id}", self._delete, methods=["DELETE"]),
                Route("/sandboxes/{id}/heartbeat", self._heartbeat, methods=["POST"]),
                Route("/sandboxes/{id}/chat", self._chat, methods=["POST"]),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"ok": True, "activeRuns": 0, "max": 4, "runtimes": ["local"], "defaultRuntime": "local"})

    async def _open(self, request: Request) -> Response:
        self.asked_to_open += 1
        await self.opening.wait()
        session = (await request.json())["sessionId"]
        told = {"sessionId": session, "state": "booting", "idleTtlMs": self.idle_ttl * 1000, "ttlMs": 1_800_000}
        if session in self.live:
            return JSONResponse({"sandboxId": self.live[session], "reused": True} | told)
        self.opened += 1
        self.live[session] = f"sbx_{self.opened}"
        return JSONResponse({"sandboxId": self.live[session]} | told, 201)

    async def _delete(self, request: Request) -> Response:
        self.deleted.append(request.path_params["id"])
        return JSONResponse({"ok": True})

    async def _heartbeat(self, _: Request) -> Response:
        self.heartbeats += 1
        return JSONResponse({})

    async def _chat(self, request: Request) -> Response:
        if self.busy:
            self.busy -= 1
            return JSONResponse({"error": {"code": "BUSY", "message": "busy"}}, 409)
        message = (await request.json())["message"]
        return StreamingResponse(self._turn(message), media_type="text/event-stream")

    async def _turn(self, message: str) -> AsyncIterator[bytes]:
        capabilities = dict.fromkeys(
            ("streamingInput", "partialMessages", "permissionCallback", "sessions", "budget"), False
        )
        identity = {"name": "older", "version": "1"}
        yield frame("ca_session_started", engine="scripted", identity=identity, capabilities=capabilities)
        yield frame("ca_turn_started", turnIndex=0)
        if message == "fail":
            yield b'event: ca_error\ndata: {"message":"no such luck"}\n\n'
            return
        if message == "cut":
            return
        if message == "hang":
            await asyncio.Event().wait()
        yield frame("sdk_message", payload={"type": "assistant", "message": {"content": "…"}})
        yield frame("sdk_message", payload={"type": "result", "result": f"You said: {message}"})
        yield frame("ca_usage_snapshot", inputTokens=3)
        yield frame("ca_session_ended", reason="complete")
        yield b'event: ca_done\ndata: {"sandboxId":"sbx_1","sessionId":"x","turn":0,"usage":{}}\n\n'


def frame(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'kind': kind, 'sessionId': 'theirs'} | fields)}\n\n".encode()
