"""Which reply answers: a function of the conversation and of nothing else."""

import pytest

from computeragent.dialects import Message, ModelRequest, Text, Tool, ToolCall, ToolChoice, ToolResult
from computeragent.models.script.matching import choose_reply, typed_text
from computeragent.models.script.replies import build_reply, conversation_key
from computeragent.testing.models import Reply, Rule, Script, ToolUse

SCRIPT = Script(
    rules=(
        Rule(match=r"write (\w+)", turns=(Reply(text="one $1"), Reply(text="two $1"))),
        Rule(match="haiku only", model="haiku", turns=(Reply(text="small"),)),
        Rule(match="careful", system="be careful", turns=(Reply(text="I am"),)),
    )
)


def user(*texts: str) -> Message:
    return Message("user", tuple(Text(text) for text in texts))


def answer(text: str = "ok") -> Message:
    return Message("assistant", (Text(text),))


def result(*texts: str) -> Message:
    return Message("user", (ToolResult(call_id="t", content=(Text("data"),)), *(Text(text) for text in texts)))


def ask(*messages: Message, script: Script = SCRIPT, **options) -> str:
    request = ModelRequest(model=options.pop("model", "opus"), messages=messages, **options)
    reply, turn = choose_reply(script, request)
    return build_reply(reply, turn, "key").text


def test_the_turn_is_the_number_of_answers_since_the_users_message():
    assert ask(user("Write a")) == "one a"
    assert ask(user("write a"), answer()) == "two a"
    assert ask(user("write a"), answer(), result()) == "two a"
    assert ask(user("write a"), answer(), result(), answer(), user("write b")) == "one b"


def test_a_finished_rule_closes():
    assert ask(user("write a"), answer(), result(), answer(), result()) == "Done."


def test_a_finished_rule_gives_way_to_what_was_typed_later():
    assert ask(user("write a"), answer(), result(), answer(), user("hello")) == "You said: hello"


def test_a_running_rule_goes_on_past_messages_that_no_rule_matches():
    assert ask(user("write a"), answer(), user("go on")) == "two a"


def test_an_interrupted_rule_does_not_go_on():
    interrupted = (user("write a"), answer(), result("[Request interrupted by user for tool use]\n", "and now?"))
    assert ask(*interrupted) == "You said: and now?"
    assert ask(user("write a"), user("[Request interrupted by user]", "hi"), answer(), user("write b")) == "one b"


def test_what_no_rule_matches_is_echoed():
    assert ask(user("how are\nyou?")) == "You said: how are\nyou?"
    assert ask() == "You said: "


def test_conditions_on_the_model_and_the_system_prompt():
    assert ask(user("haiku only")) == "You said: haiku only"
    assert ask(user("haiku only"), model="claude-haiku-5-5") == "small"
    assert ask(user("careful")) == "You said: careful"
    assert ask(user("careful"), system=(Text("Please be careful."),)) == "I am"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (user("<system-reminder>\nx\n</system-reminder>", "hello"), "hello"),
        (user("hello", "<system-reminder>write b</system-reminder>"), "hello"),
        (user("<system-reminder>only</system-reminder>"), None),
        (user("<div> is what?"), "<div> is what?"),
        (user("[Request interrupted by user]"), None),
        (result(), None),
        (result("<total_tokens>5</total_tokens>"), None),
        (result("Tool loaded."), None),
        (result("[Request interrupted by user for tool use]", "something else"), "something else"),
    ],
)
def test_only_what_somebody_typed_counts(message, text):
    assert typed_text(message) == text


def test_one_answer_in_several_assistant_messages_counts_once():
    assert ask(user("write a"), answer("thinking"), answer("calling"), result()) == "two a"


def test_system_messages_in_the_conversation_do_not_matter():
    note = Message("system", (Text("write zzz"),))
    assert ask(user("write a"), note) == "one a"
    assert ask(user("write a"), note, answer(), note) == "two a"


def test_groups_are_filled_into_texts_and_inputs():
    reply = Reply(
        text="$1 and ${who}, $$1, ${HOME}, all: $0",
        tools=(ToolUse(name="Write", input={"a": ["$1", {"b": "${who}", "c": 3}]}),),
    )
    script = Script(rules=(Rule(match=r"(\w+) for (?P<who>\w+)", turns=(reply,)),))
    request = ModelRequest(model="m", messages=(user("cake for Bob"),), tools=(Tool(name="Write"),))
    response = build_reply(*choose_reply(script, request), "k")
    assert response.text == "cake and Bob, $1, ${HOME}, all: cake for Bob"
    assert response.tool_calls[0].input == {"a": ["cake", {"b": "Bob", "c": 3}]}
    assert response.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "options",
    [{}, {"tools": (Tool(name="Read"),)}, {"tools": (Tool(name="Bash"),), "tool_choice": ToolChoice("none")}],
)
def test_a_tool_that_was_not_offered_is_never_called(options):
    script = Script(rules=(Rule(turns=(Reply(tools=(ToolUse(name="Bash"),)),)),))
    request = ModelRequest(model="m", messages=(user("x"),), **options)
    response = build_reply(*choose_reply(script, request), "k")
    assert response.tool_calls == ()
    assert response.text == "I would use Bash here, but it was not offered to me."
    assert response.stop_reason == "end_turn"


def test_tool_results_are_echoed():
    script = Script(rules=(Rule(turns=(Reply(text="call"), Reply(text="Got:", echo_tool_results=True))),))
    call = Message("assistant", (ToolCall(id="t", name="Bash"),))
    assert ask(user("x"), call, result(), script=script) == "Got:\ndata"


def test_a_reply_may_be_a_function_of_the_turn():
    script = Script(rules=(Rule(match="a(.)", turns=(lambda turn: Reply(text=f"{turn.index}{turn.match[1]}"),)),))
    assert ask(user("ab"), script=script) == "0b"


def test_usage_follows_from_the_request():
    request = ModelRequest(model="m", messages=(user("x" * 388),))
    response = build_reply(*choose_reply(Script(rules=(Rule(turns=(Reply(text="y" * 40),)),)), request), "k")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (100, 10)


def test_a_retry_is_the_same_conversation_whatever_its_cache_marks():
    one = ModelRequest(model="m", messages=(user("a"), Message("system", (Text("now"),))))
    two = ModelRequest(
        model="n", messages=(Message("user", (Text("a", {"cache_control": {"type": "ephemeral"}}),)),), stream=True
    )
    assert conversation_key(one) == conversation_key(two)
    assert conversation_key(one) != conversation_key(ModelRequest(model="m", messages=(user("b"),)))
