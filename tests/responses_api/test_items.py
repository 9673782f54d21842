"""A turn's events as items and events of OpenAI's Responses."""

from __future__ import annotations

from typing import Any

import pytest

from computeragent.responses.items import Projection, output_text, wire_action, without_image
from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaUsageSnapshot,
    SdkMessage,
    raw_payload,
)

Json = dict[str, Any]
PNG = "iVBORw0KGgo="


def message(payload: Json) -> SdkMessage:
    return SdkMessage(session_id="s", raw=raw_payload(payload), turn_index=0)


def assistant(*blocks: Json) -> SdkMessage:
    return message({"type": "assistant", "message": {"role": "assistant", "content": list(blocks)}})


def click(call_id: str = "c1") -> Json:
    return {"type": "tool_use", "id": call_id, "name": "computer", "input": {"action": "click", "x": 3, "y": 4}}


def result(*parts: Json, call_id: str = "c1", is_error: bool = False) -> SdkMessage:
    block = {"type": "tool_result", "tool_use_id": call_id, "content": list(parts), "is_error": is_error}
    return message({"type": "user", "message": {"role": "user", "content": [block]}})


def image() -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def delta(value: str) -> SdkMessage:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": value}}
    return message({"type": "stream_event", "event": event})


def projected(*events: Any) -> tuple[Projection, list[tuple[str, Json]]]:
    told: list[tuple[str, Json]] = []
    projection = Projection(lambda kind, fields: told.append((kind, fields)), "k")
    for event in events:
        projection.take(event)
    return projection, told


def test_an_answer_is_a_message_with_the_events_of_its_text() -> None:
    projection, told = projected(assistant(text("Hello.")))
    (item,) = projection.output
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "Hello.", "annotations": []}]
    assert [kind.removeprefix("response.") for kind, _ in told] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert {fields["output_index"] for _, fields in told} == {0}


def test_text_that_was_streamed_is_told_once() -> None:
    start = message({"type": "stream_event", "event": {"type": "message_start"}})
    stop = message({"type": "stream_event", "event": {"type": "content_block_stop"}})
    projection, told = projected(start, delta("Hel"), delta("lo."), stop, assistant(text("Hello."), click()))
    assert output_text(projection.output) == "Hello."
    assert [fields["delta"] for kind, fields in told if kind.endswith("text.delta")] == ["Hel", "lo."]
    assert [item["type"] for item in projection.output] == ["message", "computer_call"]


def test_an_answer_that_broke_off_and_was_asked_for_again_is_said_once() -> None:
    start = message({"type": "stream_event", "event": {"type": "message_start"}})
    stop = message({"type": "stream_event", "event": {"type": "content_block_stop"}})
    again = message({"type": "system", "subtype": "api_retry", "attempt": 1})
    projection, told = projected(
        start, delta("Hel"), stop, again, start, delta("Hello."), stop, assistant(text("Hello."))
    )
    assert output_text(projection.output) == "Hello."
    assert [(item["status"], len(item["content"])) for item in projection.output] == [
        ("incomplete", 0),
        ("completed", 1),
    ]
    done = [fields["item"]["status"] for kind, fields in told if kind.endswith("item.done")]
    assert done == ["incomplete", "completed"]


def test_an_action_and_its_picture_are_a_call_and_its_output() -> None:
    projection, told = projected(assistant(click()), result(text("clicked"), image()))
    call, output = projection.output
    assert call["action"] == {"type": "click", "button": "left", "x": 3, "y": 4}
    assert (call["call_id"], call["status"]) == ("c1", "completed")
    assert output["output"] == {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PNG}"}
    assert output["text"] == "clicked"
    kinds = [(kind.removeprefix("response."), fields["item"]["type"]) for kind, fields in told]
    assert kinds == [
        ("output_item.added", "computer_call"),
        ("output_item.done", "computer_call"),
        ("output_item.added", "computer_call_output"),
        ("output_item.done", "computer_call_output"),
    ]
    assert "image_url" not in told[2][1]["item"]["output"]


def test_an_action_that_failed_says_why() -> None:
    projection, _ = projected(assistant(click()), result(text("denied"), is_error=True))
    call, output = projection.output
    assert (call["status"], output["status"], output["error"]) == ("incomplete", "incomplete", "denied")


