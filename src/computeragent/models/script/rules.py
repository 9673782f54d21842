"""A script: rules that match on the conversation, each with the turns that the model then takes.

The YAML form is read by `loading.py`; in Python the same classes are used directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

from msgspec import Struct, field

from computeragent.computer.actions import Action
from computeragent.dialects.model import ErrorKind, ModelRequest, Usage

DEFAULT_MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")


class ToolUse(Struct, frozen=True, kw_only=True):
    """A tool that the reply calls. It is left out where the request does not offer a tool of that name."""

    name: str
    input: dict[str, Any] = field(default_factory=dict[str, Any])
    id: str | None = None


class ComputerUse(Struct, frozen=True, kw_only=True):
    """Actions on a computer, in the words of whatever computer tool the request offers; a function `computer` as well.

    A wire that takes several actions in one call gets one call, every other wire a call for each.
    `safety_checks` (each `{id, code, message}`) are pending on wires that know them.
    """

    actions: tuple[Action, ...]
    safety_checks: tuple[dict[str, Any], ...] = ()


class ErrorReply(Struct, frozen=True, kw_only=True):
    """The request fails with this HTTP status.

    `times` is how often per conversation (None: every time); `retry_after` is the header, in seconds.
    """

    status: int = 500
    type: str | None = None
    message: str = "simulated error"
    times: int | None = None
    retry_after: float | None = None


class Break(Struct, frozen=True, kw_only=True):
    """A streamed answer goes wrong after `after` events; whole answers are not touched.

    `cut` closes the socket; `error` sends an error event of the kind `kind`.
    `times` is how often per conversation (None: every time).
    """

    how: Literal["cut", "error"]
    after: int = 0
    kind: ErrorKind = "overloaded"
    message: str = "simulated error"
    times: int | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """What the model says in one turn.

    In `text`, `thinking` and every string of a tool's input or an action, `$1` or `${name}` stand for a group of the
    rule's pattern, `$0` for all that it matched and `$$` for a dollar sign. `delay` (before the first byte) and
    `chunk_delay` (before each further event of a stream) are in seconds; `chunk_size` is in characters.
    What is not given (`usage`, `stop_reason`) is computed.
    """

    text: str | None = None
    thinking: str | None = None
    tools: tuple[ToolUse, ...] = ()
    computer: ComputerUse | None = None
    usage: Usage | None = None
    stop_reason: str | None = None
    error: ErrorReply | None = None
    broken: Break | None = None
    delay: float = 0.0
    chunk_delay: float = 0.0
    chunk_size: int = 24
    echo_tool_results: bool = False


class Turn(Struct, frozen=True, kw_only=True):
    """The state in which a reply is asked for; given to replies that are functions.

    `index` counts the assistant messages since the user message that the rule matched.
    """

    request: ModelRequest
    user_text: str
    index: int
    match: re.Match[str]


ReplyFunction = Callable[[Turn], Reply]


class Rule(Struct, frozen=True, kw_only=True, dict=True):
    """Answers to one kind of conversation.

    `match` is searched, ignoring case, in what the user typed; `model` and `system`, where given, must be found in
    the model's name and in the system prompt. The n-th answer since that user message is `turns[n]`; after the last
    one the rule closes with a plain sentence. Raises `re.error` on use when a pattern is no regular expression.
    """

    match: str = ""
    turns: tuple[Reply | ReplyFunction, ...] = ()
    model: str | None = None
    system: str | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`match`, compiled."""
        return re.compile(self.match, re.IGNORECASE | re.DOTALL)

    def applies_to(self, request: ModelRequest) -> bool:
        """Whether the conditions on model and system prompt hold."""
        if self.model is not None and not re.search(self.model, request.model, re.IGNORECASE):
            return False
        return self.system is None or re.search(self.system, request.system_text, re.IGNORECASE) is not None


ECHO = Rule(turns=(Reply(text="You said: $0"),), match=".*")
"""What answers when no rule does."""


class Script(Struct, frozen=True, kw_only=True):
    """Rules in order of precedence; `default` answers what none of them matches.

    `models` is what the server lists; with `require_key`, requests with another API key are refused (401).
    """

    rules: tuple[Rule, ...] = ()
    default: Rule = ECHO
    models: tuple[str, ...] = DEFAULT_MODELS
    require_key: str | None = None
    name: str | None = None
