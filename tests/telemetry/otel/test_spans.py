"""Spans and measurements of sessions, against golden files for both profiles of the conventions, and case by case."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from computeragent.telemetry.seen import Block, System
from computeragent.telemetry.sinks.otel import OtelSink, names
from computeragent.telemetry.trace_context import Parent, ids_of

from .collector import Collector
from .stories import BEGIN, Teller, deliver, everything, one_turn

GOLDEN = Path(__file__).parent / "golden"
PROFILES = {"1.41": "", "genai-next": "http,gen_ai_latest_experimental"}


def named(collector: Collector, name: str) -> dict[str, Any]:
    (found,) = [span for span in collector.spans if span["name"] == name]
    return found


def golden(name: str, found: Any) -> None:
    """Compare with a golden file; ``GOLDEN=write`` in the environment accepts what was found."""
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def in_seconds(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spans by start, with times since the beginning, and their parents' names beside the ids."""
    names = {span["span_id"]: span["name"] for span in spans}
    for span in spans:
        span["start"], span["end"] = (span["start"] - BEGIN) / 1e9, (span["end"] - BEGIN) / 1e9
        span["parent_name"] = names.get(span["parent"])
        for event in span["events"]:
            event["time"] = (event["time"] - BEGIN) / 1e9
    return sorted(spans, key=lambda span: (span["start"], span["name"], span["span_id"]))


@pytest.mark.parametrize("profile", PROFILES)
def test_spans_and_measurements_are_as_the_profile_says(
    profile: str, collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", PROFILES[profile])
    sink = OtelSink(endpoint=endpoint)
    sink.bind(type("Settings", (), {"capture_content": True, "capture_content_mode": "attributes"}))
    deliver(sink, everything())
    golden(f"spans-{profile}", in_seconds(collector.spans))
    order = sorted(collector.metrics, key=lambda point: (point["name"], json.dumps(point["attributes"])))
    golden(f"metrics-{profile}", order)


def test_the_outdated_names_are_on_nothing(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), everything())
    told = json.dumps([collector.spans, collector.metrics])
    assert "gen_ai.system" not in told
    assert "gen_ai.response.cost_usd" not in told


def test_a_turn_is_a_trace(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), everything())
    roots = [span for span in collector.spans if not span["parent"]]
    assert [span["name"] for span in roots] == ["invoke_agent reviewer"] * 2
    assert len({span["trace_id"] for span in collector.spans}) == 2
    assert {span["attributes"]["gen_ai.conversation.id"] for span in collector.spans} == {"ca_everything"}


def test_totals_are_those_of_the_result_and_counted_once(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), everything())
    first, second = [span["attributes"] for span in collector.spans if span["name"].startswith("invoke_agent")]
    assert first["gen_ai.usage.input_tokens"] == 20 + 200 + 7
    assert first["gen_ai.usage.output_tokens"] == 42
    assert first["computeragent.usage.cost_usd"] == 0.5
    assert second["gen_ai.usage.input_tokens"] == 5
    assert second["computeragent.usage.cost_usd"] == 0.25
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="input") == 227 + 5
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="output") == 48
    assert collector.total("computeragent.usage.cost_usd") == 0.75


def test_a_placeholder_is_not_taken_for_the_length_of_a_reply(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), everything())
    chats = {
        span["attributes"]["gen_ai.response.id"]: span["attributes"]
        for span in collector.spans
        if "chat" in span["name"]
    }
    assert "gen_ai.usage.output_tokens" not in chats["msg_1"]
    assert chats["msg_1"]["gen_ai.usage.input_tokens"] == 110
    assert chats["msg_3"]["gen_ai.usage.output_tokens"] == 30


def test_messages_of_one_call_are_one_span(collector: Collector, endpoint: str) -> None:
    """Also when the first of its tools has answered before the second is called."""
    told = (
        Teller()
        .prompt(0)
        .calls(1, "msg_1", "Read", "toolu_1")
        .answers(2, "toolu_1")
        .calls(3, "msg_1", "Grep", "toolu_2")
        .answers(4, "toolu_2")
        .says(5, "msg_2", "Done.")
        .result(6)
    )
    deliver(OtelSink(endpoint=endpoint), told.end(7))
    chats = in_seconds([span for span in collector.spans if span["name"].startswith("chat")])
    assert [(span["start"], span["end"]) for span in chats] == [(0, 3), (4, 5)]


