"""What a recorded session was asked, what it answered, and with what: folded from its events or its transcript."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from computeragent.chat_result import answer_of, failure_of
from computeragent.wire.events import (
    CaPermissionDecision,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    HarnessEvent,
    SdkMessage,
)
from computeragent.wire.requests import UserInput
from computeragent.wire.usage import UsageRollup

Json = dict[str, Any]

_NOT_SAID = ("isSidechain", "isMeta", "isCompactSummary", "isApiErrorMessage")
"""Marks of what Claude Code remembers, and neither the user nor the agent has said in the conversation itself."""
_INTERRUPTED = "[Request interrupted by user"


@dataclass(slots=True)
class RecordedSession:
    """A session as a task needs it. `prompts` are the user's messages, `answer` is what was said to the last of them.

    `commit` is that of the source at the first start; `cwd` the working folder as the agent saw it. `cost_usd` is None
    where nothing told. `tools` counts calls by name, sub-agents' included; `denied` those that were denied.
    """

    session_id: str
    agent: str = ""
    version: str = ""
    engine: str = ""
    model: str = ""
    commit: str | None = None
    cwd: str | None = None
    prompts: list[UserInput] = field(default_factory=list[UserInput])
    answer: str = ""
    ended: str = ""
    runs: int = 0
    tools: Counter[str] = field(default_factory=Counter[str])
    denied: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None

    def facts(self) -> Json:
        """What is worth knowing of the recording, as plain data."""
        said: Json = {
            "session_id": self.session_id,
            "agent": self.agent,
            "version": self.version,
            "engine": self.engine,
            "model": self.model,
            "commit": self.commit,
            "turns": len(self.prompts),
            "ended": self.ended,
            "tools": dict(self.tools.most_common()),
            "denied": self.denied,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
        }
        return {name: value for name, value in said.items() if value not in (None, "", {})}


def of_events(session_id: str, events: Iterable[HarnessEvent]) -> RecordedSession:
    """Fold a session's events, from the first one on."""
    found = RecordedSession(session_id)
    usage = UsageRollup()
    for event in events:
        match event:
            case CaSessionStarted():
                _add(found, usage)
                usage = UsageRollup()  # an engine's running total is that of its run
                _start(found, event)
            case CaTurnStarted():
                if event.message is not None:
                    found.prompts.append(event.message)
                    found.answer = ""
            case SdkMessage():
                _message(found, event.payload)
            case CaUsageSnapshot():
                usage.absorb(event)
            case CaPermissionDecision():
                found.denied += event.decision == "deny"
            case CaSessionEnded():
                found.ended = event.reason
            case _:
                pass
    _add(found, usage)
    return found


def of_transcript(session_id: str, entries: Iterable[Mapping[str, Any]]) -> RecordedSession:
    """Fold what a session store remembers of a session of Claude Code."""
    found = RecordedSession(session_id, engine="claude-agent-sdk", agent="agent")
    counts: dict[str, Json] = {}
    for number, entry in enumerate(entries):
        if any(entry.get(name) for name in _NOT_SAID):
            continue
        found.cwd = found.cwd or (str(entry["cwd"]) if entry.get("cwd") else None)
        told: object = entry.get("message")
        if not isinstance(told, dict):
            continue
        message = cast("Json", told)
        if entry.get("type") == "user" and (asked := _asked(message)) is not None:
            found.prompts.append(asked)
            found.answer = ""
        elif entry.get("type") == "assistant":
            _message(found, {"type": "assistant", "message": message})
            usage: object = message.get("usage")
            if isinstance(usage, dict):  # a message is remembered block by block, each time with its whole usage
                counts[str(message.get("id") or number)] = cast("Json", usage)
    found.input_tokens = sum(_count(each.get("input_tokens")) for each in counts.values())
    found.output_tokens = sum(_count(each.get("output_tokens")) for each in counts.values())
    return found


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _start(found: RecordedSession, event: CaSessionStarted) -> None:
    found.runs += 1
    found.ended = "running"
    if found.runs == 1:
        found.agent, found.version, found.commit = event.identity.name, event.identity.version, event.identity.sha
    found.engine = event.engine
    found.cwd = found.cwd or event.cwd


def _add(found: RecordedSession, usage: UsageRollup) -> None:
    found.input_tokens += usage.input_tokens
    found.output_tokens += usage.output_tokens
    if usage.cost_usd is not None:
        found.cost_usd = (found.cost_usd or 0.0) + usage.cost_usd


def _message(found: RecordedSession, payload: object) -> None:
    if not isinstance(payload, dict):
        return
    said = cast("Json", payload)
    if said.get("type") == "system":
        found.model = str(said.get("model") or found.model)
    elif said.get("type") == "assistant":
        inner: object = said.get("message")
        message = cast("Json", inner) if isinstance(inner, dict) else {}
        model = str(message.get("model") or "")
        found.model = found.model if not model or model.startswith("<") else model
        content: object = message.get("content")
        for block in cast("list[Any]", content) if isinstance(content, list) else []:
            if isinstance(block, dict) and cast("Json", block).get("type") == "tool_use":
                found.tools[str(cast("Json", block).get("name"))] += 1
    if failure_of(said) and said.get("result"):
        found.answer = ""  # an error's text, which the message before it may have told, too
    elif said.get("parent_tool_use_id") is None:
        found.answer = answer_of(said) or found.answer


def _asked(message: Json) -> UserInput | None:
    """The user's own words, where an entry has some: results of tools are the user's messages, too."""
    content: object = message.get("content")
    if isinstance(content, str):
        return UserInput(content=content)
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    told = [cast("Json", each) for each in blocks if isinstance(each, dict)]
    own = [each for each in told if each.get("type") in {"text", "image"}]
    own = [each for each in own if not str(each.get("text", "")).startswith(_INTERRUPTED)]
    return UserInput(content=own) if own else None
