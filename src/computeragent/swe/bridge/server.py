"""The bridge as a server: what comes over HTTP is answered in the sample, with signs of life while a model works."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from computeragent.dialects import gemini
from computeragent.dialects.events import Failed, Ping, Started
from computeragent.dialects.model import ModelError, ModelResponse
from computeragent.dialects.protocol import StreamBuilder
from computeragent.dialects.sse import sse
from computeragent.dialects.streams import response_events
from computeragent.dialects.tokens import estimate_request_tokens
from computeragent.errors import ValidationError
from computeragent.models.serving.fronts import Front
from computeragent.models.serving.http import CutConnection, HttpRequest, HttpResponse
from computeragent.models.serving.routes import (
    Asked,
    brings_key,
    count_response,
    error_response,
    json_response,
    not_found,
    route,
)
from computeragent.swe.bridge.faults import FatalError, is_final, model_error
from computeragent.swe.bridge.generation import Generation
from computeragent.swe.bridge.host_tools import HostTools
from computeragent.swe.bridge.mcp import answer_mcp
from computeragent.swe.bridge.models import Models
from computeragent.swe.bridge.outgoing import new_answer_id
from computeragent.swe.bridge.record import Bridge

PATIENCE = 5.0
"""Seconds that a stream waits before it begins without an answer: what fails by then has a status of its own."""

PULSE = 5.0
"""Seconds between signs of life."""

GLANCE = 0.25
"""Seconds between two looks whether the client is still there."""

_ALIVE = b": alive\n\n"
_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
_ABOUT = {"server": "computeragent bridge"}
_MCP = re.compile(r"/mcp/(?P<server>[^/]+)/?")
T = TypeVar("T")


class Service:
    """Answers the HTTP requests of one bridge. What it does runs in the context that it was made in: the sample's."""

    def __init__(self, bridge: Bridge, generation: Generation, models: Models, host: HostTools) -> None:
        self._bridge = bridge
        self._generation = generation
        self._models = models
        self._host = host
        self._context = contextvars.copy_context()
        self._work: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def handle(self, http: HttpRequest) -> HttpResponse:
        """Answer one request."""
        if (found := _MCP.fullmatch(http.path)) is not None:
            return await self._answer_mcp(http, found["server"])
        asked = route(http, models=self._models.names, about=_ABOUT, key=self._bridge.api_key)
        if isinstance(asked, HttpResponse):
            return asked
        if asked.counts:
            return count_response(asked, estimate_request_tokens(asked.request))
        if self._bridge.failure is not None:
            return error_response(asked.front, _over(self._bridge.failure))
        return await self._answer(http, asked)

    async def _answer_mcp(self, http: HttpRequest, name: str) -> HttpResponse:
        if not brings_key(http, self._bridge.api_key):
            return json_response({"error": "invalid API key"}, 401)
        server = self._host.servers.get(name)
        if server is None:
            return not_found(http.path)
        task = self._start(answer_mcp(http, server, self._host))
        streams = "text/event-stream" in http.headers.get("accept", "")
        if not await self._wait(task, http.left, PATIENCE if streams else None):
            return HttpResponse(headers=_STREAM_HEADERS, body=self._stream_tool(task, http.left))
        return self._tool_outcome(task)

    async def _stream_tool(self, task: asyncio.Task[HttpResponse], left: Callable[[], bool]) -> AsyncGenerator[bytes]:
        try:
            while not await self._wait(task, left, PULSE):
                yield _ALIVE
            answer = self._tool_outcome(task).body
            assert isinstance(answer, bytes)
            yield sse(answer, "message")
        finally:
            task.cancel()

    def _tool_outcome(self, task: asyncio.Task[HttpResponse]) -> HttpResponse:
        try:
            return task.result()
        except Exception as error:  # noqa: BLE001 - a tool of the evaluation is broken: that is the sample's end
            self._bridge.fail(error)
            return json_response({"error": "the tool has failed"}, 500)

    async def _answer(self, http: HttpRequest, asked: Asked) -> HttpResponse:
        front, request, answer_id = asked.front, asked.request, new_answer_id(asked.front)
        task = self._start(self._generation.answer(front, request, answer_id))
        builder = front.stream_builder(request)
        if not await self._wait(task, http.left, PATIENCE if request.stream else None):
            begun = Started(id=answer_id, model=request.model, dialect=front.name)
            return _streamed(front, self._stream(front, builder, begun, task, http.left))
        answer = self._outcome(task)
        if isinstance(answer, ModelError):
            return error_response(front, answer)
        if request.stream:
            return _streamed(front, b"".join(builder.encode(event) for event in response_events(answer)))
        return json_response(front.build_response(answer))

    async def _stream(
        self,
        front: Front,
        builder: StreamBuilder,
        begun: Started,
        task: asyncio.Task[ModelResponse],
        left: Callable[[], bool],
    ) -> AsyncGenerator[bytes]:
        try:
            yield builder.encode(begun)
            while not await self._wait(task, left, PULSE):
                yield builder.encode(Ping()) or _pulse(front)
            answer = self._outcome(task)
            if isinstance(answer, ModelError):
                yield builder.encode(Failed(answer))
                return
            yield b"".join(builder.encode(each) for each in response_events(answer) if not isinstance(each, Started))
        finally:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # Each has a copy of its own: what one sets for itself is none of the others' business.
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _wait(self, task: asyncio.Task[Any], left: Callable[[], bool], patience: float | None = None) -> bool:
        """Whether the work is done within `patience` seconds. It is given up once the client has left."""
        loop = asyncio.get_running_loop()
        end = None if patience is None else loop.time() + patience
        try:
            while not task.done():
                pause = GLANCE if end is None else min(GLANCE, end - loop.time())
                if pause <= 0:
                    return False
                await asyncio.wait({task}, timeout=pause)
                if not task.done() and left():
                    task.cancel()
                    await asyncio.wait({task})
                    raise CutConnection
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.cancelled():
            raise CutConnection
        return True

    def _outcome(self, task: asyncio.Task[ModelResponse]) -> ModelResponse | ModelError:
        try:
            return task.result()
        except ValidationError as error:
            self._bridge.last_error = error
            return ModelError(kind="invalid_request", message=error.message, status=400)
        except FatalError as error:
            self._bridge.fail(error.cause)
            return _over(error.cause)
        except Exception as error:  # noqa: BLE001 - every failure of a model is told in the wire's words
            self._bridge.last_error = error
            if is_final(error):
                self._bridge.fail(error)
                return _over(error)
            return model_error(error)


def _over(error: Exception) -> ModelError:
    """The sample ends: nothing that an agent would try again."""
    return ModelError(kind="invalid_request", message=f"the sample has ended: {type(error).__name__}", status=400)


def _streamed(front: Front, body: bytes | AsyncGenerator[bytes]) -> HttpResponse:
    return HttpResponse(headers={**_STREAM_HEADERS, "content-type": front.stream_type}, body=body)


def _pulse(front: Front) -> bytes:
    """A sign of life for wires that have no word for it: a comment, or white space where clients know none."""
    return b"\n" if front.name == gemini.NAME else _ALIVE
