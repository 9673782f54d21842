"""MongoTelemetry where the driver or the server is missing, hangs or fails: the agent goes on, nothing leaks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from computeragent.errors import MissingExtraError, ValidationError
from computeragent.telemetry.sinks import MongoTelemetry, documents, mongo

from .ingest import wait_until

pytestmark = pytest.mark.anyio
URL = "mongodb://reader:pa55%40word@h1:27017,h2:27018/?authSource=admin"
Behaviour = Callable[[str, dict[str, Any], dict[str, Any]], Awaitable[None]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


class Server:
    """In the place of pymongo and its server: writes go to `behave`, and to `written` when it lets them."""

    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.closed = 0
        self.found: dict[str, Any] | None = None
        self.behave: Behaviour | None = None

    def client(self, url: str, **options: Any) -> Any:
        assert url == URL
        assert options["retryWrites"] is False
        return _Client(self)

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [change["$setOnInsert"] for name, _, change in self.written if name == "agent_logs"]


class _Client:
    def __init__(self, server: Server) -> None:
        self.server = server

    def __getitem__(self, database: str) -> dict[str, Any]:
        return {name: _Collection(self.server, name) for name in ("agent_registry", "agent_logs")}

    async def close(self) -> None:
        self.server.closed += 1


class _Collection:
    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name

    async def update_one(self, query: dict[str, Any], change: dict[str, Any], upsert: bool = False) -> None:
        if self.server.behave is not None:
            await self.server.behave(self.name, query, change)
        self.server.written.append((self.name, query, change))

    async def find_one_and_update(self, query: dict[str, Any], change: dict[str, Any], **_: Any) -> Any:
        if self.server.behave is not None:
            await self.server.behave(self.name, query, change)
        return self.server.found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    module: Any = ModuleType("pymongo")
    module.__spec__ = ModuleSpec("pymongo", None)
    module.AsyncMongoClient = made.client
    monkeypatch.setitem(sys.modules, "pymongo", module)
    return made


def telemetry() -> MongoTelemetry:
    return MongoTelemetry(url=URL, database="aos", agent="triage")


async def chat(told: MongoTelemetry, message: Any = "hello", **info: Any) -> None:
    context = told.on_chat_start({"session_id": "s", "message": message})
    await told.on_chat_end({"session_id": "s", "ok": True, **info}, context)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as missing:
        telemetry()
    assert "computer-agent-py[mongo]" in (missing.value.hint or "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://reader:pa55word@h"},
        {"database": ""},
        {"database": "a/b"},
        {"agent": ""},
        {"agent": {"source": "github.com/a/b"}},
        {"agent": {"name": "triage", "sauce": "github.com/a/b"}},
        {"agent": {"name": "triage", "source": 5}},
    ],
)
def test_what_cannot_be_meant_is_refused_without_quoting_the_url(server: Server, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        MongoTelemetry(**{"url": URL, "database": "aos", "agent": "triage", **wrong})
    assert "pa55" not in str(refused.value) + str(refused.value.hint)


async def test_a_chat_is_written_when_it_is_over(server: Server) -> None:
    told = telemetry()
    await chat(told, reply="mail ada@example.com", duration_ms=12.7, usage={"input_tokens": 3, "cost_usd": 0.5})
    (log,) = server.logs
    assert (log["reply"], log["durationMs"], log["inputTokens"]) == ("mail [REDACTED:EMAIL]", 12, 3)
    assert log["costUsd"] == 0.5
    assert "outputTokens" not in log
    assert "error" not in log
    await told.on_close()
    assert server.closed == 1


async def test_a_server_that_hangs_does_not_hold_up_chats(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(mongo, "WRITE_TIMEOUT", 0.05)
    server.behave = hang
    told = telemetry()
    began = time.monotonic()
    told.on_agent_constructed({"source": {}, "engine": "e"})
    for _ in range(20):
        await chat(told)
    await told.on_close()
    assert time.monotonic() - began < 20
    wait_until(lambda: told.failures == 21)
    assert caplog.text.count("not_written") == 1
    server.behave = None
    await chat(told)
    wait_until(lambda: len(server.logs) == 1)


async def test_errors_reach_nobody_and_say_no_password(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(*_: Any) -> None:
        raise RuntimeError(f"cannot log in as reader with pa55@word, pa55%40word at {URL}")

    server.behave = refuse
    told = telemetry()
    await chat(told)
    wait_until(lambda: told.failures == 1)
    said = caplog.text + repr(told)
    assert "not_written" in said
    assert "h1:27017,h2:27018" in said
    for secret in ("pa55", "reader:"):
        assert secret not in said
    await told.on_close()


async def test_a_write_that_collides_with_another_process_is_tried_again(server: Server) -> None:
    class DuplicateKeyError(Exception):
        pass

    async def collide(*_: Any) -> None:
        server.behave = None
        raise DuplicateKeyError

    server.behave = collide
    told = telemetry()
    told.on_agent_constructed({"source": {"type": "local"}, "engine": "scripted", "model": "m"})
    await told.on_close()
    ((name, query, change),) = server.written
    assert (name, query) == ("agent_registry", {"name": "triage"})
    assert change["$set"]["harness"] == "scripted"
    assert set(change["$setOnInsert"]) == {"registeredAt"}
    assert told.failures == 0


async def test_secrets_are_redacted_also_where_a_text_is_cut(server: Server) -> None:
    told = telemetry()
    key = "ghp_" + "a1B2c3D4e5F6" * 3
    await chat(told, "x" * 7_985 + " " + key, error="no " + key)
    told.on_agent_constructed({"source": {"files": {"CLAUDE.md": f"use {key}"}}, "engine": "e", "model": "m"})
    await told.on_close()
    assert "ghp_" not in repr(server.written)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hi", "hi"),
        ({"role": "user", "content": "hi"}, "hi"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {}}]}, "a"),
        (["one", {"content": "two"}], "one\n\ntwo"),
        ((each for each in ["not", "consumed"]), ""),
        (None, ""),
        (b"bytes", ""),
    ],
)
def test_the_query_is_the_text_of_what_was_asked(message: Any, text: str) -> None:
    assert documents.text_of(message) == text


async def test_what_bson_could_not_take_is_told_as_text(server: Server, tmp_path: Path) -> None:
    told = telemetry()
    told.on_agent_constructed({"source": {"path": tmp_path}, "engine": "e"})
    await told.on_close()
    assert told.failures == 0
    assert str(tmp_path) in str(server.written[0][2]["$set"]["source"])


async def test_the_agent_may_be_described_as_in_the_published_examples(server: Server, tmp_path: Path) -> None:
    described = {"name": "triage", "source": tmp_path, "harness": "claude-agent-sdk"}
    told = MongoTelemetry(url=URL, database="aos", agent=described)
    told.on_agent_constructed({"source": {"type": "inline"}, "engine": "scripted", "model": "m"})
    await chat(told)
    await told.on_close()
    ((_, query, change), (_, _, log), _) = server.written
    assert query == {"name": "triage"}
    assert change["$set"]["source"] == {"type": "local", "path": str(tmp_path)}
    assert (change["$set"]["harness"], change["$set"]["model"]) == ("claude-agent-sdk", "m")
    assert (log["$setOnInsert"]["bot"], log["$setOnInsert"]["agentName"]) == ("triage", "triage")


async def test_a_repository_that_is_registered_keeps_its_name(server: Server) -> None:
    server.found = {"_id": 1, "name": "the first name"}
    source = {"type": "git", "url": "https://tok3n:pa55@w0rd@git.example/org/agent.git", "subdir": "agents/triage"}
    told = MongoTelemetry(url=URL, database="aos", agent="another name")
    told.on_agent_constructed({"source": source, "engine": "e", "model": None})
    await chat(told)
    await told.on_close()
    assert [name for name, _, _ in server.written] == ["agent_logs", "agent_registry"]
    assert {log["bot"] for log in server.logs} == {"the first name"}
    assert server.written[-1][1] == {"name": "the first name"}
    assert "pa55" not in repr(server.written)


async def test_an_agent_that_could_not_be_registered_is_with_its_next_chat(server: Server) -> None:
    async def refuse(*_: Any) -> None:
        raise RuntimeError("no")

    server.behave = refuse
    told = telemetry()
    told.on_agent_constructed({"source": {"type": "local", "path": "/a"}, "engine": "e", "model": None})
    wait_until(lambda: told.failures == 1)
    server.behave = None
    await chat(told)
    await told.on_close()
    assert [name for name, _, _ in server.written] == ["agent_registry", "agent_logs", "agent_registry"]
    assert server.written[0][2]["$set"]["source"] == {"type": "local", "path": "/a"}


async def test_credentials_of_the_environment_are_found_by_value(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "quite-an-odd-format-0815")
    told = telemetry()
    await chat(told, "use quite-an-odd-format-0815", reply="quite-an-odd-format-0815", error="quite-an-odd-format-0815")
    await told.on_close()
    assert "0815" not in repr(server.written)


def test_a_repository_is_the_same_however_it_is_written() -> None:
    def query(url: str, subdir: str | None = None) -> Any:
        return documents.same_repository({"type": "git", "url": url, "subdir": subdir})

    https = query("https://git.example/org/agent")
    for url in ("git.example/org/agent", "git@git.example:org/agent.git", "http://git.example/org/agent.git"):
        assert url in https["source.url"]["$in"]
        assert "https://git.example/org/agent" in query(url)["source.url"]["$in"]
    assert https["source.subdir"] is None
    assert query("git.example/org/agent", "a")["source.subdir"] == "a"
    assert query("file:///srv/agent")["source.url"]["$in"] == ["file:///srv/agent"]
    assert query("-odd") is None
    assert documents.same_repository({"type": "local", "path": "/a"}) is None
    assert documents.same_repository("text") is None
