"""A trajectory on disk as the steps of a run, read as far as it goes: what is half written or broken is told.

The layout is that of `engines/computer_use/trajectory.py`; the spellings of other tools that write it are understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from computeragent.errors import ComputerAgentError, NotFoundError, ValidationError
from computeragent.jail import Jail

Json = dict[str, Any]
_TURN = re.compile(r"turn_(\d{1,9})")
_FILE = re.compile(r"(\d{1,9})_([A-Za-z_]{1,60})\.(json|png|jpe?g)")
_METADATA = "metadata.json"
_LARGEST = 32 * 1024 * 1024
_MOST_TURNS = 5_000
_MOST_TEXT = 50_000
_CLICKS = {
    "left_click": {"action": "click"},
    "double_click": {"action": "click", "count": 2},
    "triple_click": {"action": "click", "count": 3},
    "right_click": {"action": "click", "button": "right"},
    "middle_click": {"action": "click", "button": "middle"},
}


@dataclass(slots=True)
class Step:
    """One thing that was done, or said. Pictures are paths in the trajectory; `before` is what the model saw."""

    turn: int
    index: int
    action: Json | None = None
    call: str = ""
    before: str | None = None
    after: str | None = None
    failed: bool = False
    told: str = ""
    said: list[str] = field(default_factory=list[str])
    thought: list[str] = field(default_factory=list[str])
    usage: Json | None = None
    faults: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Run:
    """A trajectory: what it says of itself, and its steps."""

    name: str
    model: str = ""
    status: str = "unknown"
    created_at: str = ""
    completed_at: str = ""
    usage: Json = field(default_factory=dict[str, Any])
    turns: int = 0
    faults: list[str] = field(default_factory=list[str])
    steps: list[Step] = field(default_factory=list[Step])

    def pictures(self) -> list[str]:
        """Every picture that a step shows, once."""
        return list(dict.fromkeys(path for step in self.steps for path in (step.before, step.after) if path))


class Library:
    """The trajectories of a folder, which may itself be one. Nothing outside of it is read."""

    def __init__(self, folder: Path) -> None:
        """Raises `NotFoundError` where there is no such folder."""
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder {folder}", hint="Give a trajectory, or a folder of them.")
        self._jail = Jail(folder)
        self._is_one = self._looks_like_one(".")
        self._own = self._jail.root.name or "trajectory"

    def names(self) -> list[str]:
        """The trajectories, newest first."""
        if self._is_one:
            return [self._own]
        found = [each.path for each in self._jail.tree(".", depth=0) if each.type == "dir" and each.path[:1] != "."]
        return sorted((name for name in found if self._looks_like_one(name)), reverse=True)

    def one(self) -> str:
        """The only trajectory that there is. Raises `ValidationError` where there is none, or more."""
        names = self.names()
        if len(names) != 1:
            count = "no trajectory" if not names else f"{len(names)} trajectories"
            hint = f"Name one, such as {names[0]}." if names else "One has a metadata.json, or folders turn_000 …"
            raise ValidationError(f"there is {count} in {self._jail.root}", hint=hint)
        return names[0]

    def heading(self, name: str) -> Run:
        """A trajectory without its steps."""
        return self._heading(name, self._folder(name))

    def read(self, name: str) -> Run:
        """A trajectory. Raises `NotFoundError` where there is none of that name."""
        folder = self._folder(name)
        run = self._heading(name, folder)
        turns = self._turns(folder)
        run.turns = len(turns)
        shown: str | None = None
        for number, path in turns[:_MOST_TURNS]:
            shown = _Turn(self, run, folder, number, path).read(shown)
        if len(turns) > _MOST_TURNS:
            run.faults.append(f"only the first {_MOST_TURNS} of {len(turns)} turns are shown")
        if not run.steps:
            run.faults.append("nothing was written yet")
        return run

    def picture(self, name: str, path: str) -> bytes:
        """A picture of a trajectory. Raises `NotFoundError` for what is none."""
        turn, _, file = path.partition("/")
        found = _FILE.fullmatch(file)
        if _TURN.fullmatch(turn) is None or found is None or found[3] == "json":
            raise NotFoundError(f"there is no picture {path[:100]!r}")
        return self._jail.read_bytes(f"{self._folder(name)}/{path}")

    def files(self, folder: str) -> list[str]:
        """The names of files in a folder."""
        return [each.path for each in self._jail.tree(folder, depth=0) if each.type == "file"]

    def load(self, path: str) -> Json:
        """A JSON object. Raises `ComputerAgentError` for what cannot be read."""
        try:
            value: object = msgspec.json.decode(self._jail.read_bytes(path, limit=_LARGEST))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ValidationError("it is not JSON, or only half written") from None
        if not isinstance(value, dict):
            raise ValidationError("it is no JSON object")
        return cast("Json", value)

    def _folder(self, name: str) -> str:
        if self._is_one and name == self._own:
            return "."
        if self._is_one or "/" in name or name.startswith(".") or not self._looks_like_one(name):
            raise NotFoundError(f"there is no trajectory {name[:100]!r}", hint="The first page lists them.")
        return name

    def _looks_like_one(self, folder: str) -> bool:
        try:
            inside = self._jail.tree(folder, depth=0)
        except ComputerAgentError:
            return False
        return any(
            (each.type == "dir" and _TURN.fullmatch(each.path)) or (each.type == "file" and each.path == _METADATA)
            for each in inside
        )

    def _turns(self, folder: str) -> list[tuple[int, str]]:
        found = [each for each in self._jail.tree(folder, depth=0) if each.type == "dir"]
        matches = ((_TURN.fullmatch(each.path), each.path) for each in found)
        return sorted((int(match[1]), f"{folder}/{path}") for match, path in matches if match)

    def _heading(self, name: str, folder: str) -> Run:
        run = Run(name)
        try:
            data = self.load(f"{folder}/{_METADATA}")
        except ComputerAgentError as error:
            run.faults.append(f"{_METADATA}: {error.message}")
            return run
        run.model = _text(data.get("model") or _object(data.get("kwargs")).get("model"))
        run.status = _text(data.get("status")) or "unknown"
        run.created_at, run.completed_at = _text(data.get("created_at")), _text(data.get("completed_at"))
        run.usage = _numbers(data.get("total_usage"))
        return run


class _Turn:
    """Reads one turn into the steps of a run."""

    def __init__(self, library: Library, run: Run, folder: str, number: int, path: str) -> None:
        self._library = library
        self._run = run
        self._number = number
        self._path = path
        self._shown_as = path.removeprefix(f"{folder}/")
        self._calls: dict[str, Json] = {}
        self._others: list[str] = []
        self._opening = Step(number, 0)
        self._steps: list[Step] = []

    def read(self, shown: str | None) -> str | None:
        """Add the turn's steps; `shown` is what the screen showed before. Returns what it showed last."""
        picture: str | None = None
        for name in self._files():
            match = _FILE.fullmatch(name)
            assert match is not None
            kind = match[2]
            if match[3] != "json":
                picture = f"{self._shown_as}/{name}" if kind == "screenshot_after" else picture
                continue
            try:
                data = self._library.load(f"{self._path}/{name}")
            except ComputerAgentError as error:
                self._opening.faults.append(f"{self._shown_as}/{name}: {error.message}")
                continue
            if kind == "agent_response":
                self._answered(data)
            elif kind == "computer_call_result":
                self._steps.append(self._acted(data, shown, picture))
                shown, picture = picture or shown, None
        return self._done(shown, picture)

    def _files(self) -> list[str]:
        try:
            names = [name for name in self._library.files(self._path) if _FILE.fullmatch(name)]
        except ComputerAgentError as error:
            self._opening.faults.append(f"{self._shown_as}: {error.message}")
            return []
        return sorted(names, key=lambda name: int(name.partition("_")[0]))

    def _answered(self, data: Json) -> None:
        response = _object(data.get("response")) or data
        for item in _objects(response.get("output")):
            kind = item.get("type")
            if kind == "message":
                self._opening.said += _texts(item.get("content"))
            elif kind == "reasoning":
                self._opening.thought += _texts(item.get("summary"))
            elif kind == "computer_call":
                self._calls[_text(item.get("call_id"))] = item
            elif kind == "function_call":
                self._others.append(f"{_text(item.get('name'))} {_text(item.get('arguments'))}".strip())
        self._opening.usage = _numbers(response.get("usage")) or None

    def _acted(self, data: Json, before: str | None, after: str | None) -> Step:
        call = self._calls.get(_text(_object(data.get("item")).get("call_id")), {})
        action = _object(data.get("action")) or _object(call.get("action"))
        return Step(
            self._number,
            len(self._steps),
            action=_ours(action) or None,
            before=before or after,
            after=after,
            failed=data.get("failed") is True,
            told=_text(data.get("text")),
        )

    def _done(self, shown: str | None, picture: str | None) -> str | None:
        first = self._opening
        steps = self._steps
        for call in self._others:
            steps.append(Step(self._number, len(steps), call=call, before=shown))
        if not steps:  # an answer, or what was being done when it broke off
            asked = [_ours(_object(call.get("action"))) for call in self._calls.values()]
            steps.append(Step(self._number, 0, action=asked[0] if asked else None, before=shown or picture))
            if asked:
                steps[0].faults.append("what came of it is not told: it was refused, or is not written yet")
        steps[0].said, steps[0].thought, steps[0].usage = first.said, first.thought, first.usage
        steps[0].faults = [*first.faults, *steps[0].faults]
        self._run.steps += steps
        return picture or shown


