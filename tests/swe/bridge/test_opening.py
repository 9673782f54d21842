"""Where a bridge listens, which model answers, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import httpx2
import pytest
import trio
from inspect_ai.agent import Agent, AgentState, BridgedToolsSpec, agent
from inspect_ai.model import CompactionSummary, CompactionTrim, ModelAPI, ModelUsage, get_model
from inspect_ai.util import sandbox, sandboxenv
from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

from computeragent.errors import UnsupportedRuntimeError
from computeragent.swe.bridge import agent_bridge
from computeragent.swe.sandboxes import BwrapSandbox

from .clients import Asking, ask, user
from .inspecting import Model, add, called, evaluate, events, finished, said, texts

KNOWN = BwrapSandbox  # to Inspect, by its import
ASK = """
import json, sys, urllib.request
base, key = sys.argv[1:]
body = json.dumps({"model": "inspect", "max_tokens": 9, "messages": [{"role": "user", "content": "from inside"}]})
request = urllib.request.Request(base + "/v1/messages", body.encode(), {"x-api-key": key})
print(json.load(urllib.request.urlopen(request))["content"][0]["text"])
"""


def inside(body, **more) -> Agent:
    """An agent with a bridge into its sandbox."""

    @agent
    def probe() -> Agent:
        async def run(state: AgentState) -> AgentState:
            async with agent_bridge(state, sandbox=sandbox(), **more) as bridge:
                await body(bridge)
            return bridge.state

        return run

    return probe()


async def run_inside(bridge) -> str:
    done = await sandbox().exec([sys.executable, "-c", ASK, bridge.base_url, bridge.api_key], timeout=40)
    assert done.success, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["local", "bwrap"])
def test_a_program_in_a_sandbox_reaches_the_bridge(kind):
    seen = []

    async def body(bridge):
        await bridge.ready(5)
        seen.append(await run_inside(bridge))
        port = int(bridge.base_url.rpartition(":")[2])
        with socket.socket() as outside:
            seen.append(outside.connect_ex(("127.0.0.1", port)) == 0)

    log = evaluate(None, Model("hello in there"), solver=inside(body), sandbox=kind)
    assert finished(log).messages[-1].text == "hello in there"
    assert seen == ["hello in there", kind == "local"], "in a sandbox of ours the port is the sandbox's own"


@sandboxenv(name="somebody-elses")
class SomebodyElses(LocalSandboxEnvironment):
    """A sandbox that is none of ours, and that this process cannot listen in as far as it knows."""

    @classmethod
    async def sample_init(cls, task_name, config, metadata):
        return {"default": cls()}


@pytest.mark.soak  # Inspect's own takes about 20 seconds for what is tried here
def test_in_a_sandbox_of_others_it_is_inspects_own_bridge_that_answers():
    model = Model(called(("mcp__tools__add", {"x": 1, "y": 2})), "never")
    filtered = []

    async def look(model, messages, tools, choice, config):
        filtered.append(messages[-1].text)

    async def body(bridge):
        await bridge.ready(60)
        came = await ask("anthropic", bridge, Asking(tools=("mcp__tools__add",)))
        assert [name for _, name, _ in came.calls] == ["mcp__tools__add"]
        assert (bridge.requests, bridge.last_stop_reason, bridge.missing_tools) == (1, "tool_calls", ())
        params = {"name": "add", "arguments": {"x": 1, "y": 2}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            got = await client.post(bridge.mcp_servers[0].url, json=message)
        assert got.json()["result"]["content"][0]["text"] == "3"

    spec = BridgedToolsSpec(name="tools", tools=[add()], require_proposal=False)
    solver = inside(body, bridged_tools=[spec], filter=look)
    sample = finished(evaluate(None, model, solver=solver, sandbox="somebody-elses"))
    assert filtered == ["hi"]
    assert len(events(sample, "model")) == 1


def test_a_unix_socket_serves_as_well(tmp_path):
    place = tmp_path / "bridge.sock"

    async def body(bridge):
        assert (bridge.base_url, bridge.socket_path) == ("http://localhost", str(place))
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(place))) as client:
            request = {"model": "x", "messages": [{"role": "user", "content": "hi"}]}
            headers = {"authorization": f"Bearer {bridge.api_key}"}
            got = await client.post("http://localhost/v1/chat/completions", json=request, headers=headers)
        assert got.json()["choices"][0]["message"]["content"] == "through a file"

    finished(evaluate(body, Model("through a file"), bridge={"unix_socket": str(place)}))
    assert not place.exists()


def test_a_unix_socket_that_cannot_be_says_why(tmp_path):
    (tmp_path / "there").write_text("kept")

    async def body(_bridge):
        raise AssertionError("never open")

    for name, why in (("there", "in use"), ("no/folder", "No such file"), ("long" * 50, "too long")):
        log = evaluate(body, bridge={"unix_socket": str(tmp_path / name)})
        assert log.status == "error"
        assert (log.error.message.partition(" ")[0], why in log.error.message) == ("unix_socket:", True)
    assert (tmp_path / "there").read_text() == "kept"


def test_a_unix_socket_is_not_for_sandboxes_of_their_own(tmp_path):
    async def body(bridge):
        raise AssertionError("it opened")

    solver = inside(body, unix_socket=str(tmp_path / "bridge.sock"))
    log = evaluate(None, solver=solver, sandbox="bwrap")
    assert "listens on a port there" in log.error.message


def test_the_port_is_closed_with_the_bridge():
    ports = []

    async def body(bridge):
        ports.append(int(bridge.base_url.rpartition(":")[2]))

    finished(evaluate(body))
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", ports[0])) != 0


def other(name: str) -> Any:
    return get_model(f"mockllm/{name}", custom_outputs=Model(f"from {name}"), memoize=False)


def test_two_bridges_of_one_sample_do_not_collide():
    answers = []

    async def body(first):
        aliases = {"inspect": other("second")}
        async with agent_bridge(AgentState(messages=[]), model_aliases=aliases) as second:
            assert first.base_url != second.base_url
            came = await asyncio.gather(*(ask("chat", bridge, Asking()) for bridge in (first, second)))
            answers.extend(each.text for each in came)
            assert texts(second.state.messages) == [("user", "hi"), ("assistant", "from second")]

    finished(evaluate(body, Model("the first")))
    assert answers == ["the first", "from second"]


def test_which_model_answers_to_which_name():
    came = {}

    async def names(bridge):
        for name in ("haiku", "inspect", "claude-opus-5"):
            came[name] = (await ask("anthropic", bridge, Asking(model=name))).text

    bridge = {"model": "critic", "model_aliases": {"haiku": other("small")}}
    sample = finished(evaluate(names, Model("from the eval"), bridge=bridge, model_roles={"critic": other("critic")}))
    assert came == {"haiku": "from small", "inspect": "from the eval", "claude-opus-5": "from critic"}
    assert {*sample.model_usage} == {"mockllm/small", "mockllm/model", "mockllm/critic"}
    finished(evaluate(names, Model("from the eval"), bridge={"model": "inspect/mockllm/model"}))
    assert {*came.values()} == {"from the eval"}


def test_a_model_that_is_none_fails_before_the_agent_starts():
    async def body(bridge):
        raise AssertionError("it started")

    log = evaluate(body, bridge={"model_aliases": {"haiku": "no-such-provider/x"}})
    assert log.status == "error"
    assert "no-such-provider" in log.error.message


def test_a_conversation_that_gets_too_long_is_shortened_for_the_model_alone(monkeypatch):
    async def count(self, text: str) -> int:  # Inspect's own count would be downloaded
        return len(text) // 4

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)
    usage = ModelUsage(input_tokens=5_000, output_tokens=5, total_tokens=5_005)
    model = Model(lambda *_: said("ok", usage))

    async def body(bridge):
        turns = []
        for n in range(4):
            turns += [*user("chat", f"question {n} " + "word " * 40)]
            came = await ask("chat", bridge, Asking(turns=turns, text="go on", tools=("look",)))
            turns += [*user("chat", "go on"), *came.answer]
        assert len(bridge.state.messages) == 12

    strategy = CompactionTrim(threshold=4_000, preserve=0.3)
    sample = finished(evaluate(body, model, prompt="question 0", bridge={"compaction": strategy}))
    assert len(model.asked[-1].messages) < 11
    assert events(sample, "compaction")


def test_each_conversation_is_shortened_by_itself_and_summed_up_once(monkeypatch):
    async def count(self, text: str) -> int:
        return len(text) // 4

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)

    def answer(messages, tools, *_):
        if "summary" in messages[-1].text:
            return said("what was before")
        tokens = len(str([message.text for message in messages])) // 4
        return said("ok", ModelUsage(input_tokens=tokens, output_tokens=5, total_tokens=tokens + 5))

    model = Model(answer)

    async def body(bridge):
        await ask("chat", bridge, Asking("Give a title", system="You name things."))
        turns = []
        for n in range(6):
            came = await ask("chat", bridge, Asking(turns=turns, text=f"task {n} " + "word " * 300, tools=("look",)))
            turns += [*user("chat", f"task {n} " + "word " * 300), *came.answer]
        assert not [asked for asked in model.asked[1:] if "title" in str(asked.texts)]
        await ask("chat", bridge, Asking("task: so far all is well", tools=("look",)))
        assert model.asked[-1].texts == [("user", "task: so far all is well")]

    strategy = CompactionSummary(threshold=1_500, memory=False)
    sample = finished(evaluate(body, model, prompt="task", bridge={"compaction": strategy}))
    assert len(events(sample, "compaction")) == 1


def test_under_trio_it_says_what_it_needs():
    async def open_it() -> None:
        async with agent_bridge(AgentState(messages=[])):
            raise AssertionError("it opened")

    with pytest.raises(UnsupportedRuntimeError, match="runs on asyncio"):
        trio.run(open_it)


def test_answers_at_the_same_time():
    async def slow(messages, *_):
        await asyncio.sleep(0.2)
        return said(f"re {messages[-1].text}")

    async def body(bridge):
        came = await asyncio.gather(*(ask("chat", bridge, Asking(f"q{n}")) for n in range(8)))
        assert [each.text for each in came] == [f"re q{n}" for n in range(8)]
        assert bridge.requests == 8

    finished(evaluate(body, Model(slow)))
