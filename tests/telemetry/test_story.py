"""The story of a session: what is told of each kind of message, in both forms, with true sums and one end."""

from __future__ import annotations

from typing import Any

import claude_agent_sdk as sdk
import pytest

from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.seen import Delta, Result, System, from_payload, from_upstream
from computeragent.telemetry.story import Story
from computeragent.telemetry.trace_context import Parent

USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1}


def story() -> Story:
    made = Story("s1", agent_name="triage")
    made.start(1_000_000_000, {"model": "claude-haiku-4-5"})
    return made


def result(**given: Any) -> sdk.ResultMessage:
    fields: dict[str, Any] = {
        "subtype": "success",
        "duration_ms": 5,
        "duration_api_ms": 3,
        "is_error": False,
        "num_turns": 1,
        "session_id": "upstream-1",
        "total_cost_usd": 0.25,
        "usage": USAGE,
        "result": "done",
    }
    return sdk.ResultMessage(**(fields | given))


def tell(made: Story, message: Any, at: int = 2_000_000_000) -> list[tuple[str, dict[str, Any]]]:
    seen = from_upstream(message)
    assert seen is not None
    return [(event.kind, event.payload) for event in made.read(at, seen)]


def end(made: Story, **how: Any) -> dict[str, Any]:
    (event,) = made.end(3_000_000_000, **how)
    return event.payload


def test_a_session_is_told_with_its_first_prompt() -> None:
    made = story()
    started, turn = made.prompt(1_000_000_000, "fix it")
    assert (started.kind, started.payload["prompt"], started.agent_name) == ("session_started", "fix it", "triage")
    assert (turn.kind, turn.payload["prompt"], turn.payload["turn_index"]) == ("turn_started", "fix it", 0)
    assert started.timestamp.isoformat() == "1970-01-01T00:00:01+00:00"


def test_a_session_that_ends_before_any_prompt_is_told_all_the_same() -> None:
    started, ended = story().end(3_000_000_000, error=ConnectionError("no CLI"))
    assert started.kind == "session_started"
    assert ended.payload["is_error"]
    assert (ended.payload["error_type"], ended.payload["error_message"]) == ("ConnectionError", "no CLI")


def test_later_prompts_are_user_messages_and_wait_for_the_turn_under_way() -> None:
    made = story()
    made.prompt(1, "one")
    assert [event.kind for event in made.prompt(2, "two")] == ["user_message"]
    assert [kind for kind, _ in tell(made, result())] == ["usage_snapshot"]
    kinds = tell(made, sdk.SystemMessage(subtype="init", data={}))
    assert [kind for kind, _ in kinds] == ["turn_started", "system_message"]
    assert (kinds[0][1]["turn_index"], kinds[0][1]["prompt"]) == (1, "two")
    tell(made, result())
    assert [event.kind for event in made.prompt(3, "three")] == ["turn_started", "user_message"]


def test_what_was_taken_into_the_turn_under_way_is_no_turn() -> None:
    made = story()
    made.prompt(1, "one")
    made.prompt(2, "and two")
    tell(made, result())
    assert [kind for kind, _ in tell(made, sdk.SystemMessage(subtype="status", data={}))] == ["system_message"]
    assert [event.kind for event in made.prompt(3, "three")] == ["turn_started", "user_message"]
    made.prompt(4, "and four")
    tell(made, result())
    ended = end(made, cancelled=True)
    assert (made.turns, ended["subtype"]) == (2, "success")


def test_each_block_is_told_thinking_and_server_tools_included() -> None:
    made = story()
    made.prompt(1, "go")
    message = sdk.AssistantMessage(
        model="m",
        message_id="msg_1",
        usage=USAGE,
        stop_reason="tool_use",
        content=[
            sdk.ThinkingBlock(thinking="hmm", signature="x"),
            sdk.TextBlock(text="Let me "),
            sdk.TextBlock(text="look."),
            sdk.ToolUseBlock(id="t1", name="Bash", input={"command": "ls"}),
            sdk.ServerToolUseBlock(id="t2", name="web_search", input={"query": "x"}),
            sdk.ServerToolResultBlock(tool_use_id="t2", content={"type": "web_search_tool_result_error"}),
        ],
    )
    told = tell(made, message)
    assert [kind for kind, _ in told] == ["tool_use", "tool_use", "tool_result", "assistant_message"]
    assert told[0][1] == {
        "tool_use_id": "t1",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "message_id": "msg_1",
    }
    assert told[1][1]["server"] is True
    assert (told[2][1]["tool_name"], told[2][1]["is_error"]) == ("web_search", True)
    reply = told[3][1]
    assert (reply["text"], reply["thinking"], reply["block_count"]) == ("Let me look.", "hmm", 6)
    assert (reply["has_tool_use"], reply["usage"], reply["stop_reason"]) == (True, USAGE, "tool_use")


