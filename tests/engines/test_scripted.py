"""The scripted engine: deterministic, a real engine in all but thought, and clear about scripts that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from computeragent import EngineError
from computeragent.engines.scripted import ScriptedEngine, parse_script
from computeragent.errors import ScriptError
from computeragent.stores.memory import MemorySessionStore
from puppets import scripted

pytestmark = pytest.mark.anyio


async def chats(folder: Path, script: Any, *messages: str, **options: Any) -> list[Any]:
    async with scripted(folder, script, **options) as agent:
        return [await agent.chat(message) for message in messages]


def results_of(result: Any) -> list[Any]:
    """What the tools of a turn answered, and whether they failed."""
    blocks = [message["message"]["content"][0] for message in result.messages if message["type"] == "user"]
    return [(block["content"], block["is_error"]) for block in blocks]


async def test_without_a_script_it_echoes(tmp_path: Path):
    (result,) = await chats(tmp_path, None, "hi")
    assert result.text == "You said: hi"


async def test_each_message_plays_its_turn_and_past_the_end_it_echoes(tmp_path: Path):
    results = await chats(tmp_path, [[{"text": "one"}], [{"text": "two"}]], "a", "b", "c")
    assert [result.text for result in results] == ["one", "two", "You said: c"]


async def test_text_is_filled_in(tmp_path: Path):
    script = [[], [{"text": "{user} {message} {turn} {other} {}"}]]
    assert (await chats(tmp_path, script, "a", "b"))[1].text == "a b 1 {other} {}"


async def test_write_and_read_really_act(tmp_path: Path):
    script = [
        [
            {"tool": "Write", "input": {"file_path": "a/b.txt", "content": "höflich"}},
            {"tool": "Read", "input": {"file_path": "a/b.txt"}},
            {"tool": "Read", "input": {"file_path": "none.txt"}},
        ]
    ]
    (result,) = await chats(tmp_path, script, "go")
    assert results_of(result) == [
        ("wrote 8 bytes to a/b.txt", False),
        ("höflich", False),
        ("none.txt does not exist", True),
    ]
    assert (tmp_path / "a/b.txt").read_text("utf-8") == "höflich"


async def test_its_tools_do_not_leave_the_workspace(tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    script = [[{"tool": "Write", "input": {"file_path": "../out.txt", "content": "x"}}]]
    (result,) = await chats(folder, script, "go")
    assert results_of(result)[0][1] is True
    assert not (tmp_path / "out.txt").exists()


async def test_any_other_tool_answers_what_the_script_says(tmp_path: Path):
    script = [[{"tool": "Bash", "input": {"command": "ls"}, "result": {"files": []}}, {"tool": "Grep"}]]
    (result,) = await chats(tmp_path, script, "go")
    assert results_of(result) == [({"files": []}, False), ("ok", False)]


async def test_a_denied_tool_does_not_act_and_says_why(tmp_path: Path):
    script = [[{"tool": "Write", "input": {"file_path": "a", "content": "x"}}]]
    deny = {"decision": "deny", "reason": "no writing"}
    (result,) = await chats(tmp_path, script, "go", on_tool_call=lambda request: deny)
    assert results_of(result) == [("no writing", True)]
    assert not (tmp_path / "a").exists()


async def test_a_modified_tool_acts_on_the_new_input(tmp_path: Path):
    script = [[{"tool": "Write", "input": {"file_path": "a", "content": "x"}}]]
    modify = {"decision": "modify", "input": {"file_path": "b", "content": "y"}}
    await chats(tmp_path, script, "go", on_tool_call=lambda request: modify)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").read_text() == "y"


async def test_turns_go_on_where_a_store_remembers_the_earlier_ones(tmp_path: Path):
    store = MemorySessionStore()
    script = [[{"text": "one"}], [{"text": "two, after {user}"}]]
    options = {"session_id": "s", "session_store": store}
    assert (await chats(tmp_path, script, "a", **options))[0].text == "one"
    assert (await chats(tmp_path, script, "b", **options))[0].text == "two, after a"


async def test_a_step_may_end_the_run(tmp_path: Path):
    (result,) = await chats(tmp_path, [[{"end": "budget_exceeded"}, {"text": "never"}]], "go")
    assert result.ended.reason == "budget_exceeded"
    with pytest.raises(EngineError, match="RuntimeError: the engine broke"):
        await chats(tmp_path, [[{"raise": "the engine broke"}]], "go")


@pytest.mark.parametrize("semantic", ["cumulative", "delta", None])
async def test_a_budget_ends_the_run_once_it_is_passed(semantic: Any, tmp_path: Path):
    costs = [0.4, 0.4, 0.4] if semantic == "delta" else [0.4, 0.8, 1.2]
    usage = [{"usage": {"cost_usd": cost} | ({"cost_semantic": semantic} if semantic else {})} for cost in costs]
    (result,) = await chats(tmp_path, [[*usage, {"text": "never"}]], "go", budget_max_usd=1.0)
    assert result.ended.reason == "budget_exceeded"
    assert result.usage.cost_usd == pytest.approx(1.2)
    assert result.messages[-1]["subtype"] == "error_max_budget_usd"


async def test_a_script_is_a_file_too(tmp_path: Path):
    script = tmp_path / "script.yaml"
    script.write_text("turns:\n  - - text: from a file\n")
    async with scripted(tmp_path, options={"script": str(script)}) as agent:
        assert (await agent.chat("go")).text == "from a file"


async def test_the_model_is_announced(tmp_path: Path):
    (result,) = await chats(tmp_path, None, "hi", model="tiny-1")
    assert result.messages[0] == {"type": "system", "subtype": "init", "model": "tiny-1"}


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([[{"txt": "x"}]], r"script: Object contains unknown field `txt` - at `$[0][0]`"),
        ([[{"text": 5}]], r"script: Expected `str | null`, got `int` - at `$[0][0].text`"),
        ([[{"usage": {"tokens": 5}}]], r"script: Object contains unknown field `tokens` - at `$[0][0].usage`"),
        ([[{"end": "tired"}]], r"script: Invalid enum value 'tired' - at `$[0][0].end`"),
        ([{"text": "x"}], r"script: Expected `array`, got `object` - at `$[0]`"),
        ({"turn": []}, "script has no turns"),
        (5, r"script: Expected `array`, got `int`"),
    ],
)
def test_a_script_that_is_wrong_is_refused_with_the_place(script: Any, says: str):
    with pytest.raises(ScriptError) as caught:
        parse_script(script)
    assert caught.value.message == says
    assert caught.value.hint
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("text", "says"),
    [("turns: [", "script s.yaml is not valid YAML: "), ("turns: 5", "s.yaml: Expected `array`, got `int`")],
)
def test_a_file_that_is_no_script_is_refused_by_name(text: str, says: str, tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScriptError) as caught:
        parse_script(path)
    assert caught.value.message.startswith(says)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ScriptError, match=r"^script gone\.yaml cannot be read: No such file or directory$"):
        parse_script(tmp_path / "gone.yaml")


def test_no_script_is_an_empty_one():
    assert parse_script(None) == parse_script([]) == parse_script({"turns": None}) == []


async def test_a_wrong_script_ends_the_run_with_its_own_code(tmp_path: Path):
    async with scripted(tmp_path, [[{"txt": "x"}]]) as agent:
        with pytest.raises(EngineError) as caught:
            await agent.chat("go")
    assert caught.value.code == "SCRIPT_INVALID"


def test_one_engine_serves_many_sessions():
    assert ScriptedEngine().name == ScriptedEngine.name == "scripted"
