"""Which requests are the agent's main conversation: titles, sub-agents and summaries are told apart from it."""

from __future__ import annotations

import pytest
from inspect_ai.agent import AgentState
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelOutput,
)
from inspect_ai.tool import ToolCall

from computeragent.swe.bridge.conversation import Conversations

PROMPT = "Fix the failing test in parser.py"
TOOLS = ["bash", "edit", "task"]
SYSTEM = "You are a coding agent. " * 5


class Agent:
    """An agent that talks through a bridge: it keeps its own conversation, as plain text, and sends it whole."""

    def __init__(self, conversations: Conversations, system: str = SYSTEM, tools=TOOLS) -> None:
        self._conversations, self.system, self.tools = conversations, system, tools
        self.kept: list[tuple] = []

    def says(self, text: str) -> None:
        self.kept.append(("user", text))

    def answered(self, text: str) -> None:
        self.kept.append(("tool", text))

    def asks(self, answer: str, call: str | None = None, **arguments: str):
        """One request, and the answer to it; `call` is the id of a call in the answer, with these arguments."""
        messages = [ChatMessageSystem(content=self.system)]
        last = ""
        for role, text, *more in self.kept:
            if role == "user":
                messages.append(ChatMessageUser(content=text))
            elif role == "tool":
                messages.append(ChatMessageTool(content=text, tool_call_id=last))
            else:
                last = more[0]
                calls = [ToolCall(id=last, function="bash", arguments={})] if last else None
                messages.append(ChatMessageAssistant(content=text, tool_calls=calls))
        known = self._conversations.recognise(messages)
        calls = [ToolCall(id=call, function="bash", arguments=arguments)] if call else None
        output = ModelOutput.from_message(ChatMessageAssistant(content=answer, tool_calls=calls))
        self._conversations.record(known, self.tools, output)
        self.kept.append(("assistant", answer, call))
        return known


@pytest.fixture
def state():
    return AgentState(messages=[ChatMessageUser(content=PROMPT, id="the-prompt")])


@pytest.fixture
def conversations(state):
    return Conversations(state)


def said(state) -> list[str]:
    return [message.text for message in state.messages if message.role != "system"]


def side(conversations, prompt: str, answer: str) -> None:
    call = Agent(conversations, "Write a title.", [])
    call.says(prompt)
    call.asks(answer)


def test_messages_keep_their_ids(state, conversations):
    main = Agent(conversations)
    main.says(PROMPT)
    main.asks("Looking.", "c1")
    main.answered("ok")
    main.asks("Looking.", "c2")
    main.answered("ok")
    first = [message.id for message in main.asks("Done.")]
    main.says("More.")
    second = [message.id for message in main.asks("Done.")]
    assert second[: len(first)] == first
    assert len({*second}) == len(second), "the same words twice are two messages"
    assert first[1] == "the-prompt"
    assert [message.id for message in state.messages][: len(second)] == second


@pytest.mark.parametrize("before", [True, False])
def test_a_title_is_no_conversation(state, conversations, before):
    main = Agent(conversations)
    main.says(PROMPT)
    if before:
        side(conversations, f"Give a title to: {PROMPT}", "Fixing a test")
    main.asks("Looking.", "c1")
    if not before:
        side(conversations, f"Give a title to: {PROMPT}", "Fixing a test")
    assert said(state) == [PROMPT, "Looking."]
    main.answered("ok")
    side(conversations, "Is it a new topic?", "no")
    main.asks("Done.")
    side(conversations, PROMPT, "no")
    assert said(state) == [PROMPT, "Looking.", "ok", "Done."]
    assert state.output.completion == "Done."


def test_a_prompt_that_the_agent_wraps_is_still_the_users(state, conversations):
    side(conversations, PROMPT, "Fixing a test")
    main = Agent(conversations)
    main.says(f'<env>today</env>\n"{PROMPT}"\n')
    main.asks("Done.")
    assert said(state)[-1] == "Done."


def test_a_sub_agent_stays_apart_however_long_it_works(state, conversations):
    main = Agent(conversations)
    main.says(PROMPT)
    main.asks("I send somebody.", "c1")
    sub = Agent(conversations, "You explore. " * 9, ["bash"])
    sub.says("Find the parser")
    for n in range(5):
        sub.asks(f"step {n}", f"s{n}")
        sub.answered("ok")
    sub.asks("It is in src.")
    assert said(state) == [PROMPT, "I send somebody."]
    main.answered("It is in src.")
    main.asks("Done.")
    assert said(state) == [PROMPT, "I send somebody.", "It is in src.", "Done."]