def test_results_of_tools_know_their_tool_and_string_messages_are_seen() -> None:
    made = story()
    made.prompt(1, "go")
    tell(made, sdk.AssistantMessage(model="m", content=[sdk.ToolUseBlock(id="t1", name="Read", input={})]))
    told = tell(made, sdk.UserMessage(content=[sdk.ToolResultBlock(tool_use_id="t1", content="data", is_error=None)]))
    assert told == [("tool_result", {"tool_use_id": "t1", "tool_name": "Read", "is_error": False, "content": "data"})]
    told = tell(made, sdk.UserMessage(content="a notification", origin={"kind": "task-notification"}))
    assert told == [("user_message", {"text": "a notification", "origin": "task-notification"})]


def test_sub_agents_are_told_with_the_call_that_they_belong_to() -> None:
    made = story()
    made.prompt(1, "go")
    message = sdk.AssistantMessage(model="small", content=[sdk.TextBlock(text="inner")], parent_tool_use_id="task1")
    ((_, payload),) = tell(made, message)
    assert payload["parent_tool_use_id"] == "task1"
    tell(made, result(result=None))
    assert end(made)["result"] == ""  # what a sub-agent said is not the answer


def test_pictures_are_left_out_and_long_texts_are_cut() -> None:
    made = story()
    made.prompt(1, "go")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 10_000}}
    long = {"type": "text", "text": "b" * 200_000}
    block = sdk.ToolResultBlock(tool_use_id="t", content=[picture, long])
    ((_, payload),) = tell(made, sdk.UserMessage(content=[block]))
    assert payload["content"][0]["source"]["data"] == "[10000 base64 characters]"
    assert len(payload["content"][1]["text"]) < 70_000
    assert picture["source"]["data"] == "A" * 10_000  # the caller's message is as it was


def test_costs_and_tokens_add_up_over_turns() -> None:
    made = story()
    made.prompt(1, "one")
    ((_, first),) = tell(made, result(total_cost_usd=0.25))
    made.prompt(2, "two")
    ((_, second),) = tell(made, result(total_cost_usd=0.75))
    assert (first["cost_usd"], second["cost_usd"], second["total_cost_usd"]) == (0.25, 0.5, 0.75)
    assert second["usage"] == USAGE
    ended = end(made)
    assert ended["usage"] == {key: 2 * count for key, count in USAGE.items()}
    assert (ended["total_cost_usd"], ended["upstream_session_id"]) == (0.75, "upstream-1")


def test_a_running_total_that_begins_anew_is_added() -> None:
    made = story()
    made.prompt(1, "one")
    tell(made, result(total_cost_usd=0.5))
    made.prompt(2, "two")
    ((_, second),) = tell(made, result(total_cost_usd=0.2))
    assert (second["cost_usd"], second["total_cost_usd"]) == (0.2, 0.7)


def test_a_cost_that_the_engine_does_not_say_is_estimated_with_its_table() -> None:
    made = story()
    made.prompt(1, "one")
    ((_, turn),) = tell(made, result(total_cost_usd=None, usage={"input_tokens": 1_000_000, "output_tokens": 0}))
    assert turn["cost_source"] == "estimate"
    assert turn["price_table"].startswith("genai-prices ")
    assert turn["cost_usd"] == pytest.approx(1.0)  # $1 for a million tokens of claude-haiku-4-5


def test_an_unknown_price_is_said_to_be_unknown_never_zero() -> None:
    made = Story("s1")
    made.start(1, {"model": "nobody/has-heard-of-it"})
    made.prompt(1, "one")
    ((_, turn),) = tell(made, result(total_cost_usd=None))
    assert turn["cost_source"] == "unknown"
    assert "cost_usd" not in turn
    assert "total_cost_usd" not in turn
    assert end(made)["total_cost_usd"] is None


def test_a_turn_without_usage_has_no_price() -> None:
    made = story()
    made.prompt(1, "one")
    ((_, turn),) = tell(made, result(total_cost_usd=None, usage=None))
    assert turn["cost_source"] == "unknown"


@pytest.mark.parametrize(
    ("given", "how", "expected"),
    [
        ({}, {}, ("success", False)),
        ({}, {"cancelled": True}, ("success", False)),  # the caller left after the result
        ({"is_error": True, "subtype": "error_max_turns"}, {"error": RuntimeError("x")}, ("error_max_turns", True)),
        ({}, {"error": RuntimeError("the CLI died")}, ("error", True)),
        ({"is_error": True}, {"stopped": Trip("budget_exceeded", "too dear")}, ("budget_exceeded", True)),
        ({}, {"stopped": Trip("budget_exceeded", "too dear")}, ("success", False)),  # it had ended by itself
        ({}, {"failure": Trip("ENGINE_FAILED", "gone")}, ("ENGINE_FAILED", True)),
    ],
)
def test_how_a_session_ended_after_a_result(given: Any, how: Any, expected: Any) -> None:
    made = story()
    made.prompt(1, "go")
    tell(made, result(**given))
    ended = end(made, **how)
    assert (ended["subtype"], ended["is_error"]) == expected
    assert made.end(4, error=RuntimeError("again")) == []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, ("no_result", False)),
        ({"cancelled": True}, ("cancelled", False)),
        ({"error": RuntimeError("x")}, ("error", True)),
        ({"stopped": Trip("content_blocked", "no")}, ("content_blocked", True)),
    ],
)
def test_how_a_session_ended_in_mid_turn(how: Any, expected: Any) -> None:
    made = story()
    made.prompt(1, "go")
    ended = end(made, **how)
    assert (ended["subtype"], ended["is_error"]) == expected