def test_calls_without_ids_end_where_tools_answer(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).calls(1, None, "Read", "toolu_1").answers(2, "toolu_1").says(3, None, "Done.").result(4)
    deliver(OtelSink(endpoint=endpoint), told.end(5))
    chats = in_seconds([span for span in collector.spans if span["name"].startswith("chat")])
    assert [(span["start"], span["end"]) for span in chats] == [(0, 1), (2, 3)]


def test_an_unknown_price_is_said_and_is_not_zero(collector: Collector, endpoint: str) -> None:
    told = Teller(model="private-model").prompt(0).says(1, "msg_1", "Hello.").result(2, None)
    deliver(OtelSink(endpoint=endpoint), told.end(3))
    root = named(collector, "invoke_agent reviewer")["attributes"]
    assert "computeragent.usage.cost_usd" not in root
    assert root["computeragent.usage.cost_source"] == "unknown"
    assert not [point for point in collector.metrics if point["name"] == "computeragent.usage.cost_usd"]


def test_an_estimated_price_says_by_which_table(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), Teller().prompt(0).says(1, "msg_1", "Hello.").result(2, None).end(3))
    root = named(collector, "invoke_agent reviewer")["attributes"]
    assert root["computeragent.usage.cost_usd"] > 0
    assert root["computeragent.usage.cost_source"] == "estimate"
    assert root["computeragent.usage.price_table"].startswith("genai-prices ")


def test_a_model_that_nobody_named_is_the_one_that_the_cli_says(collector: Collector, endpoint: str) -> None:
    told = Teller(model=None).prompt(0).see(0.1, System("init", {"model": "claude-opus-4-5"}))
    deliver(OtelSink(endpoint=endpoint), told.says(1, "msg_1", "Hello.").result(2).end(3))
    assert named(collector, "invoke_agent reviewer")["attributes"]["gen_ai.request.model"] == "claude-opus-4-5"
    assert named(collector, "chat claude-opus-4-5")


@pytest.mark.parametrize(
    ("engine", "model", "provider"),
    [
        (None, None, "anthropic"),
        ("claude-agent-sdk", "sonnet", "anthropic"),
        ("gitagent", "openai:gpt-5", "openai"),
        ("gitagent", "gpt-5", "openai"),
        ("deepagents", "google:gemini-2.5-pro", "gcp.gemini"),
        ("claude-agent-sdk", "us.anthropic.claude-sonnet-4-5-v1:0", "aws.bedrock"),
        ("claude-agent-sdk", "claude-sonnet-4-5@20250929", "gcp.vertex_ai"),
        ("acp", "something", "acp"),
    ],
)
def test_the_provider_is_named_as_the_conventions_name_it(engine: str | None, model: str | None, provider: str) -> None:
    assert names.provider(engine, model) == provider


# ── How turns end ──


def test_leaving_early_is_no_error(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).calls(1, "msg_1", "Bash", "toolu_1").end(2, cancelled=True)
    deliver(OtelSink(endpoint=endpoint), told)
    assert {span["status"] for span in collector.spans} == {"UNSET"}
    assert {span["name"] for span in collector.spans} == {
        "invoke_agent reviewer",
        "chat claude-sonnet-4-5",
        "execute_tool Bash",
    }


def test_a_failure_is_one(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "Hm.").end(2, error=RuntimeError("the CLI is gone"))
    deliver(OtelSink(endpoint=endpoint), told)
    root = named(collector, "invoke_agent reviewer")
    assert (root["status"], root["description"]) == ("ERROR", "the CLI is gone")
    assert root["attributes"]["error.type"] == "RuntimeError"
    assert collector.total("gen_ai.client.operation.duration", error__type="RuntimeError") == 2.0


def test_what_is_raised_after_a_result_does_not_undo_it(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "Done.").result(2).end(3, error=GeneratorExit())
    deliver(OtelSink(endpoint=endpoint), told)
    assert {span["status"] for span in collector.spans} == {"UNSET"}


