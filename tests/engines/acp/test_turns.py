"""What a run of the engine tells: text, thoughts, plans, calls, money; and interrupts, memory, set-up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from computeragent.testing.conformance.probe import Probe
from computeragent.wire.events import CaSessionEnded, CaUsageSnapshot, SdkMessage
from computeragent.wire.requests import UserInput

from .agents import as_row, session_of, write_plan

pytestmark = pytest.mark.anyio


def payloads(events: list[Any]) -> list[dict[str, Any]]:
    return [event.payload for event in events if isinstance(event, SdkMessage)]


async def turn(probe: Probe, session: Any, text: str = "go on") -> list[Any]:
    return await probe.turn(session, text)


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(None, tmp_path)  # type: ignore[arg-type]


async def test_text_is_told_as_it_is_written_and_then_whole(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"think": "Let me see."}, {"say": "A text that comes in pieces."}])
    async with session_of(tmp_path, plan) as session:
        told = payloads(await turn(probe, session))
    deltas = [each["event"]["delta"] for each in told if each["type"] == "stream_event"]
    assert "".join(each.get("text", "") for each in deltas) == "A text that comes in pieces."
    blocks = [block for each in told if each["type"] == "assistant" for block in each["message"]["content"]]
    assert [block["type"] for block in blocks] == ["thinking", "text"]
    assert told[-1]["type"] == "result"
    assert told[-1]["result"] == "A text that comes in pieces."


async def test_partial_messages_can_be_left_out(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "A text that comes in pieces."}])
    async with session_of(tmp_path, plan, options={"include_partial_messages": False}) as session:
        told = payloads(await turn(probe, session))
    assert "stream_event" not in {each["type"] for each in told}


async def test_a_call_is_told_before_it_is_asked_and_its_result_after(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "Now I write."}, {"write": ["a.txt", "one"]}, {"say": "Done."}])
    async with session_of(tmp_path, plan) as session:
        events = await turn(probe, session)
    kinds = [event.kind for event in events]
    asked = kinds.index("ca_permission_request")
    before, after = payloads(events[:asked]), payloads(events[asked:])
    call = before[-1]["message"]["content"][0]
    assert (call["type"], call["name"]) == ("tool_use", "Edit")
    assert call["input"] == {"file_path": "a.txt", "content": "one"}
    assert before[-2]["message"]["content"][0]["text"] == "Now I write."
    result = after[0]["message"]["content"][0]
    assert (result["tool_use_id"], result["content"], result["is_error"]) == (call["id"], "wrote a.txt", False)


async def test_a_plan_and_what_nobody_knows_are_relayed(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"plan": "First think."}, {"say": "Done."}])
    async with session_of(tmp_path, plan) as session:
        told = payloads(await turn(probe, session))
    assert [each["entries"][0]["content"] for each in told if each.get("subtype") == "plan"] == ["First think."]


async def test_noise_on_stdout_is_no_message(tmp_path: Path, probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
    noise = ["a log line that does not belong here", "[1, 2]", "{broken", '{"jsonrpc": "2.0"}', "\\ud800", ""]
    noise += ['{"method": "own/news", "params": {}}', '{"method": "session/request_permission"}']
    noise += ['{"id":[1],"result":{}}', '{"id":{},"error":"x"}', '{"method":[1],"id":1}', '{"method":"x","id":[]}']
    odd = [["x"], {"a": 1}, None, 7]
    noise += [json.dumps({"method": "session/update", "params": {"update": {"sessionUpdate": each}}}) for each in odd]
    noise += [
        json.dumps({"method": "session/update", "params": {"update": {"sessionUpdate": "tool_call", "status": each}}})
        for each in odd
    ]
    noise += ['{"jsonrpc":"2.0","id":99,"result":{}}', '{"method":"session/update","params":[]}', "[" * 50_000]
    plan = write_plan(tmp_path, [*({"noise": each} for each in noise), {"say": "Still here."}])
    async with session_of(tmp_path, plan) as session:
        assert payloads(await turn(probe, session))[-1]["result"] == "Still here."
    assert not [record for record in caplog.records if "Unhandled" in record.message]


async def test_money_is_told_before_the_turn_ends(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"spend": 0.25}, {"say": "Paid."}])
    async with session_of(tmp_path, plan) as session:
        events = await turn(probe, session)
    snapshot = next(event for event in events if isinstance(event, CaUsageSnapshot))
    assert (snapshot.input_tokens, snapshot.output_tokens, snapshot.cost_usd) == (10, 5, 0.25)


async def test_without_a_price_the_table_is_asked(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    as_row(monkeypatch, tmp_path_factory.mktemp("bin"))
    plan = write_plan(tmp_path, [{"say": "One."}], [{"say": "Two."}])
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}) as session:
        costs = [
            event.cost_usd
            for _ in range(2)
            for event in await turn(probe, session)
            if isinstance(event, CaUsageSnapshot)
        ]
    assert costs[0] > 0
    assert costs[1] == pytest.approx(2 * costs[0])


async def test_a_budget_without_any_price_ends_the_run(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    as_row(monkeypatch, tmp_path_factory.mktemp("bin"))
    plan = write_plan(tmp_path, [{"say": "One."}])
    options = {"cli": "stand_in", "model": "nobody/knows-this-one"}
    async with session_of(tmp_path, plan, options=options, budget_max_usd=1.0) as session:
        end = (await turn(probe, session))[-1]
    assert isinstance(end, CaSessionEnded)
    assert end.error_code == "UNKNOWN_PRICE"


async def test_a_turn_that_the_agent_refuses_fails_and_the_session_goes_on(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"refuse": "the model is overloaded"}], [{"say": "Better now."}])
    async with session_of(tmp_path, plan) as session:
        first = payloads(await turn(probe, session))[-1]
        second = payloads(await turn(probe, session))[-1]
    assert (first["is_error"], first["result"]) == (True, "the model is overloaded")
    assert (second["is_error"], second["result"]) == (False, "Better now.")


async def test_a_system_prompt_that_was_refused_is_sent_again(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"refuse": "the model is overloaded"}])
    async with session_of(tmp_path, plan, options={"system_prompt": "Mind the gap."}) as session:
        await turn(probe, session, "hello")
        assert payloads(await turn(probe, session, "hello"))[-1]["result"] == "You said: Mind the gap.\nhello"


async def test_an_image_that_the_agent_cannot_see_fails_its_turn_alone(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "Hello."}])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    async with session_of(tmp_path, plan) as session:
        refused = payloads(await probe.turn(session, UserInput(content=[image])))[-1]
        assert refused["is_error"]
        assert "images" in refused["result"]
        assert payloads(await turn(probe, session))[-1]["result"] == "Hello."


async def test_an_interrupted_call_is_taken_back(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"write": ["a.txt", "one"]}, {"say": "Never said."}], [{"say": "Next."}])
    async with session_of(tmp_path, plan) as session:
        await session.send(UserInput(content="go on"))
        await probe.until(session, "ca_permission_request")
        await session.interrupt()
        assert not (tmp_path / "a.txt").exists()
        assert payloads(await turn(probe, session))[-1]["result"] == "Next."


async def test_a_session_is_loaded_again_and_its_past_is_not_told_twice(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "I am the first."}])
    memory = {"session_id": "acp-resumed", "session_store": "memory"}
    async with session_of(tmp_path, plan, **memory) as session:
        own = payloads(await turn(probe, session, "the word is heron"))[0]["session_id"]
    plan = write_plan(tmp_path, [{"say": "I am the second."}])
    async with session_of(tmp_path, plan, **memory) as session:
        told = payloads(await turn(probe, session, "go on"))
    assert told[0]["session_id"] == own
    assert told[0]["resumed"] is True
    assert "replayed" not in json.dumps(told)
    assert (tmp_path / f"{own}.log").read_text().splitlines() == ["the word is heron", "go on"]


async def test_an_agent_that_forgot_is_told_the_story(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "I noted it."}])
    memory = {"session_id": "acp-forgot", "session_store": "memory"}
    async with session_of(tmp_path, plan, **memory) as session:
        own = payloads(await turn(probe, session, "the word is heron"))[0]["session_id"]
    (tmp_path / f"{own}.log").unlink()
    async with session_of(tmp_path, write_plan(tmp_path), **memory) as session:
        told = payloads(await turn(probe, session, "which word?"))
        again = payloads(await turn(probe, session, "sure?"))
    assert told[0]["resumed"] is False
    assert "User: the word is heron\n\nYou: I noted it." in told[-1]["result"]
    assert again[-1]["result"] == "You said: sure?"


async def test_the_system_prompt_goes_before_the_first_message_alone(tmp_path: Path, probe: Probe) -> None:
    async with session_of(tmp_path, write_plan(tmp_path), options={"system_prompt": "Mind the gap."}) as session:
        assert payloads(await turn(probe, session, "hello"))[-1]["result"] == "You said: Mind the gap.\nhello"
        assert payloads(await turn(probe, session, "hello"))[-1]["result"] == "You said: hello"


async def test_tool_servers_reach_the_session(tmp_path: Path, probe: Probe) -> None:
    servers = {"docs": {"command": "/bin/docs", "args": ["--all"], "env": {"TOKEN": "t"}}}
    async with session_of(tmp_path, write_plan(tmp_path), options={"mcp_servers": servers}) as session:
        own = payloads(await turn(probe, session))[0]["session_id"]
    sent = json.loads((tmp_path / f"{own}.new").read_text())["mcpServers"]
    assert sent == [
        {"name": "docs", "command": "/bin/docs", "args": ["--all"], "env": [{"name": "TOKEN", "value": "t"}]}
    ]


async def test_two_sessions_at_once_have_an_agent_each(tmp_path: Path, probe: Probe) -> None:
    async def one(word: str) -> str:
        folder = tmp_path / word
        folder.mkdir()
        async with session_of(folder, write_plan(folder, [{"wait": 0.1}, {"say": word}])) as session:
            return payloads(await turn(probe, session))[-1]["result"]

    assert await asyncio.gather(one("red"), one("blue")) == ["red", "blue"]