def test_permission_denials_are_told_with_the_turn_and_the_session() -> None:
    made = story()
    made.prompt(1, "go")
    denial = {"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {"command": "rm -rf /"}}
    ((_, turn),) = tell(made, result(permission_denials=[denial]))
    assert turn["permission_denials"] == [denial]
    assert end(made)["permission_denials"] == [denial]


def test_the_time_to_the_first_token_of_each_reply() -> None:
    made = story()
    made.prompt(1_000_000_000, "go")
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "m"}}
    stream = [sdk.StreamEvent(uuid="u", session_id="s", event=event) for event in (start, delta, delta)]
    told = [tell(made, message, at=1_250_000_000) for message in stream]
    assert told == [
        [],
        [("response_first_token", {"message_id": "msg_1", "model": "m", "time_to_first_token_ms": 250.0})],
        [],
    ]
    tell(made, sdk.UserMessage(content=[sdk.ToolResultBlock(tool_use_id="t")]), at=2_000_000_000)
    ((_, again),) = tell(made, stream[1], at=2_100_000_000)
    assert again["time_to_first_token_ms"] == 100.0


def test_turns_join_the_callers_trace() -> None:
    made = story()
    parent = Parent("a" * 32, "b" * 16)
    _, first = made.prompt(1, "one", parent=parent)
    tell(made, result())
    second, _ = made.prompt(2, "two")
    for turn in (first, second):
        assert (turn.payload["trace_id"], turn.payload["parent_span_id"]) == ("a" * 32, "b" * 16)
    assert first.payload["span_id"] != second.payload["span_id"]


def test_subclasses_and_strangers() -> None:
    class Mine(sdk.AssistantMessage):
        pass

    assert tell(story(), Mine(model="m", content=[]))[-1][0] == "assistant_message"
    task = sdk.TaskStartedMessage(
        subtype="task_started", data={"a": 1}, task_id="t", description="d", uuid="u", session_id="s"
    )
    assert from_upstream(task) == System("task_started", {"a": 1})
    assert from_upstream(object()) is None
    assert from_upstream({"type": "assistant"}) is None


def test_stream_json_says_the_same_as_upstreams_objects() -> None:
    from claude_agent_sdk._internal.message_parser import parse_message

    payloads: list[dict[str, Any]] = [
        {
            "type": "assistant",
            "message": {
                "id": "msg_1",
                "model": "m",
                "stop_reason": "tool_use",
                "usage": USAGE,
                "content": [
                    {"type": "thinking", "thinking": "hmm", "signature": "x"},
                    {"type": "text", "text": "hello"},
                    {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}},
                    {"type": "server_tool_use", "id": "t2", "name": "web_search", "input": {}},
                    {"type": "advisor_tool_result", "tool_use_id": "t2", "content": {"type": "x_error"}},
                ],
            },
            "parent_tool_use_id": "p1",
        },
        {"type": "user", "message": {"content": "hi"}, "parent_tool_use_id": None},
        {
            "type": "user",
            "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x", "is_error": True}]},
        },
        {
            "type": "stream_event",
            "uuid": "u",
            "session_id": "s",
            "event": {"type": "content_block_delta"},
        },
        {
            "type": "result",
            "subtype": "success",
            "duration_ms": 1,
            "duration_api_ms": 1,
            "is_error": False,
            "num_turns": 2,
            "session_id": "u1",
            "total_cost_usd": 0.5,
            "usage": USAGE,
            "result": "done",
            "modelUsage": {"m": {"inputTokens": 1}},
            "permission_denials": [{"tool_name": "Bash"}],
        },
    ]
    for payload in payloads:
        assert from_payload(payload) == from_upstream(parse_message(payload)), payload["type"]


@pytest.mark.parametrize("payload", [None, 3, "x", [], {}, {"type": "assistant"}, {"type": "new"}, {"type": "user"}])
def test_payloads_that_say_nothing(payload: Any) -> None:
    assert from_payload(payload) is None


def test_deltas_of_streams() -> None:
    assert from_payload({"type": "stream_event", "event": {"type": "ping"}}) is None
    ending = {"type": "message_delta", "usage": {"output_tokens": 7}, "delta": {"stop_reason": "end_turn"}}
    assert from_payload({"type": "stream_event", "event": ending}) == Delta(
        usage={"output_tokens": 7}, stop_reason="end_turn"
    )
    assert isinstance(from_payload({"type": "result"}), Result)
