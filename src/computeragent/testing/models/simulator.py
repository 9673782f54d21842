"""The model simulator: a server that speaks every dialect and answers from a script."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.from_thread

from computeragent.dialects.events import Failed, ModelEvent, Ping, Started
from computeragent.dialects.model import ModelError, ModelRequest
from computeragent.dialects.streams import response_events
from computeragent.dialects.tokens import estimate_request_tokens
from computeragent.errors import UnsupportedRuntimeError
from computeragent.models.script.loading import load_script
from computeragent.models.script.playing import Performance, Player
from computeragent.models.script.rules import Script
from computeragent.models.serving.fronts import Front, front_for
from computeragent.models.serving.http import CutConnection, HttpRequest, HttpResponse, HttpServer
from computeragent.models.serving.routes import count_response, error_response, json_response, route
from computeragent.testing.models.recording import RecordedRequest


class ModelSimulator:
    """A model server in this process, on the running asyncio loop.

    `script` is a `Script`, or the path of a script file; without one every prompt is echoed. `port` 0 takes a free
    one. `keep` bounds how many requests are remembered (None: all); `on_request` is called after each answer has
    begun. Entering raises `ScriptError` for a bad script file and `OSError` for an address that cannot be used.

        async with ModelSimulator("script.yaml") as sim:
            ...  # point a client at sim.url
            assert sim.requests[0].model == "claude-opus-5-5"
    """

    def __init__(
        self,
        script: Script | str | Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        require_key: str | None = None,
        keep: int | None = None,
        on_request: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        self._source = script
        self._require_key = require_key
        self._host = host
        self._keep = keep
        self._on_request = on_request
        self._server = HttpServer(self._handle, host=host, port=port)
        self._player = Player(script if isinstance(script, Script) else Script())
        self.requests: list[RecordedRequest] = []

    @classmethod
    @contextlib.contextmanager
    def start_in_thread(cls, script: Script | str | Path | None = None, **options: Any) -> Generator[Self]:
        """The same from code that is not asynchronous, or runs under trio: the server has a thread of its own."""
        with (
            anyio.from_thread.start_blocking_portal("asyncio") as portal,
            portal.wrap_async_context_manager(cls(script, **options)) as simulator,
        ):
            yield simulator

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            raise UnsupportedRuntimeError(
                "the model simulator runs on asyncio", hint="Use ModelSimulator.start_in_thread here."
            ) from error
        if isinstance(self._source, (str, Path)):
            self._player = Player(await anyio.to_thread.run_sync(load_script, self._source))
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.stop()

    @property
    def script(self) -> Script:
        """What is played."""
        return self._player.script

    @property
    def url(self) -> str:
        """The base URL for Anthropic, Bedrock and Gemini clients; OpenAI clients take it with `/v1`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.port}"

    @property
    def api_key(self) -> str:
        """A key that this server accepts."""
        return self._required_key or "simulated"

    @property
    def calls(self) -> list[RecordedRequest]:
        """The requests for an answer: `requests` without model lists, token counts and signs of life."""
        return [request for request in self.requests if front_for(request.path) is not None]

    def claude_environment(self, config_dir: str | Path | None = None) -> dict[str, str]:
        """Environment variables that point the Claude CLI here and keep it from calling anybody else.

        MCP tools are offered at once instead of behind a search. With `config_dir` the CLI keeps its files there.
        """
        environment = {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self.api_key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "0",
        }
        return environment if config_dir is None else {**environment, "CLAUDE_CONFIG_DIR": str(config_dir)}

    @property
    def _required_key(self) -> str | None:
        return self._require_key or self.script.require_key

    async def _handle(self, http: HttpRequest) -> HttpResponse:
        record = RecordedRequest(http, time.time())
        self.requests.append(record)
        if self._keep is not None:
            del self.requests[: -self._keep or None]
        response = await self._route(record)
        record.status = response.status
        if self._on_request is not None:
            self._on_request(record)
        return response

    async def _route(self, record: RecordedRequest) -> HttpResponse:
        about = {"server": "computeragent model simulator", "script": self.script.name}
        asked = route(record.http, models=self.script.models, about=about, key=self._required_key)
        if isinstance(asked, HttpResponse):
            return asked
        record.dialect, record.parsed = asked.front.name, asked.request
        if asked.counts:
            return count_response(asked, estimate_request_tokens(asked.request))
        return await self._answer(asked.front, record, asked.request)

    async def _answer(self, front: Front, record: RecordedRequest, request: ModelRequest) -> HttpResponse:
        played = self._player.play(request, id_prefix=front.id_prefix, call_prefix=front.call_prefix)
        if played.reply.delay:
            await asyncio.sleep(played.reply.delay)
        if played.response is None:
            assert played.error is not None
            return error_response(front, played.error)
        record.response_text = played.response.text
        if not request.stream:
            return json_response(front.build_response(played.response))
        headers = {"content-type": front.stream_type, "cache-control": "no-cache"}
        return HttpResponse(headers=headers, body=_stream(front, request, played))


async def _stream(front: Front, request: ModelRequest, played: Performance) -> AsyncGenerator[bytes]:
    builder, reply, broken = front.stream_builder(request), played.reply, played.broken
    assert played.response is not None
    events = list(_with_ping(response_events(played.response, reply.chunk_size)))
    # A break after more events than there are happens before the last one.
    end = len(events) if broken is None else min(broken.after, len(events) - 1)
    pieces = [builder.encode(event) for event in events[:end]]
    if not reply.chunk_delay:
        pieces = [b"".join(pieces)]  # nothing to wait for: one write
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(reply.chunk_delay)
        yield piece
    if broken is None:
        return
    if broken.how == "cut":
        await asyncio.sleep(0)  # what was written leaves first
        raise CutConnection
    yield builder.encode(Failed(ModelError(kind=broken.kind, message=broken.message)))


def _with_ping(events: Iterator[ModelEvent]) -> Iterator[ModelEvent]:
    for event in events:
        yield event
        if isinstance(event, Started):
            yield Ping()


async def serve(
    script: Script | str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8399,
    *,
    on_ready: Callable[[ModelSimulator], None] | None = None,
    on_request: Callable[[RecordedRequest], None] | None = None,
) -> None:
    """Run the simulator until cancelled; `on_ready` is called once it listens. Errors as `ModelSimulator`'s."""
    async with ModelSimulator(script, host=host, port=port, keep=100, on_request=on_request) as simulator:
        if on_ready is not None:
            on_ready(simulator)
        await anyio.sleep_forever()