def _ours(action: Json) -> Json:
    """An action in the words of `computer.actions`, whatever it was written in, with fields that can be drawn."""
    kind = _text(action.get("action") or action.get("type"))
    if not kind:
        return {}
    told: Json = {name: value for name, value in action.items() if name not in {"action", "type"}}
    told = {**told, **_CLICKS[kind]} if kind in _CLICKS else {"action": kind, **told}
    if kind == "scroll":
        told |= {
            "dx": told.pop("scroll_x", told.get("dx", 0)),
            "dy": told.pop("scroll_y", told.get("dy", 0)),
        }
    path = told.get("path")
    if isinstance(path, list):
        told["path"] = [_point(each) for each in cast("list[Any]", path)[:1_000]]
    return _bounded(told)


def _point(value: Any) -> list[Any]:
    if isinstance(value, dict):
        named = cast("Json", value)
        return [named.get("x"), named.get("y")]
    return cast("list[Any]", value) if isinstance(value, list) else []


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {str(name): _bounded(each) for name, each in cast("Json", value).items()}
    return value


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [_text(content)]
    return [text for each in _objects(content) if (text := _text(each.get("text")))]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Json]:
    return (
        [_object(each) for each in cast("list[Any]", value) if isinstance(each, dict)]
        if isinstance(value, list)
        else []
    )


def _numbers(value: Any) -> Json:
    """The numbers of an object: what a usage is."""
    return {
        name: each
        for name, each in _object(value).items()
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    }