def test_an_action_that_never_came_back_is_incomplete() -> None:
    projection, _ = projected(assistant(click()), delta("and th"))
    projection.close()
    assert [item["status"] for item in projection.output] == ["incomplete", "incomplete"]


def test_thinking_and_other_tools_are_items_too() -> None:
    other = {"type": "tool_use", "id": "f1", "name": "lookup", "input": {"q": "x"}}
    projection, _ = projected(
        assistant({"type": "thinking", "thinking": "hm"}, other), result(text("found"), call_id="f1")
    )
    reasoning, call, output = projection.output
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "lookup", '{"q":"x"}')
    assert (output["type"], output["output"]) == ("function_call_output", "found")


def test_what_subagents_say_and_nonsense_are_left_out() -> None:
    projection, told = projected(
        message({"type": "assistant", "parent_tool_use_id": "p", "message": {"content": [text("inner")]}}),
        message({"type": "assistant"}),
        message({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "nobody"}]}}),
        SdkMessage(session_id="s", raw=raw_payload([1, 2])),
    )
    assert (projection.output, told) == ([], [])


def test_usage_adds_up_and_cost_is_the_runs_total() -> None:
    def used(cost: float | None, **tokens: int) -> CaUsageSnapshot:
        return CaUsageSnapshot(session_id="s", cost_usd=cost, **tokens)

    projection, _ = projected(
        used(0.01, input_tokens=10, output_tokens=2, cache_read_input_tokens=5), used(0.03, input_tokens=1)
    )
    assert (projection.usage["input_tokens"], projection.usage["output_tokens"]) == (16, 2)
    assert (projection.usage["total_tokens"], projection.usage["response_cost"]) == (18, 0.03)
    assert projection.usage["input_tokens_details"] == {"cached_tokens": 5, "cache_write_tokens": 0}


def test_what_waits_for_a_person_is_told_until_it_is_decided() -> None:
    asked = CaPermissionRequest(session_id="s", call_id="c1", tool_name="computer", input={"action": "type"})
    projection, told = projected(asked)
    assert projection.waiting["c1"]["tool"] == "computer"
    projection.take(CaPermissionDecision(session_id="s", call_id="c1", decision="deny", decided_by="ann"))
    assert projection.waiting == {}
    assert [kind for kind, _ in told] == ["response.approval.requested", "response.approval.decided"]
    projection.take(CaPermissionDecision(session_id="s", call_id="c2", decision="allow", decided_by="policy"))
    assert len(told) == 2  # nobody was asked


@pytest.mark.parametrize(
    ("action", "wired"),
    [
        ({"action": "click", "x": 1, "y": 2, "button": "middle"}, {"type": "click", "button": "wheel", "x": 1, "y": 2}),
        ({"action": "click", "x": 1, "y": 2, "count": 2}, {"type": "double_click", "x": 1, "y": 2}),
        ({"action": "click", "x": 1, "y": 2, "count": 3}, {"type": "triple_click", "button": "left", "x": 1, "y": 2}),
        ({"action": "drag", "path": [[1, 2], [3, 4]]}, {"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}),
        (
            {"action": "scroll", "x": 1, "y": 2, "dy": 240},
            {"type": "scroll", "scroll_x": 0, "scroll_y": 240, "x": 1, "y": 2},
        ),
        ({"action": "wait", "seconds": 1.5}, {"type": "wait", "ms": 1500}),
        ({"action": "mouse_down"}, {"type": "left_mouse_down"}),
        ({"action": "keypress", "keys": ["ctrl", "c"]}, {"type": "keypress", "keys": ["ctrl", "c"]}),
        ({"action": "screenshot"}, {"type": "screenshot"}),
        ({"action": "drag", "path": [[1]]}, {"type": "drag", "action": "drag", "path": [[1]]}),
        ({"action": "click", "count": "x"}, {"type": "click", "action": "click", "count": "x"}),
        ({"action": "wait", "seconds": "long"}, {"type": "wait", "action": "wait", "seconds": "long"}),
    ],
    ids=lambda value: str(value.get("action", "")),
)
def test_actions_have_the_words_of_openais_tool(action: Json, wired: Json) -> None:
    assert wire_action(action) == wired


def test_an_item_without_its_picture_keeps_the_rest() -> None:
    item = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "data:…"}}
    assert without_image(item) == {"type": "computer_call_output", "output": {"type": "computer_screenshot"}}
    assert without_image({"type": "message"}) == {"type": "message"}
