"""The tool calls of a run: what an agent tells of each, put together, under names that policies know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

Json = dict[str, Any]

_NAMES = {
    "execute": "Bash",
    "edit": "Edit",
    "delete": "Delete",
    "move": "Move",
    "read": "Read",
    "search": "Grep",
    "fetch": "WebFetch",
}
"""Kinds of calls, by the names that the tools of Claude Code have, which policies and risk classes are written for."""

DONE = frozenset({"completed", "failed"})


@dataclass
class Call:
    """One call. `fields` is what was told last of each thing; the rest says what we did about it."""

    call_id: str
    first_title: str = ""
    own_name: str = ""
    fields: Json = field(default_factory=dict[str, Any])
    asked: bool = False
    allowed: bool = False
    refused: str | None = None
    announced: bool = False
    finished: bool = False

    @property
    def name(self) -> str:
        """The tool: the agent's own word for it, else one for its kind, else its title."""
        if self.own_name:
            return self.own_name
        kind = str(self.fields.get("kind") or "")
        return _NAMES.get(kind) or self.first_title or kind or "tool"

    @property
    def input(self) -> Json:
        """The call's input: as the agent gives it to the tool, else what it shows to a person."""
        raw: Any = self.fields.get("rawInput")
        if isinstance(raw, dict) and raw:
            return cast("Json", raw)
        shown: Json = {"command" if self.fields.get("kind") == "execute" else "title": self._title()}
        paths = [place.get("path") for place in _dicts(self.fields.get("locations"))]
        for diff in (item for item in _dicts(self.fields.get("content")) if item.get("type") == "diff"):
            shown |= {"file_path": diff.get("path"), "content": diff.get("newText")}
        if paths and "file_path" not in shown:
            shown["file_path"] = paths[0]
        texts = _texts(self.fields.get("content"))
        if texts:
            shown["description"] = texts
        return shown

    @property
    def output(self) -> str:
        """What came of it, as text."""
        texts = _texts(self.fields.get("content"))
        if texts:
            return texts
        raw: Any = self.fields.get("rawOutput")
        if isinstance(raw, dict):
            inner: Any = cast("Json", raw).get("output") or cast("Json", raw).get("error") or cast("Json", raw)
            return str(inner)
        return "" if raw is None else str(raw)

    @property
    def done(self) -> bool:
        """Whether the agent says that it has ended."""
        status: Any = self.fields.get("status")
        return isinstance(status, str) and status in DONE

    @property
    def failed(self) -> bool:
        """Whether the agent says that it failed."""
        return self.fields.get("status") == "failed"

    def learn(self, update: Json) -> None:
        """Take what an update or a question says; what it leaves out stays."""
        self.first_title = self.first_title or str(update.get("title") or "")
        own: Any = update.get("name") or _own_name(update.get("_meta"))
        self.own_name = str(own) if own else self.own_name
        told = {key: value for key, value in update.items() if value is not None and key not in {"_meta", "name"}}
        for key in ("content", "locations"):
            if key in told and not told[key] and not self.done:
                del told[key]  # an empty list says nothing new
        self.fields |= told

    def _title(self) -> str:
        return str(self.fields.get("title") or self.first_title)


class Calls:
    """The calls of a turn, by id. Of those of earlier turns it is known whether they were allowed."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._past: dict[str, bool] = {}

    def learn(self, update: Json) -> Call:
        """The call that an update or a question is about, with what that says."""
        call_id = str(update.get("toolCallId") or "")
        call = self._calls.setdefault(call_id, Call(call_id))
        call.learn(update)
        return call

    def open(self) -> list[Call]:
        """Those that were announced, and of which nobody heard the end."""
        return [call for call in self._calls.values() if call.announced and not call.finished]

    def late(self, update: Json) -> bool:
        """Whether an update is about a call of an earlier turn, whose end was told with that, and tells no misdeed."""
        call_id = str(update.get("toolCallId") or "")
        if call_id in self._calls or call_id not in self._past:
            return False
        return self._past[call_id] or update.get("status") != "completed"

    def forget(self) -> None:
        """A turn has ended."""
        self._past |= {call.call_id: call.allowed for call in self._calls.values() if call.asked or call.finished}
        self._calls.clear()


def _own_name(meta: Any) -> Any:
    """An agent's own word for a tool, where it tells it beside the protocol."""
    if not isinstance(meta, dict):
        return None
    for inner in cast("Json", meta).values():
        if isinstance(inner, dict) and isinstance(cast("Json", inner).get("toolName"), str):
            return cast("Json", inner)["toolName"]
    return None


def _dicts(value: Any) -> list[Json]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Json", item) for item in items if isinstance(item, dict)]


def _texts(content: Any) -> str:
    inner = [item.get("content") for item in _dicts(content) if item.get("type") == "content"]
    return "\n".join(str(block["text"]) for block in _dicts(inner) if isinstance(block.get("text"), str))
