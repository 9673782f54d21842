"""Which of an agent's requests are its main conversation, and which message is which from one request to the next.

An agent asks for titles, topics and summaries beside its work, and sends sub-agents out. What `AgentState` shows is the
conversation with the user: the one that has the user's words and tools, and that goes on.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from inspect_ai.agent import AgentState
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
)
from inspect_ai.tool import ToolCall

from computeragent.wire.encoding import to_json

_MOST = 256
"""Conversations that are remembered; of more, those that were not continued for longest are forgotten."""


Place = Literal["main", "new", "beside"]
"""A request goes on with the main conversation, begins what may become it, or is neither."""


@dataclass
class _Thread:
    """One conversation: the keys of its messages, the last answer's included."""

    keys: tuple[str, ...]
    setting: str
    """What it is held with: the system prompt and the tools."""
    anchored: bool
    """Whether it has the words of the user."""
    armed: bool
    """Whether it has tools."""
    sent: bool
    """Whether it begins with what a call of the model says: a sub-agent's."""
    messages: list[ChatMessage] = field(default_factory=list[ChatMessage])
    output: ModelOutput = field(default_factory=ModelOutput)

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        return (not self.sent, self.armed, self.anchored)


class Conversations:
    """All conversations of a bridge; `state` follows the main one."""

    def __init__(self, state: AgentState) -> None:
        self._state = state
        self._ids: dict[str, list[str]] = {}
        self._said: dict[str, list[ChatMessageAssistant]] = {}
        self._orders: set[str] = set()
        self._threads: list[_Thread] = []
        self._main: _Thread | None = None
        self._words = [message.text.strip() for message in state.messages if isinstance(message, ChatMessageUser)]
        self._words = [words for words in self._words if words]
        for message in state.messages:
            if message.id is not None:
                self._ids.setdefault(_key(message), []).append(message.id)

    def recognise(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        """The messages with the ids that they had before, and answers as the model gave them, reasoning included."""
        known = [self._original(each) if isinstance(each, ChatMessageAssistant) else each for each in messages]
        taken: set[str] = set()
        for message in known:
            ids = self._ids.setdefault(_key(message), [])
            found = next((each for each in ids if each not in taken), None)
            if found is None:
                found = message.id or secrets.token_urlsafe(16)
                ids.append(found)
            message.id = found
            taken.add(found)
        return known

    def _original(self, message: ChatMessageAssistant) -> ChatMessageAssistant:
        known = self._said.get(_answer_key(message), [])
        if not known or not (message.text.strip() or message.tool_calls):
            return message
        same = [said for said in known if said.text.strip() == message.text.strip() and _calls(said) == _calls(message)]
        if same:
            return same[-1].model_copy()
        if len(known) > 1:
            return message  # some models give their calls the same ids again and again: no telling which it was
        said = known[0]
        # Changed on the way: what was changed counts, but for the reasoning, which only the model can read.
        kept: list[Content] = [each for each in _list(said) if isinstance(each, ContentReasoning)]
        changed = [each for each in _list(message) if not isinstance(each, ContentReasoning)]
        return said.model_copy(update={"content": [*kept, *changed], "tool_calls": message.tool_calls})

    def place(self, messages: Sequence[ChatMessage], tools: Sequence[str]) -> Place:
        """Where a request with these messages belongs, as far as is known by now."""
        keys, setting = _keys(messages), _setting(messages, tools)
        thread = self._continued(keys, setting)
        if thread is not None:
            return "main" if thread is self._main else "beside"
        begun = _Thread(keys, setting, self._anchored(messages), bool(tools), self._sent(messages))
        return "new" if self._main is None or self._leads(begun, begun=True) else "beside"

    def record(
        self,
        messages: list[ChatMessage],
        tools: Sequence[str],
        output: ModelOutput,
        summary: ChatMessage | None = None,
    ) -> bool:
        """A request was answered, after what is in `summary`, which the agent knows nothing of.

        Returns whether it belongs to the main conversation.
        """
        if output.empty:
            return False
        answer = output.message
        self._said.setdefault(_answer_key(answer), []).append(answer)
        self._ids.setdefault(_key(answer), []).append(answer.id or "")
        self._orders |= {_hash(text) for call in answer.tool_calls or () for text in _strings(call)}
        whole = [*messages, *([summary] if summary else []), answer]
        before, setting = _keys(messages), _setting(messages, tools)
        thread = self._continued(before, setting)
        begun = thread is None
        if thread is None:
            thread = _Thread(before, setting, self._anchored(messages), bool(tools), self._sent(messages))
        else:
            self._threads.remove(thread)
        thread.keys, thread.messages, thread.output = (*before, _key(answer)), whole, output
        self._threads.append(thread)
        del self._threads[:-_MOST]
        if self._leads(thread, begun=begun):
            self._main = thread
            self._state.messages = list(whole)
            self._state.output = output
        return thread is self._main

    def _continued(self, keys: tuple[str, ...], setting: str) -> _Thread | None:
        """The conversation that goes on with these messages: the longest whose every message is among them."""
        fitting = [thread for thread in self._threads if keys[: len(thread.keys)] == thread.keys]
        # An answer that never arrived, or was given up, is asked for once more.
        fitting = fitting or [
            thread
            for thread in self._threads
            if thread.setting == setting and keys[: len(thread.keys) - 1] == thread.keys[:-1]
        ]
        return max(fitting, key=lambda thread: len(thread.keys), default=None)

    def _leads(self, thread: _Thread, *, begun: bool) -> bool:
        main = self._main
        if main is None or thread is main:
            return True
        if begun and thread.setting == main.setting and not thread.sent:
            # The same words to the model and the same tools: that is how a conversation looks once the agent has
            # summed it up, whatever has become of what the user said.
            thread.anchored = thread.anchored or main.anchored
            return True
        if thread.rank != main.rank:
            return thread.rank > main.rank
        return not begun or len(thread.messages) > len(main.messages)

    def _anchored(self, messages: Sequence[ChatMessage]) -> bool:
        texts = [message.text for message in messages if isinstance(message, ChatMessageUser)]
        return any(words in text for words in self._words for text in texts)

    def _sent(self, messages: Sequence[ChatMessage]) -> bool:
        texts = [text for message in messages if isinstance(message, ChatMessageUser) for text in _blocks(message)]
        return any(_hash(text) in self._orders for text in texts if text not in self._words)


def _keys(messages: Sequence[ChatMessage]) -> tuple[str, ...]:
    return tuple(_key(message) for message in messages if message.role != "system")


def _key(message: ChatMessage) -> str:
    """The same for the same message, however often it is sent."""
    if isinstance(message, ChatMessageAssistant):
        return f"assistant {_answer_key(message)}"
    content: object = message.content
    if not isinstance(content, str):
        content = [each.model_dump(mode="json", exclude_none=True) for each in content]
    call = message.tool_call_id if isinstance(message, ChatMessageTool) else None
    return f"{message.role} {_hash([content, call])}"


def _answer_key(message: ChatMessageAssistant) -> str:
    """What remains of an answer when an agent sends it back: the ids of its calls, else its text."""
    if message.tool_calls:
        return _hash([call.id for call in message.tool_calls])
    return _hash(message.text.strip())


def _calls(message: ChatMessageAssistant) -> list[tuple[str, str, bytes]]:
    return [_call(call) for call in message.tool_calls or ()]


def _call(call: ToolCall) -> tuple[str, str, bytes]:
    return (call.id, call.function, to_json(dict(sorted(call.arguments.items()))))


def _list(message: ChatMessageAssistant) -> list[Content]:
    content = message.content
    if isinstance(content, str):
        return [ContentText(text=content)] if content else []
    return content


def _blocks(message: ChatMessageUser) -> list[str]:
    content = [message.content] if isinstance(message.content, str) else message.content
    texts = [each if isinstance(each, str) else each.text for each in content if isinstance(each, (str, ContentText))]
    return [text.strip() for text in texts if text.strip()]


def _strings(call: ToolCall) -> list[str]:
    return [value.strip() for value in call.arguments.values() if isinstance(value, str) and value.strip()]


def _setting(messages: Sequence[ChatMessage], tools: Sequence[str]) -> str:
    system = [message.text for message in messages if message.role == "system"]
    return _hash([max(system, key=len, default=""), sorted(tools)])  # the short ones tell of versions and dates


def _hash(value: object) -> str:
    return hashlib.sha256(to_json(value)).hexdigest()
