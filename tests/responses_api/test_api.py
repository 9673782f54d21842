"""What a caller of `/responses` is told: envelopes, errors, modes, what goes on from what, who may."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

import httpx2
import pytest
from openai.types.responses import Response as OpenAIResponse

from computeragent.responses import create_responses_server
from computeragent.server.auth import bearer
from loopback import loopback

from .conftest import Service

pytestmark = pytest.mark.anyio
IMAGE = "https://upload.example.com/wikipedia/boardwalk.jpg"


async def told(service: Service, body: Any, status: int) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = await service.client.post("/responses", content=content)
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert found["success"] is False
    return found


async def test_half_of_a_surrogate_pair_is_no_reason_to_refuse(service: Service) -> None:
    body = json.dumps(service.body("Tell me of a unicorn \ud83d", computer_kwargs={}))
    answer = await service.client.post("/responses", content=body)
    assert answer.json()["success"], answer.text


async def test_a_question_is_answered_without_a_computer(service: Service) -> None:
    result = await service.ask("Tell me a three sentence bedtime story about a unicorn.")
    assert result["output_text"] == "There was a unicorn. It was fast. It slept."
    assert service.page.seen == []


async def test_a_picture_by_its_address_goes_to_the_provider_as_it_is(service: Service) -> None:
    parts = [{"type": "input_text", "text": "what is in this image?"}, {"type": "input_image", "image_url": IMAGE}]
    for model in ("anthropic", "openai", "chat"):
        result = await service.ask([{"role": "user", "content": parts}], model)
        assert result["output_text"] == "A boardwalk."
        assert IMAGE in json.dumps(service.simulator.calls[-1].json)


async def test_parts_in_the_words_of_chat_completions_are_understood(service: Service) -> None:
    parts = [{"type": "text", "text": "what is in this image?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    assert (await service.ask([{"role": "user", "content": parts}]))["output_text"] == "A boardwalk."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{not json", "Invalid JSON in request body"),
        (b"\xff\xfe", "Invalid JSON in request body"),
        ([1, 2], "Invalid JSON in request body"),
        ({"input": "x"}, "Model is required"),
        ({"model": "anthropic/claude-sonnet-4-5"}, "Input is required"),
        ({"model": "anthropic/claude-sonnet-4-5", "input": ""}, "Input is required"),
        ({"model": "anthropic/claude-sonnet-4-5", "input": 5}, "Input must be string or list of messages"),
        ({"model": "anthropic/claude-sonnet-4-5", "input": [5]}, "Invalid request"),
        ({"model": "anthropic/claude-sonnet-4-5", "input": "x", "temperature": 1}, "Invalid request"),
        ({"model": 7, "input": "x"}, "Invalid request"),
    ],
    ids=["json", "bytes", "list", "no model", "no input", "empty", "number", "list of numbers", "unknown", "model"],
)
async def test_what_is_no_request_is_told_so(service: Service, body: Any, message: str) -> None:
    found = await told(service, body, 400)
    assert message in found["error"]
    assert found["model"] == (body["model"] if isinstance(body, dict) and isinstance(body.get("model"), str) else None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "nobody/knows"}, "UNKNOWN_MODEL"),
        ({"model": "scripted/../../etc/passwd"}, "PATH_ESCAPE"),
        ({"model": "human/human+scripted//etc/passwd"}, "UNKNOWN_MODEL"),
        ({"env": {"PATH": "/tmp"}}, "VALIDATION"),
        ({"env": {"ANTHROPIC_BASE_URL": "file:///etc"}}, "UNKNOWN_MODEL"),
        ({"agent_kwargs": {"callbacks": []}}, "VALIDATION"),
        ({"agent_kwargs": {"safe_trajectory": True}}, "VALIDATION"),
        ({"agent_kwargs": {"telemetry_enabled": False}}, "VALIDATION"),
        ({"agent_kwargs": {"max_trajectory_budget": "much"}}, "VALIDATION"),
        ({"agent_kwargs": {"trajectory_dir": "/etc"}}, "VALIDATION"),
        ({"agent_kwargs": {"trajectory_dir": "a\0b"}}, "VALIDATION"),
        ({"agent_kwargs": {"instructions": {"say": "hello"}}}, "VALIDATION"),
        ({"agent_kwargs": {"max_retries": 1000}}, "VALIDATION"),
        ({"max_steps": 0}, "VALIDATION"),
        ({"deadline": -1}, "VALIDATION"),
        ({"computer_kwargs": {"page": "--renderer-cmd-prefix=/bin/sh"}}, "VALIDATION"),
        ({"computer_kwargs": {"page": "file:///etc/passwd"}}, "VALIDATION"),
        ({"computer_kwargs": {"os_type": "beos"}}, "COMPUTER_UNSUPPORTED"),
        ({"computer_kwargs": {"provider_type": "docker"}}, "COMPUTER_UNSUPPORTED"),
        ({"computer_kwargs": {"kind": "x11", "display": ":0"}}, "COMPUTER_UNSUPPORTED"),
        ({"tools": [{"type": "web_search"}]}, "VALIDATION"),
        ({"previous_response_id": "resp_of_nobody"}, "NOT_FOUND"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "VALIDATION"),
    ],
    ids=str,
)
async def test_what_cannot_be_had_is_told_before_anything_runs(
    service: Service, fields: dict[str, Any], code: str
) -> None:
    found = await told(service, service.body("Please press it", **fields), _status(code))
    assert found["code"] == code, found
    assert service.simulator.calls == []


def _status(code: str) -> int:
    return {"COMPUTER_UNSUPPORTED": 501, "NOT_FOUND": 404}.get(code, 400)


async def test_a_missing_key_names_its_variable(service: Service) -> None:
    found = await told(service, {"model": "openrouter/a/b", "input": "x", "env": {"ANTHROPIC_API_KEY": "k"}}, 400)
    assert "OPENROUTER_API_KEY" in found["hint"]


async def test_a_provider_that_fails_is_a_failure_with_its_reason(service: Service) -> None:
    env = service.env | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    found = await told(service, service.body("press", env=env, agent_kwargs={"max_retries": 0}), 502)
    assert found["code"] == "MODEL_CALL"
    assert "key-of-anthropic" not in json.dumps(found)


async def test_one_turn_is_one_reply_with_what_it_asked_for_done(service: Service) -> None:
    first = await service.ask("Please press it", mode="turn")
    await service.page.until(lambda: service.page.of("click"))
    assert [item["type"] for item in first["output"]] == ["message", "computer_call", "computer_call_output"]
    assert first["status"] == "completed"
    second = await service.ask("Please press it again", previous_response_id=first["id"], mode="turn")
    assert second["session_id"] == first["session_id"]
    await service.page.until(lambda: len(service.page.of("click")) == 2)
    assert len(service.page.of("load")) == 1  # the same page, as it was left


async def test_the_first_result_is_acted_on_as_well(service: Service) -> None:
    result = await service.ask("Please press it", mode="first")
    assert [item["type"] for item in result["output"]] == ["message", "computer_call"]
    await service.page.until(lambda: service.page.of("click"))


@pytest.mark.parametrize("fields", [{"mode": "first"}, {"include": []}], ids=str)
async def test_pictures_that_are_not_wanted_are_not_streamed(service: Service, fields: dict[str, Any]) -> None:
    events = await service.stream("Please press it", **fields)
    assert "data:image" not in json.dumps(events)
    told = {event["output_index"]: event["item"]["id"] for event in events if "item" in event}
    assert list(told.values()) == [item["id"] for item in events[-1]["response"]["output"]]


async def test_a_transcript_is_gone_on_with(service: Service) -> None:
    before = await service.ask("Please press it", mode="turn")
    items = [{"role": "user", "content": "Please press it"}, *before["output"]]
    result = await service.ask([*items, {"role": "user", "content": "Please press it"}])
    assert result["output_text"].endswith("Pressed.")
    told = json.dumps(service.simulator.calls[-1].json)
    assert told.count("I press it.") == 2


async def test_what_was_continued_cannot_be_continued_again(service: Service) -> None:
    first = await service.ask("Please remember this")
    await service.ask("And remember that", previous_response_id=first["id"])
    assert "remember this" in service.simulator.calls[-1].text
    found = await told(service, service.body("And that", previous_response_id=first["id"]), 409)
    assert found["code"] == "CONFLICT"


async def test_what_failed_may_be_asked_again_from_where_it_went_on(service: Service) -> None:
    first = await service.ask("Please remember this", computer_kwargs={})
    follow = service.body("And that", previous_response_id=first["id"], computer_kwargs={})
    nowhere = {"env": service.env | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, "agent_kwargs": {"max_retries": 0}}
    failed = (await told(service, follow | nowhere, 502))["result"]
    live = await service.client.post(
        "/responses", json=service.body("Go slowly", background=True) | {"previous_response_id": first["id"]}
    )
    assert (await told(service, follow, 409))["code"] == "CONFLICT"
    await service.client.delete(f"/responses/{live.json()['result']['id']}")
    await service.ask("And remember that", previous_response_id=first["id"], computer_kwargs={})
    assert "remember this" in service.simulator.calls[-1].text
    for each in (first, failed):
        assert (await told(service, follow | {"previous_response_id": each["id"]}, 409))["code"] == "CONFLICT"


async def test_steps_and_time_are_bounded(service: Service) -> None:
    result = await service.ask("Go on for ever", max_steps=3)
    assert (result["status"], result["incomplete_details"]) == ("incomplete", {"reason": "max_steps"})
    assert sum(item["type"] == "computer_call" for item in result["output"]) == 3
    result = await service.ask("Go slowly", deadline=0.5)
    assert (result["status"], result["incomplete_details"]) == ("incomplete", {"reason": "deadline"})


async def test_a_budget_is_kept(service: Service) -> None:
    kwargs = {"max_trajectory_budget": 0.000001}
    result = await service.ask("Go on for ever", agent_kwargs=kwargs)
    assert (result["status"], result["incomplete_details"]) == ("incomplete", {"reason": "budget"})


async def test_a_trajectory_is_kept_without_secrets(service: Service) -> None:
    result = await service.ask("Please press it", agent_kwargs={"save_trajectory": True, "verbosity": 20})
    folder = service.folder / "trajectories" / result["trajectory"]
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    names = {path.name for path in files}
    assert {"metadata.json", "0003_screenshot_after.png", "0005_screenshot_action.png"} <= names
    assert not any(b"key-of-anthropic" in path.read_bytes() for path in files)


async def test_openais_own_shape_is_under_v1(service: Service) -> None:
    body = service.body("Tell me of a unicorn") | {"computer_kwargs": {}}
    answer = await service.client.post("/v1/responses", json=body)
    told = answer.json()
    assert (told["object"], told["status"], told["output_text"][:12]) == ("response", "completed", "There was a ")
    wrong = await service.client.post("/v1/responses", json={"input": "x"})
    assert wrong.json()["error"]["message"] == "Model is required"
    started = (await service.stream("Tell me of a unicorn"))[0]["response"]
    for each in (told, started):
        OpenAIResponse.model_validate(each)


# ── In the background, and given up ──


async def test_what_runs_in_the_background_is_read_streamed_again_and_cancelled(service: Service) -> None:
    answer = await service.client.post("/responses", json=service.body("Go slowly", background=True))
    one = f"/responses/{answer.json()['result']['id']}"
    await _until(service, one, lambda now: now["output"])
    reading = asyncio.create_task(service.read("GET", f"{one}?stream=true"))
    await asyncio.sleep(0.1)
    cancelled = (await service.client.delete(one)).json()
    assert cancelled["status"] == "cancelled"
    events = await reading
    assert events[-1]["type"] == "response.cancelled"
    rest = await service.read("GET", f"{one}?stream=true&starting_after=1")
    assert rest == events[2:]
    for junk in ("-1", "x", "1.5"):
        assert (await service.client.get(f"{one}?stream=true&starting_after={junk}")).status_code == 400
    assert (await service.client.delete(one)).json()["deleted"]
    assert (await service.client.get(one)).status_code == 404


async def test_what_streams_in_the_background_goes_on_without_its_reader(service: Service) -> None:
    body = service.body("Please press it", background=True, stream=True)
    async with service.client.stream("POST", "/responses", json=body) as answer:
        lines = answer.aiter_lines()
        data = await anext(line.removeprefix("data: ") async for line in lines if line.startswith("data: "))
    one = f"/responses/{json.loads(data)['response']['id']}"
    await _until(service, one, lambda now: now["status"] == "completed")


async def test_a_caller_who_leaves_ends_the_work(service: Service) -> None:
    for stream in (False, True):
        with pytest.raises(httpx2.TimeoutException):
            await service.client.post("/responses", json=service.body("Go slowly", stream=stream), timeout=2)
    await _until_none_is_live(service)


async def _until(service: Service, path: str, true: Any) -> None:
    async with asyncio.timeout(20):
        while not true((await service.client.get(path)).json()):
            await asyncio.sleep(0.05)


async def _until_none_is_live(service: Service) -> None:
    async with asyncio.timeout(15):
        while service.live:
            await asyncio.sleep(0.05)


# ── Who may ──


async def test_only_those_with_the_token_are_let_in_and_only_to_their_own() -> None:
    app = create_responses_server(auth=bearer(["one", "two"]))
    async with loopback(app) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/health")).json() == {"status": "healthy"}
        assert (await client.post("/responses", json={})).status_code == 401
        assert (await client.post("/responses", json={}, headers={"x-api-key": "no"})).status_code == 401
        body = {"model": "human/human", "input": "x", "background": True}
        made = await client.post("/responses", json=body, headers={"x-api-key": "one"})
        one = f"/responses/{made.json()['result']['id']}"
        assert (await client.get(one, headers={"authorization": "Bearer two"})).status_code == 404
        assert (await client.get(one, headers={"authorization": "Bearer one"})).status_code == 200
        assert (await client.post("/responses", headers={"host": "evil.example"})).status_code == 403
        foreign = {"origin": "https://evil.example"}
        assert (await client.post("/responses", json=body, headers=foreign)).status_code == 403


async def test_keys_reach_neither_the_environment_nor_the_log_nor_answers(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = dict(os.environ)
    kwargs = {"api_key": "key-of-computer", "provider_type": "remote", "api_host": "127.0.0.2", "api_port": 9}
    answer = await service.client.post("/responses", json=service.body("Please press it", computer_kwargs=kwargs))
    assert answer.json()["code"] in {"COMPUTER_UNAVAILABLE", "COMPUTER_UNSUPPORTED"}
    result = await service.ask("Tell me of a unicorn")
    assert dict(os.environ) == before
    for text in (caplog.text, answer.text, json.dumps(result)):
        assert "key-of-" not in text
