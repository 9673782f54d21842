"""OpenAI's computer tools: the preview with one action per call, and its successor with a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from computeragent.computer.actions import Action, Click, Drag, Keypress, Move, Scroll, Shot, Type, Wait
from computeragent.computer.types import Environment, Size
from computeragent.dialects.model import Media, Part, Tool, ToolCall, ToolResult
from computeragent.engines.computer_use.formats.reading import Arguments, checked, combo
from computeragent.engines.computer_use.formats.types import TOOL, ComputerCall, SafetyCheck, Sight
from computeragent.errors import ComputerActionError

_MAX_BATCH = 50
_WAIT = 2.0


class _Calls:
    """What both have in common: computer calls, and their outputs, which are pictures."""

    notches = False
    needs_picture = True
    limit = None

    def claims(self, call: ToolCall) -> bool:
        """See `ToolFormat.claims`."""
        return call.name == TOOL

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """See `ToolFormat.read`."""
        del sight
        given: Any = call.input.get("actions")
        batch: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [call.input.get("action")]
        if len(batch) > _MAX_BATCH:
            raise ComputerActionError(f"{len(batch)} actions are too many at once", hint=f"At most {_MAX_BATCH}.")
        actions = [action for item in batch for action in _actions(item)]
        return ComputerCall(call, checked(actions) or (Shot(),), _checks(call))

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """See `ToolFormat.result`. Texts have no place in it: they follow as the user's."""
        del failed
        extra = {"type": "computer_call_output", "acknowledged_safety_checks": [check.data for check in acknowledged]}
        pictures = tuple(part for part in parts if isinstance(part, Media))
        return ToolResult(call_id=call.id, content=pictures, extra=extra)


class OpenAIPreview(_Calls):
    """``computer_use_preview``."""

    name = "computer_use_preview"
    settings: Mapping[str, Any] = MappingProxyType({"truncation": "auto", "reasoning": {"summary": "concise"}})

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        extra = {"display_width": size.width, "display_height": size.height, "environment": environment}
        return (Tool(name=TOOL, kind=self.name, extra=extra),)


class OpenAIComputer(_Calls):
    """``computer``: no size is told, and a call may ask for several actions, answered by one picture."""

    name = "computer"
    settings: Mapping[str, Any] = MappingProxyType({"truncation": "auto"})

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        del size, environment
        return (Tool(name=TOOL, kind=self.name),)


def _checks(call: ToolCall) -> tuple[SafetyCheck, ...]:
    pending: Any = call.extra.get("pending_safety_checks")
    found = [cast("dict[str, Any]", item) for item in cast("list[Any]", pending or []) if isinstance(item, dict)]
    return tuple(
        SafetyCheck(
            id=str(item.get("id") or ""), code=str(item.get("code") or ""), message=str(item.get("message") or ""),
            data=item,
        )
        for item in found
    )  # fmt: skip


def _actions(value: Any) -> tuple[Action, ...]:
    if not isinstance(value, dict):
        raise ComputerActionError("the call names no action")
    values = cast("dict[str, Any]", value)
    name = values.get("type")
    reader = _READERS.get(name) if isinstance(name, str) else None
    if reader is None:
        raise ComputerActionError(f"there is no action {str(name)[:40]!r}", hint=f"Actions: {', '.join(_READERS)}.")
    return (reader(Arguments(values, str(name))),)


def _click(given: Arguments, count: int = 1) -> Action:
    x, y = _point(given)
    button = given.button() if count == 1 else "left"
    return Click(x=x, y=y, button=button, count=count, keys=given.held("keys"))


def _move(given: Arguments) -> Action:
    x, y = _point(given)
    return Move(x=x, y=y, keys=given.held("keys"))


def _scroll(given: Arguments) -> Action:
    x, y = _point(given) if "x" in given or "y" in given else (None, None)
    dx, dy = given.whole("scroll_x", 0), given.whole("scroll_y", 0)
    return Scroll(x=x, y=y, dx=dx, dy=dy, keys=given.held("keys"))


def _point(given: Arguments) -> tuple[int, int]:
    return Arguments({"x, y": [given.number("x"), given.number("y")]}, "point").point("x, y")


_READERS: dict[str, Callable[[Arguments], Action]] = {
    "screenshot": lambda _: Shot(),
    "click": _click,
    "double_click": lambda given: _click(given, 2),
    "move": _move,
    "drag": lambda given: Drag(path=given.path("path"), keys=given.held("keys")),
    "keypress": lambda given: Keypress(keys=combo(given.get("keys"))),
    "type": lambda given: Type(text=given.text("text")),
    "scroll": _scroll,
    "wait": lambda given: Wait(seconds=given.number("ms", _WAIT * 1000) / 1000),
}
