"""MongoTelemetry against a server that speaks MongoDB's protocol: what a user of AgentOS finds there afterwards.

It wants ``COMPUTERAGENT_TEST_MONGO_URL``, a server to write to, and the extra ``mongo``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from computeragent import ComputerAgent
from computeragent.engines.scripted import ScriptedEngine
from computeragent.telemetry.sinks import MongoTelemetry

URL = os.environ.get("COMPUTERAGENT_TEST_MONGO_URL", "")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.soak,
    pytest.mark.skipif(not URL, reason="COMPUTERAGENT_TEST_MONGO_URL names no server"),
]


@pytest.fixture
async def database() -> AsyncGenerator[Any]:
    pymongo = pytest.importorskip("pymongo")
    name = f"test_{uuid.uuid4().hex[:8]}"
    async with pymongo.AsyncMongoClient(URL, retryWrites=False) as client:
        await client[name]["agent_registry"].create_index("name", unique=True)
        yield client[name]
        await client.drop_database(name)


async def test_an_agent_and_its_chats_are_found_in_the_database(database: Any, tmp_path: Path) -> None:
    told = MongoTelemetry(url=URL, database=database.name, agent="triage")
    script = [[{"usage": {"input_tokens": 3, "output_tokens": 2}}, {"text": "write to ada@example.com"}]]
    async with ComputerAgent(source=tmp_path, engine=ScriptedEngine(script), model="m-1", telemetry=told) as agent:
        handle = agent.chat("who is bob@example.com?")
        await handle
        session_id = await handle.session_id()
    agent_doc = await database["agent_registry"].find_one({"name": "triage"})
    log = await database["agent_logs"].find_one({"sessionId": session_id})
    assert told.failures == 0
    assert type(agent_doc["_id"]).__name__ == "ObjectId"
    assert (agent_doc["harness"], agent_doc["model"]) == ("scripted", "m-1")
    assert agent_doc["registeredAt"] <= agent_doc["updatedAt"] <= agent_doc["lastSeen"]
    assert log.pop("_id").startswith("log_")
    assert isinstance(log.pop("ts"), datetime)
    assert isinstance(log.pop("durationMs"), int)
    assert log == {
        "source": "library",
        "bot": "triage",
        "agentName": "triage",
        "requester": "library",
        "channel": None,
        "threadTs": None,
        "sessionId": session_id,
        "query": "who is [REDACTED:EMAIL]?",
        "reply": "write to [REDACTED:EMAIL]",
        "ok": True,
        "inputTokens": 3,
        "outputTokens": 2,
    }


async def test_an_agent_registers_once_however_many_do_it_at_a_time(database: Any) -> None:
    told = [MongoTelemetry(url=URL, database=database.name, agent="triage") for _ in range(8)]
    info = {"source": {"type": "inline", "files": {"agent.yaml": "name: x", "$odd": 1}}, "engine": "e", "model": None}
    for each in told:
        each.on_agent_constructed(info)
    for each in told:
        await each.on_close()
    assert [each.failures for each in told] == [0] * 8
    documents = await database["agent_registry"].find({}).to_list()
    assert [(one["name"], one["source"]) for one in documents] == [("triage", info["source"])]


async def test_what_is_in_the_registry_already_keeps_what_others_wrote(database: Any) -> None:
    before = datetime(2024, 5, 1)  # noqa: DTZ001 - as the driver returns it
    await database["agent_registry"].insert_one({"name": "triage", "label": "Triage", "registeredAt": before})
    told = MongoTelemetry(url=URL, database=database.name, agent="triage")
    told.on_agent_constructed({"source": {"type": "local"}, "engine": "e", "model": "m"})
    await told.on_close()
    (one,) = await database["agent_registry"].find({}).to_list()
    assert (one["label"], one["registeredAt"], one["model"]) == ("Triage", before, "m")


async def test_chats_after_a_close_are_written_too(database: Any) -> None:
    told = MongoTelemetry(url=URL, database=database.name, agent="triage")
    for number in range(3):
        await told.on_chat_end(
            {"session_id": f"s{number}", "ok": False, "error": "x" * 40_000}, {"message": "m" * 9_000}
        )
        await told.on_close()
    logs = await database["agent_logs"].find({}).to_list()
    assert sorted(one["sessionId"] for one in logs) == ["s0", "s1", "s2"]
    assert logs[0]["query"] == "m" * 8_000 + "…(+1000 chars)"
    assert logs[0]["error"].startswith("x" * 16_000 + "…")
    with anyio.fail_after(10):
        await told.on_close()


async def test_one_repository_is_one_agent_whatever_it_is_called_and_however_it_is_written(database: Any) -> None:
    for name, url, subdir in [
        ("triage", "https://git.example/org/agent", None),
        ("other machine", "git@git.example:org/agent.git", None),
        ("part", "git.example/org/agent", "agents/part"),
        ("triage", "https://git.example/org/moved", None),
    ]:
        told = MongoTelemetry(url=URL, database=database.name, agent={"name": name, "harness": "gitagent"})
        source = {"type": "git", "url": url} | ({"subdir": subdir} if subdir else {})
        told.on_agent_constructed({"source": source, "engine": "e", "model": None})
        await told.on_chat_end({"session_id": name + url, "ok": True}, {"message": "hi"})
        await told.on_close()
        assert told.failures == 0
    registered = await database["agent_registry"].find({}).sort("name").to_list()
    assert [(one["name"], one["source"]["url"]) for one in registered] == [
        ("part", "git.example/org/agent"),
        ("triage", "https://git.example/org/moved"),
    ]
    logs = await database["agent_logs"].find({}).sort("ts").to_list()
    assert [one["bot"] for one in logs] == ["triage", "triage", "part", "triage"]