def test_a_model_call_that_fails_says_so(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "API Error", error="rate_limit").result(2, is_error=True)
    deliver(OtelSink(endpoint=endpoint), told.end(3))
    chat = named(collector, "chat claude-sonnet-4-5")
    assert (chat["status"], chat["attributes"]["error.type"]) == ("ERROR", "rate_limit")
    assert named(collector, "invoke_agent reviewer")["attributes"]["error.type"] == "error"


def test_a_turn_ends_with_its_result_and_not_with_the_next_prompt(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "One.").result(2).prompt(60).says(61, "msg_2", "Two.").result(62)
    deliver(OtelSink(endpoint=endpoint), told.end(63))
    roots = in_seconds([span for span in collector.spans if not span["parent"]])
    assert [(span["start"], span["end"]) for span in roots] == [(0, 2), (60, 62)]


def test_a_new_turn_ends_one_that_had_no_result(collector: Collector, endpoint: str) -> None:
    first, second = Teller().prompt(0).says(1, "msg_1", "One."), Teller().prompt(5).says(6, "msg_2", "Two.").result(7)
    first.events += second.events[1:]
    deliver(OtelSink(endpoint=endpoint), first)
    roots = in_seconds([span for span in collector.spans if not span["parent"]])
    assert [(span["start"], span["end"]) for span in roots] == [(0, 5), (5, 7)]


def test_what_an_engine_does_by_itself_is_a_turn_too(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "One.").result(2).says(5, "msg_2", "The build is done.").result(6, 0.05)
    deliver(OtelSink(endpoint=endpoint), told.end(7))
    assert len([span for span in collector.spans if not span["parent"]]) == 2
    assert collector.total("computeragent.usage.cost_usd") == pytest.approx(0.05)


def test_a_tool_that_outlives_its_turn_starts_no_other(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).calls(1, "msg_1", "Bash", "toolu_1").result(2).answers(5, "toolu_1").end(6)
    deliver(OtelSink(endpoint=endpoint), told)
    assert len([span for span in collector.spans if not span["parent"]]) == 1
    assert in_seconds([named(collector, "execute_tool Bash")])[0]["end"] == 2


# ── Policy ──


@pytest.mark.parametrize(
    ("decision", "on"),
    [
        ({"tool_use_id": "toolu_1", "tool_name": "Bash"}, "execute_tool Bash"),
        ({"tool_name": "Bash"}, "execute_tool Bash"),
        ({"tool_name": "Write"}, "invoke_agent reviewer"),
    ],
)
def test_a_decision_is_on_the_span_of_its_tool(
    decision: dict[str, Any], on: str, collector: Collector, endpoint: str
) -> None:
    told = (
        Teller().prompt(0).calls(1, "msg_1", "Bash", "toolu_1").judged(1.5, **decision).answers(2, "toolu_1").result(3)
    )
    deliver(OtelSink(endpoint=endpoint), told.end(4))
    span = named(collector, on)
    said = {
        "policy.decision": "allow",
        "policy.reason": "read only",
        "policy.engine": "opa",
        "policy.latency_ms": 1.5,
    }
    assert said.items() <= span["attributes"].items()
    (event,) = span["events"]
    assert event["name"] == "policy_decision"
    assert event["attributes"] == {**said, "policy.tool_name": decision["tool_name"]}


def test_a_decision_says_which_rule_judged_for_whom_and_who_decided(collector: Collector, endpoint: str) -> None:
    who = {"rule": "r1", "principal_id": "ann", "code": "POLICY_TIMEOUT", "decided_by": "token-ab12 (bob)"}
    told = Teller().prompt(0).calls(1, "msg_1", "Bash", "toolu_1").judged(1.5, tool_use_id="toolu_1", **who)
    deliver(OtelSink(endpoint=endpoint), told.answers(2, "toolu_1").result(3).end(4))
    span = named(collector, "execute_tool Bash")
    said = {
        "policy.rule": "r1",
        "policy.principal": "ann",
        "policy.code": "POLICY_TIMEOUT",
        "policy.decided_by": "token-ab12 (bob)",
    }
    assert said.items() <= span["attributes"].items()
    assert said.items() <= span["events"][0]["attributes"].items()


