"""Who has a say in what is done: a provider's safety checks, a server's policy, OpenAI's own client as the caller."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from computeragent.policy import RulesPolicyEngine
from computeragent.responses import create_responses_server
from computeragent.testing.models import ModelSimulator, parse_script
from loopback import loopback

from .conftest import Service
from .oracle import BUTTON, Oracle, oracle

pytestmark = pytest.mark.anyio
CHECKED = f"""
rules:
  - match: press
    turns:
      - computer: {{action: click, x: {BUTTON[0]}, y: {BUTTON[1]}}}
        safety_checks: [{{code: malicious_instructions, message: "Is this wanted?"}}]
      - Pressed.
"""
RULES = """
version: 1
default: allow
rules:
  - name: no-clicks
    effect: deny
    reason: nothing is pressed here
    match:
      tool: computer
      arguments: {action: click}
"""


def request(simulator: ModelSimulator, page: Oracle, **fields: Any) -> dict[str, Any]:
    return {
        "model": "openai/computer-use-preview",
        "input": "Please press it",
        "env": {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{simulator.url}/v1"},
        "computer_kwargs": {"provider_type": "browser", "display": "800x600", "page": page.url},
        **fields,
    }


async def test_where_nobody_can_answer_a_safety_check_the_action_is_not_done() -> None:
    async with (
        oracle() as page,
        ModelSimulator(parse_script(CHECKED)) as simulator,
        loopback(create_responses_server()) as url,
        httpx2.AsyncClient(base_url=url, timeout=50) as client,
    ):
        told = (await client.post("/responses", json=request(simulator, page))).json()["result"]
        assert (told["status"], told["incomplete_details"]) == ("incomplete", {"reason": "safety_check"})
        assert page.of("click") == []


@pytest.mark.parametrize(("decision", "status"), [("allow", "completed"), ("deny", "incomplete")])
async def test_a_person_answers_a_safety_check(decision: str, status: str) -> None:
    async with (
        oracle() as page,
        ModelSimulator(parse_script(CHECKED)) as simulator,
        loopback(create_responses_server()) as url,
        httpx2.AsyncClient(base_url=url, timeout=50) as client,
    ):
        made = (await client.post("/responses", json=request(simulator, page, background=True))).json()["result"]
        one = f"/responses/{made['id']}"
        async with asyncio.timeout(30):
            while not (waiting := (await client.get(one)).json().get("pending_approvals")):
                await asyncio.sleep(0.05)
        (asked,) = waiting
        assert "Is this wanted?" in asked["reason"]
        assert page.of("click") == []
        answer = await client.post(f"{one}/approvals/{asked['call_id']}", json={"decision": decision})
        assert answer.status_code == 200
        late = await client.post(f"{one}/approvals/{asked['call_id']}", json={"decision": "allow"})
        assert late.status_code == 400
        async with asyncio.timeout(30):
            while (told := (await client.get(one)).json())["status"] == "in_progress":
                await asyncio.sleep(0.05)
        assert told["status"] == status
        if decision == "allow":
            await page.until(lambda: page.of("click"))
            outputs = [item for item in told["output"] if item["type"] == "computer_call_output"]
            assert simulator.calls[-1].json["input"][-1]["acknowledged_safety_checks"]
            assert outputs
        else:
            assert page.of("click") == []


async def test_a_servers_policy_judges_every_action(service: Service, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    app = create_responses_server(policy=RulesPolicyEngine(rules))
    async with loopback(app) as url, httpx2.AsyncClient(base_url=url, timeout=50) as client:
        told = (await client.post("/responses", json=service.body("Please press it"))).json()["result"]
    (output,) = [item for item in told["output"] if item["type"] == "computer_call_output"]
    assert "nothing is pressed here" in output["error"]
    assert service.page.of("click") == []


async def test_openais_own_client_reads_answers_and_streams(service: Service) -> None:
    url = str(service.client.base_url)
    client = AsyncOpenAI(api_key="any", base_url=f"{url}v1" if url.endswith("/") else f"{url}/v1", max_retries=0)
    more = {name: value for name, value in service.body("").items() if name in {"env", "computer_kwargs"}}
    answer = await client.responses.create(
        model="anthropic/claude-sonnet-4-5", input="Please press it", extra_body=more
    )
    assert answer.output_text.endswith("Pressed.")
    assert [item.type for item in answer.output] == ["message", "computer_call", "computer_call_output", "message"]
    stream = await client.responses.create(
        model="anthropic/claude-sonnet-4-5", input="Tell me of a unicorn", stream=True, extra_body=more
    )
    kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    await client.close()
