"""What goes wrong on a bridge: who is told, in which words, and what it means for the sample."""

from __future__ import annotations

import asyncio
import json

import anthropic
import anyio
import httpx2
import openai
import pytest
from google.genai import errors as gemini_errors
from inspect_ai.agent import BridgedToolsSpec
from inspect_ai.approval import Approval, ApprovalPolicy, approver
from inspect_ai.model import GenerateInput, ModelUsage
from inspect_ai.tool import Tool, tool

from computeragent.swe.bridge import server

from .clients import WIRES, Asking, ask, client_of, post
from .inspecting import Model, add, called, evaluate, events, finished, said

wires = pytest.mark.parametrize("wire", WIRES)
PATHS = {
    "anthropic": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/inspect:generateContent",
}
ERRORS = (anthropic.APIStatusError, openai.APIStatusError, gemini_errors.APIError)


class ProviderError(Exception):
    """What a provider's client raises: it has a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status


def status(error) -> int:
    return error.code if isinstance(error, gemini_errors.APIError) else error.status_code


@wires
def test_a_failure_of_the_provider_has_its_status_and_the_sample_goes_on(wire):
    model = Model(ProviderError(400, "the prompt is too long"), "fine")
    seen = []

    async def body(bridge):
        with pytest.raises(ERRORS) as raised:
            await ask(wire, bridge, Asking(stream=True))
        seen.append((status(raised.value), str(raised.value)))
        assert isinstance(bridge.last_error, ProviderError)
        assert bridge.failure is None
        assert (await ask(wire, bridge, Asking())).text == "fine"

    finished(evaluate(body, model))
    [(code, message)] = seen
    assert code == 400
    assert "the prompt is too long" in message


@wires
def test_what_cannot_be_read_is_a_bad_request(wire):
    async def body(bridge):
        for content in (b"{", b"[]", b"\xff\xfe", b'{"model": 7}', b'{"messages": 1, "input": 1, "contents": 1}'):
            got = await post(bridge, PATHS[wire], content)
            assert got.status_code == 400, content
            assert got.json()["error"]["message"]
        assert bridge.requests == 0

    finished(evaluate(body))


def test_what_is_nested_without_end_is_a_bad_request_and_the_log_is_written():
    def nested(levels: int) -> bytes:
        call = {"type": "tool_use", "id": "c", "name": "n", "input": {"x": "@"}}
        tool = {"name": "t", "input_schema": {"properties": {"x": {"default": "@"}}}}
        asked = {"model": "x", "max_tokens": 9, "tools": [tool], "messages": [{"role": "assistant", "content": [call]}]}
        return json.dumps(asked).replace('"@"', "[" * levels + "]" * levels).encode()

    async def body(bridge):
        codes = [(await post(bridge, PATHS["anthropic"], nested(levels))).status_code for levels in (20, 300, 5_000)]
        assert codes == [200, 400, 400]

    finished(evaluate(body))


@wires
def test_the_key_is_asked_for(wire):
    async def body(bridge):
        async with client_of(wire, bridge, key="sk-another") as client:
            calls = {
                "anthropic": lambda: client.messages.create(model="x", max_tokens=1, messages=[]),
                "chat": lambda: client.chat.completions.create(model="x", messages=[]),
                "responses": lambda: client.responses.create(model="x", input="hi"),
                "gemini": lambda: client.models.generate_content(model="x", contents="hi"),
            }
            with pytest.raises(ERRORS) as raised:
                await calls[wire]()
        assert status(raised.value) in {400, 401}
        assert bridge.api_key not in str(raised.value)
        assert bridge.requests == 0

    finished(evaluate(body))


def test_bridges_have_keys_of_their_own():
    keys = []

    async def body(bridge):
        keys.append(bridge.api_key)
        assert bridge.api_key not in repr(bridge)

    finished(evaluate(body, bridge={"bridged_tools": [add()]}))
    finished(evaluate(body, bridge={"bridged_tools": [add()]}))
    assert len({*keys}) == 2
    assert all(len(key) > 30 for key in keys)


def test_a_path_that_nothing_answers_on():
    async def body(bridge):
        assert (await post(bridge, "/v1/embeddings", {})).status_code == 404
        async with httpx2.AsyncClient(trust_env=False) as client:
            got = await client.get(f"{bridge.base_url}/v1/messages", headers={"x-api-key": bridge.api_key})
        assert got.status_code == 405

    finished(evaluate(body))


def test_a_limit_ends_the_sample_and_the_agent_gets_no_second_try():
    model = Model(lambda *_: said("ok", ModelUsage(input_tokens=60, output_tokens=60, total_tokens=120)))
    statuses, reached = [], []

    async def body(bridge):
        for _ in range(3):
            got = await post(bridge, PATHS["anthropic"], {"model": "x", "max_tokens": 9, "messages": []})
            statuses.append(got.status_code)
        await asyncio.sleep(30)
        reached.append("the end")

    log = evaluate(body, model, task={"token_limit": 100})
    sample = finished(log)
    assert sample.limit.type == "token"
    assert statuses in ([], [400], [400, 400], [400, 400, 400])
    assert reached == []
    assert len(model.asked) == 1


def test_a_limit_of_messages_ends_the_sample_as_one():
    model = Model(lambda *_: said("ok", ModelUsage(input_tokens=60, output_tokens=60, total_tokens=120)))

    async def body(bridge):
        await ask("anthropic", bridge, Asking())

    log = evaluate(body, model, task={"message_limit": 1})
    assert finished(log).limit.type == "message"


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_that_no_provider_told_of_ends_the_sample(stream):
    model = Model(RuntimeError("custom_outputs ran out"))
    reached = []

    async def body(bridge):
        got = await post(bridge, PATHS["chat"], {"model": "x", "messages": [], "stream": stream})
        assert got.status_code == 400, "nothing that an agent tries again"
        await asyncio.sleep(30)
        reached.append("the end")

    log = evaluate(body, model)
    assert log.status == "error"
    assert "custom_outputs ran out" in log.error.message
    assert reached == []
    assert len(model.asked) == 1


def test_the_failure_counts_and_not_what_the_agent_makes_of_it():
    async def body(bridge):
        await post(bridge, PATHS["chat"], {"model": "x", "messages": []})
        raise ValueError("the program ended with status 1")

    log = evaluate(body, Model(RuntimeError("the real reason")))
    assert log.status == "error"
    assert "the real reason" in log.error.message


@pytest.mark.parametrize(
    ("error", "told"),
    [(ZeroDivisionError("in the filter"), "in the filter"), (TimeoutError("5 s"), "the filter did not end in time: 5")],
)
def test_a_filter_that_fails_ends_the_sample(error, told):
    async def check(model, messages, tools, choice, config):
        raise error

    async def body(bridge):
        await post(bridge, PATHS["responses"], {"model": "x", "input": "hi"})
        await asyncio.sleep(30)

    model = Model("never")
    log = evaluate(body, model, bridge={"filter": check})
    assert log.status == "error"
    assert told in log.error.message
    assert model.asked == []


def test_a_filter_may_answer_or_change_what_is_asked():
    seen = []

    async def check(model, messages, tools, choice, config):
        seen.append((str(model), messages[-1].text, [tool.name for tool in tools]))
        if messages[-1].text == "answer me":
            return said("from the filter")
        changed = [messages[-1].model_copy(update={"content": "changed"})]
        return GenerateInput(changed, [], None, config)

    async def older(name: str, messages, tools, choice, config):
        seen.append(name)

    model = Model("from the model")

    async def body(bridge):
        assert (await ask("chat", bridge, Asking("answer me", tools=("add",)))).text == "from the filter"
        assert (await ask("chat", bridge, Asking("change me", tools=("add",)))).text == "from the model"

    finished(evaluate(body, model, bridge={"filter": check}))
    assert seen == [("mockllm/model", "answer me", ["add"]), ("mockllm/model", "change me", ["add"])]
    assert [(asked.texts, asked.tools) for asked in model.asked] == [([("user", "changed")], [])]

    async def ask_once(bridge):
        await ask("chat", bridge, Asking())

    finished(evaluate(ask_once, bridge={"filter": older}))
    assert seen[-1] == "model"


def refusal():
    output = said("")
    output.choices[0].stop_reason = "content_filter"
    return output


def test_a_refusal_is_asked_again_as_often_as_is_said():
    model = Model(refusal(), refusal(), "after all", refusal(), refusal(), refusal(), "too late")

    async def body(bridge):
        assert (await ask("anthropic", bridge, Asking())).text == "after all"
        assert not bridge.refused
        came = await ask("anthropic", bridge, Asking())
        assert (came.text, came.stop) == ("", "refusal")
        assert bridge.refused

    finished(evaluate(body, model, bridge={"retry_refusals": 2}))
    assert len(model.asked) == 6


def test_an_agent_that_is_gone_ends_its_call_and_nothing_of_it_is_kept():
    ended = []

    async def slow(*_):
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    async def body(bridge):
        for stream in (False, True):
            request = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(post(bridge, PATHS["anthropic"], request), 0.3)
        async with asyncio.timeout(30):
            while len(ended) < 2:
                await asyncio.sleep(0.05)
        assert bridge.failure is None
        assert bridge.state.output.empty

    finished(evaluate(body, Model(slow)))


def test_calls_under_way_end_with_the_bridge():
    ended, started = [], asyncio.Event()

    async def slow(*_):
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    async def body(bridge):
        left = asyncio.create_task(post(bridge, PATHS["chat"], {"model": "x", "messages": []}))
        await started.wait()
        body.left = left

    finished(evaluate(body, Model(slow)))
    assert ended == ["cancelled"]


def test_nothing_is_asked_any_more_while_the_bridge_closes():
    started, closing = asyncio.Event(), asyncio.Event()

    @tool
    def tidy() -> Tool:
        async def execute() -> str:
            """Take time to end."""
            started.set()
            try:
                await asyncio.sleep(30)
            finally:
                closing.set()
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(0.5)
            return ""

        return execute

    async def again(bridge):
        await closing.wait()
        with pytest.raises(httpx2.TransportError):
            await post(bridge, PATHS["chat"], {"model": "x", "messages": []})

    async def body(bridge):
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tidy"}}
        body.tasks = [asyncio.create_task(post(bridge, "/mcp/tools", message)), asyncio.create_task(again(bridge))]
        await started.wait()

    model = Model("never")
    spec = BridgedToolsSpec(name="tools", tools=[tidy()], require_proposal=False)
    finished(evaluate(body, model, bridge={"bridged_tools": [spec]}))
    assert model.asked == []


def test_tools_that_are_out_of_reach_are_an_error_and_no_ordinary_end():
    async def never(timeout: float) -> None:
        with anyio.fail_after(timeout):
            await anyio.sleep_forever()

    async def body(bridge):
        bridge.probe = never
        await bridge.ready(0.01)

    log = evaluate(body)
    assert log.status == "error"
    assert "could not be reached from the sandbox within 0.01 s" in log.error.message


@wires
def test_a_slow_model_keeps_the_stream_alive(wire, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    monkeypatch.setattr(server, "PULSE", 0.05)

    async def slow(*_):
        await asyncio.sleep(0.5)
        return said("worth it")

    async def body(bridge):
        assert (await ask(wire, bridge, Asking(stream=True))).text == "worth it"
        path = PATHS[wire].replace(":generateContent", ":streamGenerateContent?alt=sse")
        request = {"model": "x", "stream": True, "max_tokens": 9, "messages": [], "input": "", "contents": []}
        async with (
            httpx2.AsyncClient(trust_env=False) as client,
            client.stream(
                "POST", bridge.base_url + path, json=request, headers={"authorization": f"Bearer {bridge.api_key}"}
            ) as got,
        ):
            chunks = [chunk async for chunk in got.aiter_raw()]
        assert len(chunks) >= 5, "something came all the time"
        assert b"worth it" in chunks[-1]

    finished(evaluate(body, Model(slow)))


@wires
def test_a_stream_that_has_begun_tells_of_a_failure_in_its_own_words(wire, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)

    async def slow(*_):
        await asyncio.sleep(0.3)
        raise ProviderError(529, "too busy")

    async def body(bridge):
        path = PATHS[wire].replace(":generateContent", ":streamGenerateContent?alt=sse")
        request = {"model": "x", "stream": True, "max_tokens": 9, "messages": [], "input": "", "contents": []}
        got = await post(bridge, path, request)
        assert got.status_code == 200
        last = json.loads(got.text.strip().rpartition("data: ")[2].splitlines()[0])
        assert "too busy" in json.dumps(last)

    finished(evaluate(body, Model(slow)))


def test_a_rejected_call_is_told_to_the_model_and_never_reaches_the_agent():
    model = Model(called(("delete", {"x": 1}), ("look", {})), called(("look", {})))

    @approver
    def guard():
        async def approve(message, call, view, history):
            if call.function == "delete":
                return Approval(decision="reject", explanation="never delete")
            return Approval(decision="approve")

        return approve

    async def body(bridge):
        came = await ask("anthropic", bridge, Asking(tools=("delete", "look")))
        assert [name for _, name, _ in came.calls] == ["look"]

    sample = finished(evaluate(body, model, task={"approval": [ApprovalPolicy(guard(), "*")]}))
    told = model.asked[1].messages[-2:]
    assert told[0].error.message == "never delete"
    assert "not run, because another one" in told[1].error.message
    decisions = [event.decision for event in events(sample, "approval")]
    assert decisions == ["reject", "approve"]


def test_an_approver_may_change_arguments_or_end_the_sample():
    @approver
    def editor():
        async def approve(message, call, view, history):
            changed = call.__class__(id=call.id, function=call.function, arguments={"x": 9})
            return Approval(decision="modify", modified=changed)

        return approve

    @approver
    def judge():
        async def approve(message, call, view, history):
            return Approval(decision="terminate", explanation="enough")

        return approve

    async def body(bridge):
        came = await ask("anthropic", bridge, Asking(tools=("look",)))
        assert came.calls[0][2] == {"x": 9}

    model = Model(called(("look", {"x": 1})))
    finished(evaluate(body, model, bridge={"approval": [ApprovalPolicy(editor(), "*")]}))
    sample = finished(evaluate(body, model, bridge={"approval": [ApprovalPolicy(judge(), "*")]}))
    assert (sample.limit.type, "enough" in sample.limit.reason) == ("operator", True)


def test_answers_that_are_rejected_for_ever_end_the_sample():
    @approver
    def never():
        async def approve(message, call, view, history):
            return Approval(decision="reject")

        return approve

    async def body(bridge):
        await ask("anthropic", bridge, Asking(tools=("look",)))

    model = Model(called(("look", {})))
    sample = finished(evaluate(body, model, bridge={"approval": [ApprovalPolicy(never(), "*")]}))
    assert sample.limit.type == "operator"
    assert len(model.asked) == 3


def test_a_tool_of_the_host_is_approved_by_its_own_name_where_it_runs():
    asked = []

    @approver
    def only_small():
        async def approve(message, call, view, history):
            asked.append((call.function, call.arguments["x"]))
            return Approval(decision="approve" if call.arguments["x"] < 5 else "reject", explanation="too large")

        return approve

    async def body(bridge):
        for x in (1, 7):
            model._outputs[:] = [called(("mcp__tools__add", {"x": x, "y": 2}))]
            await ask("anthropic", bridge, Asking(tools=("mcp__tools__add",)))
            params = {"name": "add", "arguments": {"x": x, "y": 2}}
            got = await post(
                bridge, "/mcp/tools", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            )
            told.append(got.json()["result"]["content"][-1]["text"])

    told, model = [], Model("")
    policies = [ApprovalPolicy(only_small(), "add")]
    finished(evaluate(body, model, bridge={"bridged_tools": [add()]}, task={"approval": policies}))
    assert asked == [("add", 1), ("add", 7)]
    assert told == ["3", "too large"]


def test_a_model_that_is_too_late_is_a_failure_and_no_ordinary_end():
    async def body(bridge):
        await ask("anthropic", bridge, Asking())

    log = evaluate(body, Model(TimeoutError("no answer for 600 s")))
    assert log.status == "error"
    assert "did not answer in time" in log.error.message