def test_a_decision_that_comes_before_its_tool_is_kept_for_it(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).judged(0.5, tool_use_id="toolu_1", tool_name="Bash").calls(1, "msg_1", "Bash", "toolu_1")
    deliver(OtelSink(endpoint=endpoint), told.answers(2, "toolu_1").result(3).end(4))
    assert named(collector, "execute_tool Bash")["attributes"]["policy.decision"] == "allow"


def test_a_tool_that_was_denied_says_why_it_failed(collector: Collector, endpoint: str) -> None:
    told = (
        Teller()
        .prompt(0)
        .calls(1, "msg_1", "Bash", "toolu_1")
        .judged(1.5, tool_use_id="toolu_1", decision="deny")
        .answers(2, "toolu_1", "no", error=True)
        .result(3)
    )
    deliver(OtelSink(endpoint=endpoint), told.end(4))
    assert named(collector, "execute_tool Bash")["attributes"]["error.type"] == "permission_denied"


def test_a_decision_outside_of_a_turn_is_a_span_of_its_own(collector: Collector, endpoint: str) -> None:
    deliver(OtelSink(endpoint=endpoint), Teller().judged(0, tool_name="Bash").end(1))
    (span,) = collector.spans
    assert (span["name"], span["attributes"]["policy.decision"]) == ("policy_decision Bash", "allow")


# ── Ids ──


def test_ids_follow_from_the_event_that_starts_the_turn(collector: Collector, endpoint: str) -> None:
    told = one_turn()
    deliver(OtelSink(endpoint=endpoint), told)
    root = named(collector, "invoke_agent reviewer")
    assert (root["trace_id"], root["span_id"]) == ids_of(told.events[1].event_id)


def test_a_turn_joins_the_trace_of_its_caller(collector: Collector, endpoint: str) -> None:
    parent = Parent("a" * 32, "b" * 16)
    told = Teller().prompt(0, parent=parent).says(1, "msg_1", "Hello.").result(2).end(3)
    deliver(OtelSink(endpoint=endpoint), told)
    assert {span["trace_id"] for span in collector.spans} == {"a" * 32}
    root = named(collector, "invoke_agent reviewer")
    assert root["parent"] == "b" * 16
    assert root["span_id"] == told.events[1].payload["span_id"]


def test_ids_that_are_none_are_not_used(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).result(1)
    told.events[1].payload |= {"trace_id": "0" * 32, "span_id": 7, "parent_span_id": "zz"}
    deliver(OtelSink(endpoint=endpoint), told.end(2))
    root = named(collector, "invoke_agent reviewer")
    assert (root["trace_id"], root["span_id"]) == ids_of(told.events[1].event_id)
    assert root["parent"] == ""


# ── Bounds ──


def test_of_too_many_sessions_the_oldest_is_ended(collector: Collector, endpoint: str) -> None:
    from computeragent.telemetry.sinks.otel.spans import SpanBuilder

    sink = OtelSink(endpoint=endpoint)
    sink.deliver([])
    builder = sink._outlet.builder
    assert isinstance(builder, SpanBuilder)
    builder._max_sessions = 3
    for number in range(5):
        told = Teller(f"ca_{number}").prompt(number).says(number + 0.5, "msg_1", "Hello.")
        sink.deliver(told.batch(f"spool-{number}"))
    sink.close()
    assert len(builder._sessions) == 3
    ended = [span["attributes"]["gen_ai.conversation.id"] for span in collector.spans if not span["parent"]]
    assert ended == ["ca_0", "ca_1"]


def test_of_too_many_open_tools_the_oldest_is_ended(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeragent.telemetry.sinks.otel.tools.MAX_OPEN_TOOLS", 2)
    told = Teller().prompt(0)
    for number in range(4):
        told.reply(1 + number, "msg_1", Block("tool_use", id=f"toolu_{number}", name="Bash", input={}))
    sink = OtelSink(endpoint=endpoint)
    sink.deliver(told.batch())
    sink.close()
    assert [span["attributes"]["gen_ai.tool.call.id"] for span in collector.spans] == ["toolu_0", "toolu_1"]
