"""Tools of the host over MCP, called by the real client of the protocol, and by hand where it is too well-behaved."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx2
import mcp
import pytest
from inspect_ai.agent import BridgedToolsSpec
from inspect_ai.model import ContentImage, ContentText
from inspect_ai.tool import Tool, ToolDef, tool
from inspect_ai.util import store
from mcp.client.streamable_http import streamable_http_client

from computeragent.errors import ValidationError
from computeragent.swe.bridge import server
from computeragent.swe.bridge.host_tools import HostTools

from .clients import PIXEL, Asking, ask, post
from .inspecting import Model, add, called, evaluate, events, finished, refuse

SERVERS = ("calc", "my_calc")
OPEN = {"bridged_tools": [BridgedToolsSpec(name="calc", tools=[add(), refuse()], require_proposal=False)]}


@asynccontextmanager
async def session(bridge):
    found = bridge.mcp_servers[0]
    async with (
        httpx2.AsyncClient(headers=dict(found.headers), trust_env=False) as client,
        streamable_http_client(found.url, http_client=client) as streams,
        mcp.ClientSession(*streams[:2]) as opened,
    ):
        await opened.initialize()
        yield opened


async def call(bridge, name, arguments, **headers):
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return (await post(bridge, "/mcp/calc", message, **headers)).json()


def test_a_tool_is_listed_and_run_in_the_sample():
    @tool
    def remember() -> Tool:
        async def execute(what: str) -> str:
            """Keep something in the sample's store.

            Args:
                what: What to keep.
            """
            store().set("kept", what)
            return "kept"

        return execute

    async def body(bridge):
        await bridge.ready()
        async with session(bridge) as client:
            [listed] = (await client.list_tools()).tools
            assert (listed.name, listed.description) == ("remember", "Keep something in the sample's store.")
            assert listed.input_schema["required"] == ["what"]
            done = await client.call_tool("remember", {"what": "the key"})
            assert (done.content[0].text, done.is_error) == ("kept", False)
        assert store().get("kept") == "the key"

    spec = BridgedToolsSpec(name="notes", tools=[remember()], require_proposal=False)
    sample = finished(evaluate(body, bridge={"bridged_tools": [spec]}))
    [event] = events(sample, "tool")
    assert (event.function, event.arguments, event.result) == ("remember", {"what": "the key"}, "kept")
    assert sample.store["kept"] == "the key"


def test_a_call_runs_only_where_the_model_made_it_and_only_once():
    model = Model(called(("mcp__tools__add", {"x": 1, "y": 2})))

    async def body(bridge):
        assert bridge.missing_tools == ("tools/add",)
        async with session(bridge) as client:
            before = await client.call_tool("add", {"x": 1, "y": 2})
            await ask("anthropic", bridge, Asking(tools=("mcp__tools__add",)))
            other = await client.call_tool("add", {"x": 1, "y": 3})
            same = await client.call_tool("add", {"x": 1.0, "y": 2})
            again = await client.call_tool("add", {"x": 1, "y": 2})
        assert [each.is_error for each in (before, other, same, again)] == [True, True, False, True]
        assert same.content[0].text == "3"
        assert "only for a call of the model" in again.content[0].text
        assert bridge.missing_tools == ()

    sample = finished(evaluate(body, model, bridge={"bridged_tools": [add()]}))
    [event] = events(sample, "tool")
    assert event.id == "call_1", "the log pairs it with what the model proposed"


@pytest.mark.parametrize(("name", "run"), [("mcp__my_calc__add", ["my_calc"]), ("ad1f", ["calc"])])
def test_a_call_of_a_tool_that_several_servers_have_runs_once(name, run):
    @tool(name="add")
    def other() -> Tool:
        async def execute(x: int, y: int) -> str:
            """Add two numbers, and say so at such a length that it can be recognised.

            Args:
                x: The first.
                y: The second.
            """
            return str(x + y)

        return execute

    model = Model(called((name, {"x": 1, "y": 2})))

    async def body(bridge):
        offered = {"name": name, "description": text, "input_schema": {"type": "object"}}
        asked = {"model": "x", "max_tokens": 9, "messages": [], "tools": [offered]}
        assert (await post(bridge, "/v1/messages", asked)).status_code == 200
        params = {"name": "add", "arguments": {"x": 1, "y": 2}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        for each in SERVERS:
            if not (await post(bridge, f"/mcp/{each}", message)).json()["result"]["isError"]:
                ran.append(each)

    ran, text = [], ToolDef(other()).description
    finished(evaluate(body, model, bridge={"bridged_tools": [BridgedToolsSpec(n, [other()]) for n in SERVERS]}))
    assert ran == run


def test_what_goes_wrong_in_a_tool_is_told_to_the_agent():
    async def body(bridge):
        async with session(bridge) as client:
            failed = await client.call_tool("refuse", {"why": "rain"})
            wrong = await client.call_tool("add", {"x": "one", "y": 2})
            with pytest.raises(mcp.MCPError, match="there is no tool 'subtract'"):
                await client.call_tool("subtract", {})
        assert (failed.is_error, failed.content[0].text) == (True, "not today: rain")
        assert wrong.is_error
        assert "'one'" in wrong.content[0].text

    sample = finished(evaluate(body, bridge=OPEN))
    assert [event.error.type for event in events(sample, "tool")] == ["unknown", "parsing"]


def test_text_and_images_of_a_tool_come_as_such():
    @tool
    def show() -> Tool:
        async def execute() -> list[ContentText | ContentImage]:
            """Show a pixel."""
            return [ContentText(text="here"), ContentImage(image=f"data:image/png;base64,{PIXEL}")]

        return execute

    async def body(bridge):
        async with session(bridge) as client:
            text, image = (await client.call_tool("show", {})).content
        assert (text.text, image.data, image.mime_type) == ("here", PIXEL, "image/png")

    spec = BridgedToolsSpec(name="eyes", tools=[show()], require_proposal=False)
    finished(evaluate(body, bridge={"bridged_tools": [spec]}))


def test_a_number_is_no_structured_content_for_gemini_cli():
    async def body(bridge):
        assert "structuredContent" not in (await call(bridge, "add", {"x": 1, "y": 2}))["result"]
        info = {"clientInfo": {"name": "gemini-cli-mcp-client", "version": "0.61.0"}}
        begun = await post(bridge, "/mcp/calc", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info})
        headers = {"mcp-session-id": begun.headers["mcp-session-id"]}
        told = (await call(bridge, "add", {"x": 1, "y": 2}, **headers))["result"]
        assert told["structuredContent"] == {"result": 3}
        assert told["content"] == [{"type": "text", "text": "3"}]

    finished(evaluate(body, bridge=OPEN))


def test_the_protocol_by_hand():
    async def send(bridge, content, **headers):
        return await post(bridge, "/mcp/calc", content, **headers)

    async def body(bridge):
        ping = {"jsonrpc": "2.0", "id": "a", "method": "ping"}
        assert (await send(bridge, ping)).json() == {"jsonrpc": "2.0", "id": "a", "result": {}}
        both = [ping, {"jsonrpc": "2.0", "method": "notifications/initialized"}]
        assert [each["id"] for each in (await send(bridge, both)).json()] == ["a"]
        told = await send(bridge, both[1])
        assert (told.status_code, told.content) == (202, b"")
        for content, code in [
            (b"{", -32700),
            (b"7", -32600),
            ({"id": 1, "method": "ping"}, -32600),
            ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, -32601),
            ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}, -32602),
            ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": 1}}, -32602),
        ]:
            assert (await send(bridge, content)).json()["error"]["code"] == code
        assert (await send(bridge, ping, authorization="Bearer wrong")).status_code == 401
        assert (await post(bridge, "/mcp/nobody", ping)).status_code == 404
        async with httpx2.AsyncClient(trust_env=False, headers=dict(bridge.mcp_servers[0].headers)) as client:
            assert (await client.get(bridge.mcp_servers[0].url)).status_code == 405
        older = {"protocolVersion": "2025-03-26", "clientInfo": {"name": "x", "version": "1"}, "capabilities": {}}
        begun = (await send(bridge, {**ping, "method": "initialize", "params": older})).json()["result"]
        assert begun["protocolVersion"] == "2025-03-26"
        newer = {**older, "protocolVersion": "2099-01-01"}
        begun = (await send(bridge, {**ping, "method": "initialize", "params": newer})).json()["result"]
        assert begun["protocolVersion"] == "2025-11-25"

    finished(evaluate(body, bridge=OPEN))


def test_odd_arguments_are_no_fault_of_the_tool():
    async def body(bridge):
        for levels, code in ((5_000, -32700), (300, -32602)):
            deep = json.dumps(message("@")).replace('"@"', "[" * levels + "]" * levels)
            assert (await post(bridge, "/mcp/calc", deep.encode())).json()["error"]["code"] == code
        told = (await post(bridge, "/mcp/calc", json.dumps(message("cut \ud83d")).encode())).json()["result"]
        assert told["content"][0]["text"] == "not today: cut \ufffd"

    def message(why):
        params = {"name": "refuse", "arguments": {"why": why}}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}

    finished(evaluate(body, bridge=OPEN))


def test_a_tool_that_is_broken_ends_the_sample():
    @tool
    def broken() -> Tool:
        async def execute() -> str:
            """Break."""
            raise KeyError("a bug of the evaluation")

        return execute

    reached = []

    async def body(bridge):
        await post(
            bridge, "/mcp/tools", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "broken"}}
        )
        await asyncio.sleep(30)
        reached.append("the end")

    spec = BridgedToolsSpec(name="tools", tools=[broken()], require_proposal=False)
    log = evaluate(body, bridge={"bridged_tools": [spec]})
    assert log.status == "error"
    assert "a bug of the evaluation" in log.error.message
    assert reached == []


def test_a_client_that_leaves_ends_its_call():
    ended = []

    @tool
    def slow() -> Tool:
        async def execute() -> str:
            """Take long."""
            try:
                await asyncio.sleep(30)
            finally:
                ended.append("cancelled")
            return "late"

        return execute

    async def body(bridge):
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow"}}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post(bridge, "/mcp/tools", message), 0.3)
        async with asyncio.timeout(30):
            while not ended:
                await asyncio.sleep(0.05)

    spec = BridgedToolsSpec(name="tools", tools=[slow()], require_proposal=False)
    finished(evaluate(body, bridge={"bridged_tools": [spec]}))


def test_a_slow_tool_keeps_its_client_waiting_with_signs_of_life(monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    monkeypatch.setattr(server, "PULSE", 0.05)

    @tool
    def slow() -> Tool:
        async def execute() -> str:
            """Take its time."""
            await asyncio.sleep(0.4)
            return "at last"

        return execute

    async def body(bridge):
        async with session(bridge) as client:
            assert (await client.call_tool("slow", {})).content[0].text == "at last"
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow"}}
        got = await post(bridge, "/mcp/tools", message, accept="application/json, text/event-stream")
        assert got.headers["content-type"].startswith("text/event-stream")
        assert got.text.count(": alive\n\n") >= 2
        assert got.text.endswith("\n\n")

    spec = BridgedToolsSpec(name="tools", tools=[slow()], require_proposal=False)
    finished(evaluate(body, bridge={"bridged_tools": [spec]}))


def test_names_of_servers_are_checked():
    with pytest.raises(ValidationError, match="'calc' is there twice"):
        HostTools.of([BridgedToolsSpec("calc", [add()]), BridgedToolsSpec("calc", [refuse()])])
    with pytest.raises(ValidationError, match="no name for a server"):
        HostTools.of([BridgedToolsSpec("a/b", [add()])])
    assert [*HostTools.of([add(), refuse()]).servers["tools"].tools] == ["add", "refuse"]
