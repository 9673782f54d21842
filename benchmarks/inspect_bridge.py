"""What the model bridge of Inspect agents adds to a call, beside Inspect's own bridge on the same sandbox (`local`).

An instant model (mockllm) is called in process, through our bridge, and through Inspect's, in one evaluation each. Real
HTTP, one client with its connection kept. Milliseconds, medians.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.agent import Agent, AgentState, BridgedToolsSpec, agent, sandbox_agent_bridge
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput, ModelUsage, get_model
from inspect_ai.tool import Tool, ToolInfo, ToolParams, tool
from inspect_ai.util import JSONSchema, sandbox

from computeragent.swe.bridge import agent_bridge

GOAL = 20.0
PROMPT = "You are a coding agent. " * 1_000
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS = [{"name": f"tool_{n}", "description": "Does something. " * 40, "input_schema": SCHEMA} for n in range(20)]
REQUEST = {
    "model": "inspect",
    "max_tokens": 100,
    "system": PROMPT,
    "tools": TOOLS,
    "messages": [{"role": "user", "content": "Say something."}],
}
Took = dict[str, list[float]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="a fifth of the calls")
    calls = 20 if arguments.parse_args().quick else 100
    took: Took = {}
    evaluate(in_process(took, calls))
    evaluate(ours(took, calls))
    opened = evaluate(inspects(took, 3))
    floor = statistics.median(took["in process"])
    print(f"{'ms a call':<44}{'median':>9}{'added':>9}")
    for name, times in took.items():
        added = "" if name == "in process" else f"{statistics.median(times) - floor:9.1f}"
        print(f"{name:<44}{statistics.median(times):9.1f}{added}")
    own, theirs = (statistics.median(took[name]) for name in ("our bridge", "Inspect's bridge"))
    print(f"added by ours: {own - floor:.1f} ms (goal {GOAL:.0f}); Inspect's takes {theirs / own:.0f} times as long")
    print(f"a whole evaluation of 4 calls through Inspect's bridge: {opened:.1f} s")


@tool
def look() -> Tool:
    async def execute() -> str:
        """Look around."""
        return "nothing"

    return execute


def in_process(took: Took, calls: int) -> Agent:
    @agent
    def probe() -> Agent:
        async def run(state: AgentState) -> AgentState:
            model = get_model()
            messages = [ChatMessageSystem(content=PROMPT), ChatMessageUser(content="Say something.")]
            parameters = ToolParams(properties={"command": JSONSchema(type="string")}, required=["command"])
            tools = [
                ToolInfo(name=each["name"], description=each["description"], parameters=parameters) for each in TOOLS
            ]
            await timed(took, "in process", calls, lambda: model.generate(messages, tools=tools))
            return state

        return run

    return probe()


def ours(took: Took, calls: int) -> Agent:
    @agent
    def probe() -> Agent:
        async def run(state: AgentState) -> AgentState:
            spec = BridgedToolsSpec(name="host", tools=[look()], require_proposal=False)
            async with agent_bridge(state, sandbox=sandbox(), bridged_tools=[spec]) as bridge, client() as http:
                key = {"x-api-key": bridge.api_key}
                await asked(took, "our bridge", calls, http, bridge.base_url, key)
                await asked(took, "our bridge, streamed", calls, http, bridge.base_url, key, stream=True)
                message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "look"}}
                url = bridge.mcp_servers[0].url
                await timed(
                    took,
                    "our bridge, a tool of the host",
                    calls,
                    lambda: http.post(url, json=message, headers=dict(bridge.mcp_servers[0].headers)),
                )
            return state

        return run

    return probe()


def inspects(took: Took, calls: int) -> Agent:
    @agent
    def probe() -> Agent:
        async def run(state: AgentState) -> AgentState:
            async with sandbox_agent_bridge(state, port=13900), client() as http:
                while True:
                    with contextlib.suppress(httpx2.HTTPError):
                        await http.get("http://127.0.0.1:13900/")
                        break
                await asked(took, "Inspect's bridge", calls, http, "http://127.0.0.1:13900", {})
            return state

        return run

    return probe()


def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False, timeout=60)


async def asked(
    took: Took, name: str, calls: int, http: httpx2.AsyncClient, base: str, key: dict[str, str], **more: Any
) -> None:
    body = json.dumps({**REQUEST, **more}).encode()
    headers = {"content-type": "application/json", **key}

    async def once() -> None:
        got = await http.post(f"{base}/v1/messages", content=body, headers=headers)
        got.raise_for_status()

    await timed(took, name, calls, once)


async def timed(took: Took, name: str, calls: int, once: Callable[[], Awaitable[Any]]) -> None:
    await once()
    times = took[name] = []
    for _ in range(calls):
        start = time.perf_counter()
        await once()
        times.append(1_000 * (time.perf_counter() - start))


def evaluate(solver: Agent) -> float:
    """Seconds that the evaluation took."""

    def answer(*_: object) -> ModelOutput:
        output = ModelOutput.from_content("mockllm/model", "Something.")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        [log] = inspect_eval(
            Task(dataset=[Sample(input="Say something.")], solver=solver, sandbox="local"),
            model=get_model("mockllm/model", custom_outputs=answer, memoize=False),
            display="none",
            log_dir=tempfile.mkdtemp(),
        )
    assert log.status == "success", log.error
    return time.perf_counter() - start


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
