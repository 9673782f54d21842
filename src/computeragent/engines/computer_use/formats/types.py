"""What a tool format is: the model's words for a computer, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from computeragent.computer.actions import Action
from computeragent.computer.types import Environment, Size
from computeragent.dialects.model import Media, Part, Tool, ToolCall, ToolResult, Usage
from computeragent.engines.computer_use.screen import Limit

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
TOOL = "computer"
"""The name under which every action on a computer is asked for and told."""


@dataclass(frozen=True, slots=True)
class SafetyCheck:
    """Why a provider wants a person to look before an action is done. `data` is its own object."""

    id: str
    code: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ComputerCall:
    """A call that asks for actions, in the pixels that the model is shown."""

    call: ToolCall
    actions: tuple[Action, ...]
    checks: tuple[SafetyCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """What the model saw last, for formats that ask another model where things are; `charge` takes what that cost."""

    picture: Media | None
    size: Size
    charge: Callable[[str, Usage], None]


class ToolFormat(Protocol):
    """How one kind of model is told of a computer, and how it asks for actions.

    `limit` is the largest picture it sees as it is; `notches` says that it counts those of the wheel, not pixels.
    With `needs_picture` every answer must be a picture: what was not done is taken out of the conversation.
    `one_picture` says that a call of several actions is answered by one picture, after the last.
    """

    @property
    def name(self) -> str:
        """A name of `formats.NAMES`, or ``composed``."""
        ...

    @property
    def limit(self) -> Limit | None:
        """The largest picture."""
        ...

    @property
    def notches(self) -> bool:
        """Whether scrolling is counted in notches, already turned into 120 pixels each."""
        ...

    @property
    def needs_picture(self) -> bool:
        """Whether a result without a picture is none."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else the request says, in the wire's own spelling."""
        ...

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """What the request offers."""
        ...

    def claims(self, call: ToolCall) -> bool:
        """Whether a call is meant for the computer."""
        ...

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """What a call asks for. Raises `ComputerActionError`, which the model is told."""
        ...

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """The answer to a call: texts and at most one picture."""
        ...


def plain_result(call: ToolCall, parts: Sequence[Part], *, failed: bool) -> ToolResult:
    """An answer of texts and pictures, as most wires have it."""
    return ToolResult(call_id=call.id, content=tuple(parts), is_error=failed)
