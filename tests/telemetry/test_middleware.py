"""Redaction in the pipeline: every field and shape, secrets by value or split over blocks; nothing planted leaks."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import string
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import claude_agent_sdk as sdk
import pytest

import computeragent
from computeragent import PiiRedactor
from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.redaction import MemoryVault

from .listening import Depot, Listener

pytestmark = pytest.mark.anyio

CARD = "4111 1111 1111 1111"


def event(kind: Any = "user_message", **payload: Any) -> TelemetryEvent:
    return TelemetryEvent(kind=kind, session_id="s1", payload=payload)


async def redacted(redactor: PiiRedactor, one: TelemetryEvent) -> TelemetryEvent:
    kept = await redactor(one)
    assert kept is not None
    return kept


async def test_all_that_an_event_says_is_redacted() -> None:
    one = TelemetryEvent(
        kind="tool_use",
        session_id="s1",
        agent_name="Agent of ada@example.com",
        agent_id="ada@example.com",
        agent_description="Call +49 30 901820",
        payload={
            "tool_input": {"ada@example.com": [CARD, {"card": 4111111111111111, "raw": b"ada@example.com"}]},
            "json": json.dumps({"mail": "ada@example.com"}),
        },
    )
    told = repr(await redacted(PiiRedactor(), one))
    assert "ada@example.com" not in told
    assert "4111" not in told
    assert "901820" not in told


async def test_strategies_paths_and_patterns_of_ones_own() -> None:
    vault = MemoryVault()
    tokenized = PiiRedactor(strategy="tokenize", vault=vault)
    text = (await redacted(tokenized, event(text="mail ada@example.com"))).payload["text"]
    assert "ada@example.com" not in text
    own = PiiRedactor(extra_patterns=[r"BADGE-\d{6}"], path_denylist=["tool_input.notes"], path_allowlist=["sender"])
    payload = {"text": "BADGE-123456", "tool_input": {"notes": "anything"}, "sender": "ada@example.com"}
    kept = (await redacted(own, event(**payload))).payload
    assert "BADGE" not in kept["text"]
    assert kept["tool_input"]["notes"] != "anything"
    assert kept["sender"] == "ada@example.com"
    only_own = PiiRedactor(include_builtins=False, extra_patterns=[r"BADGE-\d{6}"])
    kept = (await redacted(only_own, event(text="ada@example.com BADGE-123456"))).payload
    assert kept["text"].startswith("ada@example.com ")
    assert "BADGE" not in kept["text"]


@pytest.mark.parametrize("cut", range(1, len(CARD)))
async def test_a_secret_split_over_two_blocks_is_never_whole(cut: int) -> None:
    redactor = PiiRedactor()
    first = await redacted(redactor, event("assistant_message", text=f"The card is {CARD[:cut]}"))
    second = await redacted(redactor, event("assistant_message", text=f"{CARD[cut:]}, thanks."))
    joined = first.payload["text"] + second.payload["text"]
    assert CARD not in joined
    assert "1111 1111 1111" not in joined
    assert second.payload["text"].endswith(", thanks.")


async def test_blocks_of_different_sessions_are_not_joined() -> None:
    redactor = PiiRedactor()
    first = event("assistant_message", text="write to ada@exam")
    second = event("assistant_message", text="ple.com")
    second.session_id = "another"
    await redacted(redactor, first)
    assert (await redacted(redactor, second)).payload["text"] == "ple.com"


async def test_what_a_session_knows_is_found_by_value_until_it_is_over() -> None:
    redactor = PiiRedactor()
    redactor.learn(
        "s1", [{"DATABASE_PASSWORD": "correct horse battery"}, {"headers": {"Authorization": "Bearer q1w2e3r4t5"}}]
    )
    redactor.learn("s2", [{"DATABASE_PASSWORD": "correct horse battery"}])
    text = "it is correct horse battery and q1w2e3r4t5 and " + base64.b64encode(b"--correct horse battery--").decode()
    told = (await redacted(redactor, event(text=text))).payload["text"]
    assert "correct" not in told
    assert "q1w2e3r4t5" not in told
    assert base64.b64encode(b"correct horse").decode()[:12] not in told
    redactor.forget("s1")
    assert "q1w2e3r4t5" in (await redacted(redactor, event(text="q1w2e3r4t5"))).payload["text"]
    assert "horse" not in (await redacted(redactor, event(text="correct horse battery"))).payload["text"]
    assert "correct horse" not in repr(redactor)


def secrets(count: int) -> list[str]:
    """Random credentials of no known format: only their value gives them away."""
    rng = random.Random(7)
    alphabets = [string.ascii_letters + string.digits, string.hexdigits, string.ascii_letters + "+/=!?&%$ §ü"]
    return [
        "".join(rng.choices(alphabets[number % 3], k=rng.randint(12, 60))) + f"{number:04d}" for number in range(count)
    ]


@pytest.mark.timeout(300)
async def test_a_thousand_planted_secrets_reach_nothing_that_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planted = secrets(1_000)
    values = iter(planted)

    def some(count: int, name: str) -> dict[str, str]:
        return {f"{name}_{number}_TOKEN": next(values) for number in range(count)}

    process = some(100, "APP")
    for name, value in process.items():
        monkeypatch.setenv(name, value)
    options = sdk.ClaudeAgentOptions(
        env=some(300, "TOOL"),
        mcp_servers={
            f"server{number}": {
                "type": "http",
                "url": f"https://user:{quote(next(values), safe='')}@host.example/{number}",
                "headers": {"Authorization": f"Bearer {next(values)}", "X-Api-Key": next(values)},
            }
            for number in range(100)
        },
        extra_args={"settings": json.dumps({"apiKey": next(values)})},
        settings=json.dumps({"env": some(299, "SET")}),
        system_prompt="You are careful.",
    )
    assert next(values, None) is None
    leaks = [*process.values(), *planted]

    async def stream(**_: Any) -> AsyncIterator[Any]:
        for number in range(0, len(planted), 10):
            batch = planted[number : number + 10]
            yield sdk.AssistantMessage(model="m", content=[sdk.TextBlock(text=f"the token is {batch[0]}")])
            call = {"command": f"curl -H 'X: {batch[1]}' {quote(batch[2], safe='')}", batch[3]: {"deep": [batch[4]]}}
            yield sdk.AssistantMessage(model="m", content=[sdk.ToolUseBlock(id=f"t{number}", name="Bash", input=call)])
            body = base64.b64encode(f"xx{batch[5]}xx".encode()).decode() + "\n" + json.dumps({"key": batch[6]})
            yield sdk.UserMessage(
                content=[sdk.ToolResultBlock(tool_use_id=f"t{number}", content=body + batch[7].encode().hex())]
            )
            yield sdk.AssistantMessage(model="m", content=[sdk.ThinkingBlock(thinking=batch[8], signature="s")])
            yield sdk.SystemMessage(subtype="note", data={"said": batch[9]})
        raise sdk.ProcessError(f"failed with {planted[0]}", exit_code=1, stderr=planted[1])

    caplog.set_level(logging.DEBUG)
    plain, depot = Listener(), Depot()
    depot.broken = True
    monkeypatch.setattr(sdk, "query", stream)
    pipeline = Pipeline(sinks=[plain, depot], spool_dir=tmp_path / "spool", tail_timeout=0)
    monkeypatch.setattr("computeragent.telemetry.config._pipeline", pipeline)
    with pytest.raises(sdk.ProcessError):
        async for _ in computeragent.query(prompt=f"use {planted[2]}", options=options):
            pass
    await pipeline.flush(200)
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
    told = repr(plain.events) + repr(pipeline.stats()) + repr(pipeline.middleware) + caplog.text
    wire = "\n".join(json.dumps(one.payload, ensure_ascii=False) + one.kind for one in plain.events)
    found = [value for value in leaks if value in told or value in wire or value.encode() in on_disk]
    assert found == []
    encoded = [value for value in leaks if value.encode().hex() in told or quote(value, safe="") in told]
    assert encoded == []
    assert len(plain.events) > 500
    pipeline.close(0.5)


async def test_redaction_is_on_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [type(each) for each in Pipeline(sinks=[Listener()]).middleware] == [PiiRedactor]
    assert [type(each) for each in computeragent.configure(sinks=[Listener()]).middleware] == [PiiRedactor]
    computeragent.configure(sinks=[])
    assert os.environ.get("COMPUTERAGENT_HOME")
