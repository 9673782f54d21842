"""Which reply answers a request. It depends on the conversation alone: no state, so retries and resume repeat it."""

from __future__ import annotations

import re

from msgspec import Struct

from computeragent.dialects.model import Message, ModelRequest, Text
from computeragent.models.script.rules import Reply, Rule, Script, Turn

CLOSING = Reply(text="Done.")
"""The answer when a rule has no turns left."""

_INTERRUPTED = "[Request interrupted by user"
# Clients write these into user messages by themselves; nobody typed them.
_INJECTED = re.compile(
    r"\s*(<(system-reminder|total_tokens|task-notification|command-|local-command|user-prompt-submit-hook|"
    r"new-diagnostics|ide_)|" + re.escape(_INTERRUPTED) + ")"
)
# Next to tool results, a leading tag or the CLI's note on a found tool marks an injected text.
_BESIDE_RESULTS = re.compile(r"\s*(<[a-z][\w-]*>|Tool loaded\.\s*$)")


class _Anchor(Struct, frozen=True):
    """A user message that somebody typed, and the number of answers given since."""

    text: str
    answers: int


def choose_reply(script: Script, request: ModelRequest) -> tuple[Reply, Turn]:
    """The reply to `request`, and the turn it stands in.

    The newest user message that a rule matches selects the rule, the number of answers since then the turn. A rule
    that has no turns left, or was interrupted, gives way to the default once the user has typed something else.
    """
    anchors = _anchors(request.messages)
    for position, anchor in enumerate(anchors):
        found = _match(script.rules, request, anchor)
        if found is None:
            continue
        rule, turn = found
        if position == 0 or turn.index < len(rule.turns):
            return _reply(rule, turn), turn
        break
    # Nothing matched, or what did is used up.
    newest = anchors[0] if anchors else _Anchor("", sum(message.role == "assistant" for message in request.messages))
    match = script.default.pattern.search(newest.text) or re.compile("").search("")
    assert match is not None
    turn = Turn(request=request, user_text=newest.text, index=newest.answers, match=match)
    return _reply(script.default, turn), turn


def _match(rules: tuple[Rule, ...], request: ModelRequest, anchor: _Anchor) -> tuple[Rule, Turn] | None:
    for rule in rules:
        if not rule.applies_to(request):
            continue
        if (match := rule.pattern.search(anchor.text)) is not None:
            return rule, Turn(request=request, user_text=anchor.text, index=anchor.answers, match=match)
    return None


def _reply(rule: Rule, turn: Turn) -> Reply:
    if turn.index >= len(rule.turns):
        return CLOSING
    reply = rule.turns[turn.index]
    return reply if isinstance(reply, Reply) else reply(turn)


def _anchors(messages: tuple[Message, ...]) -> list[_Anchor]:
    """The typed user messages, newest first, back to the last interruption: what came before it is over."""
    anchors: list[_Anchor] = []
    answers = 0
    in_answer = False  # some clients send one answer as several assistant messages in a row
    for message in reversed(messages):
        if message.role == "assistant":
            answers += not in_answer
        elif message.role == "user" and (text := typed_text(message)) is not None:
            anchors.append(_Anchor(text, answers))
        if anchors and message.role == "user" and _INTERRUPTED in message.text:
            break
        in_answer = message.role == "assistant"
    return anchors


def typed_text(message: Message) -> str | None:
    """What the user typed: the last text that is no reminder; None for a message of tool results alone."""
    has_results = bool(message.tool_results)
    for part in reversed(message.content):
        if not isinstance(part, Text) or _INJECTED.match(part.text):
            continue
        if has_results and _BESIDE_RESULTS.match(part.text):
            continue
        return part.text.strip()
    return None


def last_typed_text(messages: tuple[Message, ...]) -> str:
    """What the user typed last in a conversation; empty where nothing was typed."""
    anchors = _anchors(messages)
    return anchors[0].text if anchors else ""
