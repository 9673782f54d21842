"""Computer actions of a script, as each kind of computer tool has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.computer.actions import Click, CursorPosition, Drag, Goto, Keypress, Scroll, Shot, Type, Zoom
from computeragent.dialects import Message, ModelRequest, Text, Tool
from computeragent.errors import ScriptError
from computeragent.models.script import ComputerUse, Player, Reply, Rule, Script, ToolUse, parse_script

ANTHROPIC = Tool(name="computer", kind="computer_20250124")
OLDEST = Tool(name="computer", kind="computer_20241022")
TOOLSET = Tool(name="computer", kind="computer_toolset_20260801")
PREVIEW = Tool(name="computer", kind="computer_use_preview")
BATCH = Tool(name="computer", kind="computer")
FUNCTION = Tool(name="computer")


def played(reply: Reply, *tools: Tool):
    script = Script(rules=(Rule(match="go", turns=(reply,)),))
    request = ModelRequest(model="m", messages=(Message("user", (Text("go"),)),), tools=tools)
    response = Player(script).play(request).response
    assert response is not None
    return response


def inputs(tool: Tool, *actions):
    return [(call.name, call.input) for call in played(Reply(computer=ComputerUse(actions=actions)), tool).tool_calls]


def test_anthropic_s_tool_is_called_once_for_each_action():
    assert inputs(ANTHROPIC, Click(x=5, y=6, count=2), Scroll(x=1, y=2, dy=360), Keypress(keys=("ctrl", "enter"))) == [
        ("computer", {"action": "double_click", "coordinate": [5, 6]}),
        ("computer", {"action": "scroll", "coordinate": [1, 2], "scroll_direction": "down", "scroll_amount": 3}),
        ("computer", {"action": "key", "text": "ctrl+Return"}),
    ]


def test_the_oldest_tool_moves_before_it_clicks():
    assert inputs(OLDEST, Click(x=5, y=6)) == [
        ("computer", {"action": "mouse_move", "coordinate": [5, 6]}),
        ("computer", {"action": "left_click"}),
    ]


def test_a_toolset_s_calls_are_named_by_their_action():
    [call] = played(Reply(computer=ComputerUse(actions=(Click(x=5, y=6, keys=("shift",)),))), TOOLSET).tool_calls
    assert (call.name, call.input) == ("left_click", {"coordinate": [5, 6], "text": "shift"})
    assert call.extra == {"toolset_name": "computer"}


def test_the_preview_gets_a_call_for_each_action_and_its_successor_one_for_all():
    actions = (Click(x=5, y=6, button="middle"), Drag(path=((1, 2), (3, 4))))
    click = {"type": "click", "button": "wheel", "x": 5, "y": 6}
    drag = {"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
    assert inputs(PREVIEW, *actions) == [("computer", {"action": click}), ("computer", {"action": drag})]
    assert inputs(BATCH, *actions) == [("computer", {"actions": [click, drag]})]


def test_pending_safety_checks_stand_beside_the_call():
    check = {"id": "sc_1", "code": "malicious_instructions", "message": "Really?"}
    use = ComputerUse(actions=(Shot(),), safety_checks=(check,))
    [call] = played(Reply(computer=use), PREVIEW).tool_calls
    assert call.extra == {"type": "computer_call", "status": "completed", "pending_safety_checks": [check]}


@pytest.mark.parametrize(
    ("tool", "action"),
    [
        (PREVIEW, Zoom(region=(0, 0, 1, 1))),
        (BATCH, CursorPosition()),
        (ANTHROPIC, Goto(url="x")),
        (OLDEST, Scroll(dy=1)),
    ],
)
def test_what_a_tool_has_no_word_for_is_not_called(tool, action):
    response = played(Reply(computer=ComputerUse(actions=(action,))), tool)
    assert response.tool_calls == ()
    assert "computer" in response.text


def test_without_a_computer_tool_nothing_is_called():
    assert played(Reply(computer=ComputerUse(actions=(Shot(),)))).tool_calls == ()


def test_a_wire_s_own_words_can_be_called_as_any_tool():
    raw = Reply(tools=(ToolUse(name="computer", input={"action": {"type": "click", "x": 1}}),))
    [call] = played(raw, PREVIEW).tool_calls
    assert (call.input, call.extra["type"]) == ({"action": {"type": "click", "x": 1}}, "computer_call")
    [call] = played(Reply(tools=(ToolUse(name="left_click", input={"coordinate": [1, 2]}),)), TOOLSET).tool_calls
    assert (call.name, call.extra) == ("left_click", {"toolset_name": "computer"})


def test_groups_are_filled_into_actions():
    script = parse_script("- {match: 'type (\\w+)', turns: [{computer: {action: type, text: $1}}]}")
    request = ModelRequest(model="m", messages=(Message("user", (Text("type hello"),)),), tools=(FUNCTION,))
    assert Player(script).play(request).response.tool_calls[0].input == {"action": "type", "text": "hello"}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("computer: {action: clik, x: 1}", "Actions: screenshot"),
        ("computer: {action: click, z: 1}", "z"),
        ("computer: []", "empty"),
        ("computer: later", "mapping"),
        ("safety_checks: [{id: a}]", "computer"),
    ],
)
def test_a_wrong_action_is_refused_with_its_line(reply, told):
    with pytest.raises(ScriptError) as caught:
        parse_script(f"- match: a\n  turns:\n    - {reply}\n")
    assert caught.value.message.startswith("script:3:")
    assert told in f"{caught.value.message} {caught.value.hint}"


@given(st.text(max_size=50), st.integers(0, 2000), st.integers(0, 2000), st.sampled_from([ANTHROPIC, BATCH, FUNCTION]))
def test_text_and_points_reach_every_tool_unchanged(text, x, y, tool):
    found = inputs(tool, Type(text=text.replace("$", "")), Click(x=x, y=y))
    flat = str(found)
    assert repr(text.replace("$", "")) in flat
    assert str(x) in flat
    assert str(y) in flat