def test_a_sub_agent_that_is_like_the_agent_stays_apart(state, conversations):
    main = Agent(conversations)
    main.says(PROMPT)
    main.asks("I send somebody.", "c1", message="Find the parser")
    sub = Agent(conversations)
    sub.says("Find the parser")
    sub.asks("Looking.", "s1")
    sub.answered("ok")
    sub.asks("It is in src.")
    assert said(state) == [PROMPT, "I send somebody."]
    main.kept = [("user", "So far: somebody found the parser.")]
    main.asks("Done.")
    assert said(state) == ["So far: somebody found the parser.", "Done."]


def test_a_conversation_that_the_agent_sums_up_goes_on(state, conversations):
    main = Agent(conversations)
    main.says(PROMPT)
    main.asks("Looking.", "c1")
    main.answered("ok")
    main.asks("Still looking.", "c2")
    main.kept = [("user", "So far: looked at the parser.")]
    main.asks("Now I know.", "c3")
    side(conversations, f"Give a title to: {PROMPT}", "Fixing a test")
    main.answered("ok")
    main.asks("Done.")
    assert said(state) == ["So far: looked at the parser.", "Now I know.", "ok", "Done."]


def test_a_request_that_is_sent_again_replaces_its_answer(state, conversations):
    main = Agent(conversations)
    main.says(PROMPT)
    main.asks("lost on the way")
    main.kept.pop()
    main.asks("Done.")
    assert said(state) == [PROMPT, "Done."]


def test_an_agent_without_tools_is_followed(state, conversations):
    main = Agent(conversations, tools=[])
    main.says(f"You solve issues.\n{PROMPT}")
    main.asks("```bash\nls\n```")
    main.says("parser.py")
    main.asks("Done.")
    assert said(state)[1:] == ["```bash\nls\n```", "parser.py", "Done."]


def test_reasoning_that_the_agent_lost_is_there_again(conversations):
    thought = ContentReasoning(reasoning="sealed", summary="hm", redacted=True)
    calls = [ToolCall(id="c1", function="bash", arguments={"x": 1})]
    answer = ChatMessageAssistant(content=[thought, ContentText(text="Looking.")], tool_calls=calls, id="a1")
    asked = [ChatMessageUser(content=PROMPT)]
    conversations.record(conversations.recognise(asked), TOOLS, ModelOutput.from_message(answer))
    back = ChatMessageAssistant(content="Looking. ", tool_calls=[*calls])
    same = conversations.recognise([*asked, back])[1]
    assert (same.id, same.content) == ("a1", answer.content)
    edited = [ToolCall(id="c1", function="bash", arguments={"x": 2})]
    changed = conversations.recognise([*asked, ChatMessageAssistant(content="Looked.", tool_calls=edited)])[1]
    assert (changed.id, changed.text, changed.tool_calls) == ("a1", "Looked.", edited)
    assert changed.content[0] == thought


def test_calls_whose_ids_come_again_keep_their_own_reasoning(conversations):
    asked = [ChatMessageUser(content=PROMPT)]
    for n in (1, 2):
        thought = ContentReasoning(reasoning=f"sealed {n}", redacted=True)
        calls = [ToolCall(id="call_0", function="bash", arguments={"x": n})]
        answer = ChatMessageAssistant(content=[thought, ContentText(text=f"Looking {n}.")], tool_calls=calls)
        conversations.record(conversations.recognise(asked), TOOLS, ModelOutput.from_message(answer))
        asked += [
            ChatMessageAssistant(content=f"Looking {n}.", tool_calls=calls),
            ChatMessageTool(content="ok", tool_call_id="call_0"),
        ]
    known = conversations.recognise(asked)
    assert [known[place].content[0].reasoning for place in (1, 3)] == ["sealed 1", "sealed 2"]
    edited = ChatMessageAssistant(content="Edited.", tool_calls=calls)
    assert conversations.recognise([*asked[:1], edited])[1].content == "Edited."


def test_several_conversations_of_a_user_are_followed_to_the_last(state, conversations):
    for n in range(3):
        main = Agent(conversations)
        main.says(PROMPT)
        main.asks(f"attempt {n}")
    assert said(state) == [PROMPT, "attempt 2"]
