"""The real Claude CLI against the simulator: what the scripts promise is what the agent lives through."""

import anyio
import pytest
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    UserMessage,
    query,
)

from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

SCRIPT = parse_script(
    r"""
rules:
  - match: write (\w+) saying (\w+)
    turns:
      - {text: Writing., tool: Write, input: {file_path: $1.txt, content: $2}}
      - {tool: Bash, input: {command: cat $1.txt, description: show it}}
      - {text: "The file says:", echo_tool_results: true}
  - match: think about (\w+)
    reply: {thinking: I wonder about $1., text: I thought about $1.}
  - match: when busy
    reply: {text: At last., error: {status: 529, message: Overloaded, times: 1, retry_after: 0}}
  - match: on a bad line
    reply: {text: All of the answer arrived., chunk_size: 4, drop_after: 5}
  - match: with a hiccup
    reply: {text: It went well., sse_error: {after: 4}}
"""
)


@pytest.fixture
async def sim(anyio_backend):
    async with ModelSimulator(SCRIPT) as simulator:
        yield simulator


def options(sim, folder, **more):
    environment = {
        **sim.claude_environment(folder / ".claude"),
        "HOME": str(folder),  # else the CLI's shell runs whatever the developer's login files do
        "IS_SANDBOX": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
        **more.pop("env", {}),
    }
    defaults = {"permission_mode": "bypassPermissions", "setting_sources": [], "max_turns": 8}
    return ClaudeAgentOptions(cwd=folder, env=environment, **{**defaults, **more})


async def run(prompt, chosen):
    return [message async for message in query(prompt=prompt, options=chosen)]


def blocks(messages, kind):
    return [
        block
        for message in messages
        if isinstance(message, (AssistantMessage, UserMessage)) and isinstance(message.content, list)
        for block in message.content
        if isinstance(block, kind)
    ]


async def test_tools_run_and_their_results_come_back(sim, tmp_path):
    messages = await run("Please write note saying hello", options(sim, tmp_path))
    assert (tmp_path / "note.txt").read_text() == "hello"
    assert messages[-1].result == "The file says:\nhello"
    assert messages[-1].usage["input_tokens"] > 0
    assert len(blocks(messages, ToolResultBlock)) == 2
    assert [result.text for result in sim.requests[-1].tool_results][-1] == "hello"
    assert len(sim.requests) == 3


async def test_thinking_and_text_and_a_second_turn_in_one_client(sim, tmp_path):
    async with ClaudeSDKClient(options(sim, tmp_path)) as client:
        await client.query("think about rain")
        messages = [message async for message in client.receive_response()]
        await client.query("anything else?")
        messages += [message async for message in client.receive_response()]
    assert [block.thinking for block in blocks(messages, ThinkingBlock)] == ["I wonder about rain."]
    assert [block.text for block in blocks(messages, TextBlock)] == [
        "I thought about rain.",
        "You said: anything else?",
    ]
    assert "I thought about rain." in sim.requests[-1].text


async def test_an_overloaded_model_is_asked_again(sim, tmp_path):
    messages = await run("when busy", options(sim, tmp_path))
    assert messages[-1].result == "At last."
    assert [request.status for request in sim.requests] == [529, 200]
    assert "api_retry" in [message.subtype for message in messages if isinstance(message, SystemMessage)]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("on a bad line", "All of the answer arrived."), ("with a hiccup", "It went well.")],
)
async def test_a_broken_stream_is_recovered(sim, tmp_path, prompt, answer):
    messages = await run(prompt, options(sim, tmp_path))
    result = messages[-1]
    assert isinstance(result, ResultMessage)
    assert (result.is_error, result.result) == (False, answer)
    assert len(sim.requests) > 1


async def test_bedrock_carries_a_turn_with_tools(sim, tmp_path):
    bedrock = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": sim.url,
        "AWS_REGION": "us-east-1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
    }
    messages = await run("write cloud saying rain", options(sim, tmp_path, env=bedrock))
    assert messages[-1].result == "The file says:\nrain"
    assert {request.dialect for request in sim.calls} == {"bedrock"}
    assert sim.calls[-1].path.endswith("/invoke-with-response-stream")


async def test_two_sessions_at_once_stay_apart(sim, tmp_path):
    results = {}

    async def session(word):
        folder = tmp_path / word
        folder.mkdir()
        results[word] = (await run(f"write {word} saying {word}", options(sim, folder)))[-1].result

    async with anyio.create_task_group() as group:
        for word in ("one", "two"):
            group.start_soon(session, word)
    assert results == {word: f"The file says:\n{word}" for word in ("one", "two")}
