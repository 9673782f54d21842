"""The model simulator: a server that speaks every dialect and answers from a script."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.from_thread

from computeragent.dialects import anthropic, gemini, openai_chat
from computeragent.dialects.events import Failed, ModelEvent, Ping, Started
from computeragent.dialects.model import ModelError, ModelRequest
from computeragent.dialects.streams import response_events
from computeragent.dialects.tokens import estimate_request_tokens
from computeragent.errors import UnsupportedRuntimeError, ValidationError
from computeragent.models.script.loading import load_script
from computeragent.models.script.playing import Performance, Player
from computeragent.models.script.rules import Script
from computeragent.testing.models.fronts import COUNT_TOKENS, GEMINI, GEMINI_MODELS, Front, error_front, front_for
from computeragent.testing.models.http import CutConnection, HttpRequest, HttpResponse, HttpServer
from computeragent.testing.models.recording import RecordedRequest
from computeragent.wire.encoding import to_json


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
        found = front_for(record.path, record.query)
        if record.method in {"GET", "HEAD"} and found is None:
            return self._answer_get(record)
        if self._required_key is not None and record.api_key != self._required_key:
            front = found[0] if found else error_front(record.path)
            return _error(front, ModelError(kind="authentication", message="invalid API key"))
        if (counted := COUNT_TOKENS.fullmatch(record.path)) and record.method == "POST":
            return self._count_tokens(record, counted["model"])
        if found is None:
            return _not_found(record.path)
        front, match = found
        if record.method != "POST":
            return _error(front, ModelError(kind="invalid_request", message="use POST", status=405))
        try:
            record.dialect, record.parsed = front.name, front.parse(match, record.http.body)
        except ValidationError as error:
            return _error(front, ModelError(kind="invalid_request", message=error.message))
        return await self._answer(front, record, record.parsed)

    def _answer_get(self, record: RecordedRequest) -> HttpResponse:
        listed = GEMINI_MODELS.fullmatch(record.path)
        if listed is not None and (listed["version"] != "v1" or "x-goog-api-key" in record.headers):
            return self._answer_gemini_models(listed["model"])
        if record.path.endswith("/v1/models"):
            speaks_anthropic = "anthropic-version" in record.headers or "x-api-key" in record.headers
            dialect = anthropic if speaks_anthropic else openai_chat
            return _json(dialect.build_models(self.script.models))
        if record.path in {"/", "/health", "/api/hello"}:
            return _json({"status": "ok", "server": "computeragent model simulator", "script": self.script.name})
        return _not_found(record.path)

    def _answer_gemini_models(self, name: str | None) -> HttpResponse:
        """The list of models, or one of them."""
        if name is None:
            return _json(gemini.build_models(self.script.models))
        if name in self.script.models:
            return _json(gemini.build_model(name))
        return _error(GEMINI, ModelError(kind="not_found", message=f"there is no model models/{name}", status=404))

    def _count_tokens(self, record: RecordedRequest, gemini_model: str | None) -> HttpResponse:
        record.dialect = anthropic.NAME if gemini_model is None else gemini.NAME
        try:
            if gemini_model is None:
                record.parsed = anthropic.parse_request(record.http.body)
            else:
                record.parsed = gemini.parse_token_count_request(record.http.body, model=gemini_model)
        except ValidationError as error:
            return _error(error_front(record.path), ModelError(kind="invalid_request", message=error.message))
        count = estimate_request_tokens(record.parsed)
        return _json(anthropic.build_token_count(count) if gemini_model is None else gemini.build_token_count(count))

    async def _answer(self, front: Front, record: RecordedRequest, request: ModelRequest) -> HttpResponse:
        played = self._player.play(request, id_prefix=front.id_prefix, call_prefix=front.call_prefix)
        if played.reply.delay:
            await asyncio.sleep(played.reply.delay)
        if played.response is None:
            assert played.error is not None
            return _error(front, played.error)
        record.response_text = played.response.text
        if not request.stream:
            return _json(front.build_response(played.response))
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


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(
        status=status, headers={"content-type": "application/json", **(headers or {})}, body=to_json(value)
    )


def _error(front: Front, error: ModelError) -> HttpResponse:
    headers = dict(front.error_headers(error))
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    return _json(front.build_error(error), front.error_status(error), headers)


def _not_found(path: str) -> HttpResponse:
    return _error(error_front(path), ModelError(kind="not_found", message=f"nothing answers on {path}", status=404))


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
