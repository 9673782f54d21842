"""Each model's words for a computer: what they mean, what is refused, how a screen is scaled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeragent.computer.actions import (
    Action,
    Click,
    CursorPosition,
    Drag,
    Goto,
    HoldKey,
    Keypress,
    MouseDown,
    MouseUp,
    Move,
    Scroll,
    Shot,
    Type,
    Wait,
    Zoom,
)
from computeragent.computer.types import Point, Size
from computeragent.dialects import DIALECTS
from computeragent.dialects.model import Media, ModelRequest, Text, ToolCall, Usage
from computeragent.engines.computer_use.formats import NAMES, Composed, Sight, choose, named
from computeragent.engines.computer_use.formats.composed import point_in
from computeragent.engines.computer_use.screen import Limit, Screen
from computeragent.errors import ComputerActionError, ValidationError

from .parts import SaysModel

pytestmark = pytest.mark.anyio
SIGHT = Sight(None, Size(1280, 800), lambda _name, _usage: None)


async def read(tool_format: str, name: str = "computer", **arguments: Any) -> tuple[Action, ...]:
    call = ToolCall(id="c", name=name, input=arguments)
    return (await named(tool_format).read(call, SIGHT)).actions


ANTHROPIC = [
    ({"action": "screenshot"}, Shot()),
    ({"action": "left_click", "coordinate": [3, 4]}, Click(x=3, y=4)),
    ({"action": "left_click"}, Click()),
    ({"action": "left_click", "coordinate": [3, 4], "text": "ctrl+shift"}, Click(x=3, y=4, keys=("ctrl", "shift"))),
    ({"action": "right_click", "coordinate": ["3", 4.7]}, Click(x=3, y=4, button="right")),
    ({"action": "middle_click", "coordinate": [3, 4]}, Click(x=3, y=4, button="middle")),
    ({"action": "double_click", "coordinate": [3, 4]}, Click(x=3, y=4, count=2)),
    ({"action": "triple_click", "coordinate": [3, 4]}, Click(x=3, y=4, count=3)),
    ({"action": "mouse_move", "coordinate": [3, 4]}, Move(x=3, y=4)),
    (
        {"action": "left_click_drag", "start_coordinate": [1, 2], "coordinate": [3, 4]},
        Drag(path=(Point(1, 2), Point(3, 4))),
    ),
    ({"action": "left_mouse_down"}, MouseDown()),
    ({"action": "left_mouse_up", "coordinate": [3, 4]}, MouseUp(x=3, y=4)),
    ({"action": "cursor_position"}, CursorPosition()),
    ({"action": "type", "text": "Grüße 漢"}, Type(text="Grüße 漢")),
    ({"action": "key", "text": "Return"}, Keypress(keys=("enter",))),
    ({"action": "key", "text": "ctrl+minus"}, Keypress(keys=("ctrl", "-"))),
    ({"action": "key", "text": "ctrl+-"}, Keypress(keys=("ctrl", "-"))),
    ({"action": "key", "text": "ctrl+A"}, Keypress(keys=("ctrl", "a"))),
    ({"action": "key", "text": "Down Down Down"}, Keypress(keys=("down",), repeat=3)),
    ({"action": "key", "text": "Tab", "repeat": 4}, Keypress(keys=("tab",), repeat=4)),
    ({"action": "hold_key", "text": "shift", "duration": 1.5}, HoldKey(keys=("shift",), seconds=1.5)),
    ({"action": "wait", "duration": 2}, Wait(seconds=2.0)),
    (
        {"action": "scroll", "coordinate": [3, 4], "scroll_direction": "down", "scroll_amount": 3},
        Scroll(x=3, y=4, dy=360),
    ),
    (
        {"action": "scroll", "scroll_direction": "left", "scroll_amount": 1, "text": "shift"},
        Scroll(dx=-120, keys=("shift",)),
    ),
    ({"action": "zoom", "region": [0, 0, 640, 400]}, Zoom(region=(0, 0, 640, 400))),
]


@pytest.mark.parametrize("tool_format", ["computer_20241022", "computer_20250124", "computer_20251124"])
@pytest.mark.parametrize(("arguments", "meant"), ANTHROPIC)
async def test_anthropics_actions(tool_format: str, arguments: dict[str, Any], meant: Action) -> None:
    assert await read(tool_format, **arguments) == (meant,)


@pytest.mark.parametrize(("arguments", "meant"), ANTHROPIC)
async def test_anthropics_toolset_names_calls_by_their_action(arguments: dict[str, Any], meant: Action) -> None:
    rest = {name: value for name, value in arguments.items() if name != "action"}
    toolset = named("computer_toolset_20260801")
    call = ToolCall(id="c", name=arguments["action"], input=rest)
    assert toolset.claims(call)
    assert (await toolset.read(call, SIGHT)).actions == (meant,)


async def test_the_oldest_drag_begins_where_the_pointer_is() -> None:
    actions = await read("computer_20241022", action="left_click_drag", coordinate=[3, 4])
    assert actions == (MouseDown(), Move(x=3, y=4), MouseUp(x=3, y=4))


async def test_keys_behind_one_another_are_pressed_so() -> None:
    assert await read("computer_20250124", action="key", text="ctrl+a Delete") == (
        Keypress(keys=("ctrl", "a")),
        Keypress(keys=("delete",)),
    )


OPENAI = [
    ({"type": "screenshot"}, Shot()),
    ({"type": "click", "x": 3, "y": 4, "button": "left"}, Click(x=3, y=4)),
    ({"type": "click", "x": 3, "y": 4, "button": "wheel"}, Click(x=3, y=4, button="middle")),
    ({"type": "click", "x": 3, "y": 4, "button": "back"}, Click(x=3, y=4, button="back")),
    ({"type": "click", "x": 3, "y": 4, "button": "left", "keys": ["SHIFT"]}, Click(x=3, y=4, keys=("shift",))),
    ({"type": "double_click", "x": 3, "y": 4}, Click(x=3, y=4, count=2)),
    ({"type": "move", "x": 3, "y": 4}, Move(x=3, y=4)),
    ({"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}, Drag(path=(Point(1, 2), Point(3, 4)))),
    ({"type": "keypress", "keys": ["CTRL", "L"]}, Keypress(keys=("ctrl", "l"))),
    ({"type": "keypress", "keys": ["ENTER"]}, Keypress(keys=("enter",))),
    ({"type": "type", "text": "hi"}, Type(text="hi")),
    ({"type": "scroll", "x": 3, "y": 4, "scroll_x": 0, "scroll_y": -250}, Scroll(x=3, y=4, dy=-250)),
    ({"type": "wait"}, Wait(seconds=2.0)),
]


@pytest.mark.parametrize(("action", "meant"), OPENAI)
async def test_openais_actions(action: dict[str, Any], meant: Action) -> None:
    assert await read("computer_use_preview", action=action) == (meant,)


async def test_openais_batch_is_several_actions() -> None:
    actions = await read("computer", actions=[action for action, _ in OPENAI])
    assert actions == tuple(meant for _, meant in OPENAI)


FUNCTION = [
    ({"action": "screenshot"}, Shot()),
    ({"action": "click", "x": 3, "y": 4}, Click(x=3, y=4)),
    ({"action": "left_click", "coordinate": [3, 4]}, Click(x=3, y=4)),
    ({"action": "click", "point": {"x": 3, "y": 4}, "count": 2}, Click(x=3, y=4, count=2)),
    ({"action": "right_click", "x": 3, "y": 4}, Click(x=3, y=4, button="right")),
    ({"action": "double_click", "x": "3", "y": "4"}, Click(x=3, y=4, count=2)),
    ({"action": "hotkey", "key": "ctrl+c"}, Keypress(keys=("ctrl", "c"))),
    ({"action": "keypress", "keys": ["ctrl", "shift", "T"]}, Keypress(keys=("ctrl", "shift", "t"))),
    ({"action": "scroll", "x": 3, "y": 4, "dy": 200}, Scroll(x=3, y=4, dy=200)),
    ({"action": "scroll", "direction": "up", "amount": 2}, Scroll(dy=-240)),
    ({"action": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}, Drag(path=(Point(1, 2), Point(3, 4)))),
    (
        {"action": "left_click_drag", "start_coordinate": [1, 2], "coordinate": [3, 4]},
        Drag(path=(Point(1, 2), Point(3, 4))),
    ),
    ({"action": "wait", "seconds": 0.5}, Wait(seconds=0.5)),
    ({"action": "goto", "url": "http://x"}, Goto(url="http://x")),
]


@pytest.mark.parametrize(("arguments", "meant"), FUNCTION)
async def test_the_functions_actions(arguments: dict[str, Any], meant: Action) -> None:
    assert await read("function", **arguments) == (meant,)


@pytest.mark.parametrize("tool_format", [name for name in NAMES if name != "computer_toolset_20260801"])
@settings(deadline=None)
@given(
    junk=st.dictionaries(
        st.sampled_from(["action", "type", "coordinate", "x", "y", "text", "keys", "path", "region", "actions"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=8)
            | st.sampled_from(["click", "type", "key"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_junk_is_read_or_refused_and_never_a_crash(tool_format: str, junk: dict[str, Any]) -> None:
    with pytest.raises((ComputerActionError, StopIteration)) as ended:
        read(tool_format, **junk).send(None)  # it waits for nothing
    assert not isinstance(ended.value, StopIteration) or ended.value.value


@pytest.mark.parametrize(
    ("tool_format", "arguments"),
    [
        ("computer_20250124", {"action": "wait", "duration": 3_600}),
        ("computer_20250124", {"action": "key", "text": "a", "repeat": 10_000}),
        ("computer_20250124", {"action": "scroll", "scroll_direction": "in", "scroll_amount": 1}),
        ("computer", {"actions": [{"type": "screenshot"}] * 51}),
        ("function", {"action": "click", "x": 3}),
        ("function", {"action": "drag"}),
    ],
)
async def test_what_goes_too_far_is_refused(tool_format: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ComputerActionError):
        await read(tool_format, **arguments)


# ── Which format ──


@pytest.mark.parametrize(
    ("model", "dialect", "expected"),
    [
        ("claude-3-5-sonnet-20241022", "anthropic", "computer_20241022"),
        ("claude-3-7-sonnet-20250219", "anthropic", "computer_20250124"),
        ("claude-sonnet-4-20250514", "anthropic", "computer_20250124"),
        ("claude-opus-4-1-20250805", "anthropic", "computer_20250124"),
        ("claude-sonnet-4-5-20250929", "anthropic", "computer_20250124"),
        ("claude-haiku-4-5", "anthropic", "computer_20250124"),
        ("claude-opus-4-5", "anthropic", "computer_20251124"),
        ("claude-opus-4-6", "anthropic", "computer_20251124"),
        ("claude-sonnet-4-6", "anthropic", "computer_20251124"),
        ("claude-opus-5-5", "anthropic", "computer_20251124"),
        ("computer-use-preview", "openai_responses", "computer_use_preview"),
        ("gpt-5.4", "openai_responses", "computer"),
        ("gpt-6", "openai_responses", "computer"),
        ("gpt-5", "openai_responses", "function"),
        ("gpt-4o", "openai_responses", "function"),
        ("qwen2.5-vl", "openai_chat", "function"),
        ("anything", "neutral", "function"),
    ],
)
def test_a_model_gets_the_tool_that_it_knows(model: str, dialect: str, expected: str) -> None:
    assert choose(model, dialect).name == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_tool_can_be_written_on_its_wire(name: str) -> None:
    wire = "anthropic" if "20" in name else "openai_responses" if name.startswith("computer") else "openai_chat"
    tools = named(name).tools(Size(1024, 768), "linux")
    body = DIALECTS[wire].build_request(ModelRequest(model="m", tools=tools, dialect=wire))
    (tool,) = body["tools"]
    assert tool["type"] == name
    if name.startswith("computer_20"):
        assert (tool["name"], tool["display_width_px"], tool["display_height_px"]) == ("computer", 1024, 768)
        assert tool.get("enable_zoom") == (True if name == "computer_20251124" else None)
    if name == "computer_use_preview":
        assert (tool["display_width"], tool["display_height"], tool["environment"]) == (1024, 768, "linux")
    if name == "computer_toolset_20260801":
        assert "name" not in tool


# ── The screen ──


def test_a_screen_that_the_model_takes_as_it_is_is_not_scaled() -> None:
    screen = Screen.fit(Size(1280, 800), limit=Limit(1280, 800, 1280 * 800))
    assert screen.shown == (1280, 800)
    assert screen.to_real(Click(x=17, y=31)) == Click(x=17, y=31)


def test_a_large_screen_is_shown_smaller_in_its_own_proportions() -> None:
    screen = Screen.fit(Size(2560, 1600), limit=Limit(1280, 800, 1280 * 800))
    assert screen.shown == (1280, 800)
    assert screen.to_real(Click(x=100, y=50)) == Click(x=201, y=101)
    assert screen.to_real(Scroll(dy=100)) == Scroll(dy=200)
    assert screen.to_real(Scroll(dy=120), notches=True) == Scroll(dy=120)
    assert screen.to_real(Zoom(region=(0, 0, 1280, 800))) == Zoom(region=(0, 0, 2560, 1600))


def test_a_huge_screen_keeps_its_pixels_within_the_limit() -> None:
    shown = Screen.fit(Size(3000, 3000), limit=Limit(1568, 1568, 1_150_000)).shown
    assert shown.width * shown.height <= 1_150_000


@given(
    real=st.tuples(st.integers(64, 4000), st.integers(64, 4000)),
    shown=st.tuples(st.integers(64, 2000), st.integers(64, 2000)),
    at=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_points_stay_on_the_screen_and_come_back(
    real: tuple[int, int], shown: tuple[int, int], at: tuple[float, float]
) -> None:
    screen = Screen.fit(Size(*real), wanted=Size(*shown))
    point = Point(int(at[0] * shown[0]), int(at[1] * shown[1]))
    found = screen.to_real(Click(x=point.x, y=point.y))
    assert isinstance(found, Click)
    assert found.x is not None
    assert found.y is not None
    assert 0 <= found.x < real[0]
    assert 0 <= found.y < real[1]
    if shown[0] <= real[0] and shown[1] <= real[1]:
        assert screen.to_shown(Point(found.x, found.y)) == point


@pytest.mark.parametrize(
    "action",
    [
        Click(x=1280, y=0),
        Click(x=-1, y=5),
        Move(x=0, y=800),
        Drag(path=(Point(0, 0), Point(1281, 3))),
        Zoom(region=(0, 0, 1281, 800)),
        Zoom(region=(5, 5, 5, 9)),
    ],
)
def test_nothing_outside_of_what_was_shown_passes(action: Action) -> None:
    with pytest.raises(ComputerActionError):
        Screen(Size(2560, 1600), Size(1280, 800)).to_real(action)


# ── Two models as one ──


@pytest.mark.parametrize(
    ("said", "point"),
    [
        ("(123, 45)", Point(123, 45)),
        ("[123, 45]", Point(123, 45)),
        ('{"x": 123, "y": 45}', Point(123, 45)),
        ("click(start_box='(123,45)')", Point(123, 45)),
        ("<point>123 45</point>", Point(123, 45)),
        ("x=123.6, y=45.2", Point(123, 45)),
        ("I do not see it.", None),
    ],
)
def test_a_grounding_models_answer_in_any_spelling(said: str, point: Point | None) -> None:
    assert point_in(said) == point


async def test_the_grounding_model_says_where_the_element_is() -> None:
    spent: list[tuple[str, Usage]] = []
    grounding = SaysModel("(30, 40)")
    style = Composed(grounding)
    picture = Media(kind="image", media_type="image/png", data="aGk=")
    sight = Sight(picture, Size(640, 480), lambda name, usage: spent.append((name, usage)))
    call = ToolCall(id="c", name="computer", input={"action": "click", "element": "the Save button"})
    assert (await style.read(call, sight)).actions == (Click(x=30, y=40),)
    (asked,) = grounding.asked
    assert asked.messages[0].content[0] == picture
    assert "the Save button" in asked.messages[0].text
    assert spent == [("says", Usage(input_tokens=100, output_tokens=10))]


async def test_an_element_that_is_not_found_is_told() -> None:
    picture = Media(kind="image", data="aGk=")
    sight = Sight(picture, Size(640, 480), lambda _name, _usage: None)
    call = ToolCall(id="c", name="computer", input={"action": "click", "element": "a unicorn"})
    with pytest.raises(ComputerActionError, match="was not found"):
        await Composed(SaysModel("It is not there.")).read(call, sight)
    with pytest.raises(ComputerActionError, match="nothing has been seen"):
        await Composed(SaysModel()).read(call, SIGHT)


def test_a_format_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(ValidationError) as failed:
        named("computer_1999")
    assert "computer_20250124" in str(failed.value.hint)


def test_an_answer_is_made_of_text_and_one_picture() -> None:
    call = ToolCall(id="c", name="computer", input={}, extra={"type": "computer_call"})
    parts = [Text("There."), Media(kind="image", media_type="image/png", data="aGk=")]
    for name in NAMES:
        result = named(name).result(call, parts, failed=False, acknowledged=())
        assert isinstance(result.content[-1], Media)
