"""Prompts, replies and tool data: nothing unless it is asked for, where it is asked for, and cut to size."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import pytest

from computeragent.telemetry.seen import Block
from computeragent.telemetry.sinks import content
from computeragent.telemetry.sinks.otel import OtelSettings, OtelSink
from computeragent.telemetry.sinks.otel.capture import MAX_PARTS

from .collector import Collector
from .stories import Teller, deliver, everything, one_turn

WORDS = ["What is in here?", "One file", "a.py", "Be brief.", "Review it.", "They pass.", "Read the tests."]


def captured(collector: Collector, endpoint: str, teller: Teller, **settings: Any) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.bind(OtelSettings(**settings))
    deliver(sink, teller)


def of_kind(collector: Collector, name: str) -> list[dict[str, Any]]:
    found = [span for span in collector.spans if span["name"].startswith(name)]
    return [span["attributes"] for span in sorted(found, key=lambda span: span["start"])]


@pytest.mark.parametrize("asked", [{}, {"capture_content": False}])
def test_nothing_that_was_said_leaves_by_default(
    asked: dict[str, Any], collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv("COMPUTERAGENT_CAPTURE_CONTENT", "1")  # what was configured goes before it
    captured(collector, endpoint, one_turn(), **asked)
    captured(collector, endpoint, everything(), **asked)
    told = json.dumps([collector.spans, collector.metrics])
    assert [word for word in WORDS if word in told] == []
    assert collector.accepted("logs") == []


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_the_environment_asks_for_it(
    value: str, collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPUTERAGENT_CAPTURE_CONTENT", value)
    monkeypatch.setenv("COMPUTERAGENT_CAPTURE_CONTENT_MODE", "both")
    monkeypatch.setenv("COMPUTERAGENT_MAX_ATTRIBUTE_LENGTH", "200")
    captured(collector, endpoint, Teller().prompt(0, "x" * 5_000).says(1, "msg_1", "Hm.").result(2).end(3))
    asked = of_kind(collector, "chat")[0]["gen_ai.input.messages"]
    assert 50 < len(asked) <= 200
    assert json.loads(asked)[0]["parts"][0]["content"].startswith("xxx")
    assert len(collector.logs) == 1


def test_by_default_content_is_in_events_and_on_no_span(collector: Collector, endpoint: str) -> None:
    captured(collector, endpoint, one_turn(), capture_content=True)
    told = json.dumps(collector.spans)
    assert [word for word in WORDS if word in told] == []
    first, second = collector.logs
    assert first["event_name"] == "gen_ai.client.inference.operation.details"
    assert first["severity"] == 9
    chats = {span["span_id"]: span for span in collector.spans if span["name"].startswith("chat")}
    assert chats[first["span_id"]]["trace_id"] == first["trace_id"]
    assert first["attributes"]["gen_ai.input.messages"] == [
        {"role": "user", "parts": [{"type": "text", "content": "What is in here?"}]}
    ]
    assert second["attributes"]["gen_ai.input.messages"] == [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "toolu_1", "response": "a.py"}]}
    ]
    assert second["attributes"]["gen_ai.output.messages"] == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "One file, then."}, {"type": "text", "content": "One file."}],
            "finish_reason": "stop",
        }
    ]


def test_with_attributes_content_is_on_spans_and_in_no_event(collector: Collector, endpoint: str) -> None:
    captured(collector, endpoint, one_turn(), capture_content=True, capture_content_mode="attributes")
    assert collector.accepted("logs") == []
    (root,), (tool,) = of_kind(collector, "invoke_agent"), of_kind(collector, "execute_tool")
    assert json.loads(root["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    assert json.loads(root["gen_ai.input.messages"])[0]["parts"][0]["content"] == "What is in here?"
    assert json.loads(root["gen_ai.output.messages"])[0]["parts"][0]["content"] == "One file."
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"command": "ls"}
    assert tool["gen_ai.tool.call.result"] == "a.py"


def test_a_sub_agents_talk_is_its_own(collector: Collector, endpoint: str) -> None:
    captured(collector, endpoint, everything(), capture_content=True)
    told = {record["attributes"]["gen_ai.response.id"]: record["attributes"] for record in collector.logs}
    assert told["msg_sub_1"]["gen_ai.input.messages"][0]["parts"][0]["content"] == "Read the tests."
    assert told["msg_2"]["gen_ai.input.messages"] == [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "toolu_task", "response": "They pass."}]}
    ]
    kinds = [part["type"] for part in told["msg_2"]["gen_ai.output.messages"][0]["parts"]]
    assert kinds == ["server_tool_call", "server_tool_call_response", "tool_call"]


@pytest.mark.parametrize("limit", [64, 300, 4096])
def test_what_is_too_long_is_cut_and_still_json(limit: int, collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0, "p" * 50_000)
    for number in range(40):
        told.reply(1 + number, "msg_1", Block("text", text=f"{number} " + "x" * 3_000))
    captured(
        collector,
        endpoint,
        told.result(99).end(100),
        capture_content=True,
        capture_content_mode="both",
        max_attribute_length=limit,
    )
    (chat,) = of_kind(collector, "chat")
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        assert len(chat[name]) <= limit + len("…(+1234567 chars)")
        if limit > 64:
            assert json.loads(chat[name])[0]["parts"]


def test_a_long_turn_takes_memory_for_what_is_open_alone(collector: Collector, endpoint: str) -> None:
    """No copies of the history: twice the calls take twice the bytes, and nothing stays of a turn that has ended."""
    sizes = []
    for calls in (50, 100):
        told = Teller(f"ca_{calls}").prompt(0)
        for number in range(calls):
            told.calls(number + 1, f"msg_{number}", "Read", f"toolu_{number}", input={"path": "x" * 500})
            told.answers(number + 1.5, f"toolu_{number}", "y" * 500)
        before = len(collector.requests)
        captured(collector, endpoint, told.result(500).end(501), capture_content=True)
        new = [each for each in collector.requests[before:] if each.signal == "logs"]
        sizes.append(sum(each.message.ByteSize() for each in new))
    assert sizes[1] < 2.2 * sizes[0]


def test_nothing_is_kept_of_turns_that_have_ended(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.bind(OtelSettings(capture_content=True, capture_content_mode="both"))

    def turns(first: int, last: int) -> int:
        told = Teller(f"ca_{first}")
        for number in range(first, last):
            told.prompt(number, "p" * 10_000).says(number + 0.2, f"msg_{number}", "r" * 10_000).result(number + 0.5)
        sink.deliver(told.batch(f"spool-{first}"))
        collector.requests.clear()
        del told
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    turns(0, 50)
    tracemalloc.start()
    try:
        before = turns(50, 100)
        after = turns(100, 300)
    finally:
        tracemalloc.stop()
        sink.close()
    assert after - before < 500_000  # of more than 4 MB that went through


def test_a_call_keeps_so_many_parts(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0)
    for number in range(MAX_PARTS + 10):
        told.reply(1, "msg_1", Block("text", text=str(number)))
    captured(collector, endpoint, told.result(2).end(3), capture_content=True, max_attribute_length=1_000_000)
    (record,) = collector.logs
    parts = record["attributes"]["gen_ai.output.messages"][0]["parts"]
    assert len(parts) == MAX_PARTS
    assert parts[-1]["content"] == str(MAX_PARTS + 9)


# ── The shapes ──


@pytest.mark.parametrize(
    ("stop_reason", "has_tool_use", "reason"),
    [
        ("end_turn", False, "stop"),
        ("stop_sequence", False, "stop"),
        ("pause_turn", True, "stop"),
        ("max_tokens", False, "length"),
        ("tool_use", True, "tool_call"),
        ("refusal", False, "content_filter"),
        ("model_context_window_exceeded", False, "model_context_window_exceeded"),
        (None, True, "tool_call"),
        (None, False, "stop"),
    ],
)
def test_finish_reasons(stop_reason: str | None, has_tool_use: bool, reason: str) -> None:
    assert content.map_finish_reason(stop_reason, has_tool_use) == reason


def test_blocks_become_parts() -> None:
    blocks = [
        {"type": "text", "text": "Hello."},
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}},
        {"type": "tool_result", "tool_use_id": "t", "content": "a.py"},
        {"type": "image", "source": {}},
    ]
    assert content.blocks_to_parts(blocks) == [
        {"type": "text", "content": "Hello."},
        {"type": "reasoning", "content": "Hm."},
        {"type": "tool_call", "id": "t", "name": "Bash", "arguments": {"command": "ls"}},
        {"type": "tool_call_response", "id": "t", "response": "a.py"},
    ]
    assert content.blocks_to_parts(None) == []
