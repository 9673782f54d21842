"""Whoever took over: one viewer at a time, and what that viewer does, one action after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from computeragent.computer.actions import (
    Action,
    Back,
    Click,
    Drag,
    Goto,
    Keypress,
    MouseDown,
    MouseUp,
    Move,
    Scroll,
    Type,
    parse_action,
    perform,
)
from computeragent.computer.types import Button
from computeragent.desk.screen import Screen
from computeragent.errors import ComputerActionError, ComputerAgentError, ConflictError, InsufficientPermissionError

_ALLOWED = (Back, Click, Drag, Goto, Keypress, MouseDown, MouseUp, Move, Scroll, Type)
_ACTION = 60.0
"""Seconds that one action may take: a long text on a slow page."""
_WAITING = 64
"""Actions of one viewer that wait; a viewer who is faster than the computer is read no further."""


class Hands:
    """Who controls the computer. The last one who takes it has it; nobody has it to begin with."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._acting = asyncio.Lock()
        self._holder: Hand | None = None
        self._hands: set[Hand] = set()

    def join(self, told: Callable[[], None]) -> Hand:
        """A hand for a viewer; `told` is called when somebody takes the computer or lets it go."""
        hand = Hand(self, told)
        self._hands.add(hand)
        return hand

    def holds(self, hand: Hand) -> bool:
        """Whether it is this one."""
        return self._holder is hand

    @property
    def is_held(self) -> bool:
        """Whether anybody has it."""
        return self._holder is not None

    async def give(self, hand: Hand | None) -> None:
        """Let another one have it, or nobody. Buttons that the last one held are let go."""
        last, self._holder = self._holder, hand
        if last is not None and last is not hand:
            await last.let_go()
        for each in self._hands:
            each.told()

    async def leave(self, hand: Hand) -> None:
        """A viewer has gone."""
        self._hands.discard(hand)
        if self._holder is hand:
            await self.give(None)

    async def act(self, action: Action) -> None:
        """Do one action after those before it. Raises `ComputerAgentError`."""
        async with self._acting:
            computer = await self._screen.computer()
            try:
                async with asyncio.timeout(_ACTION):
                    await perform(computer, action)
            except TimeoutError:
                raise ComputerActionError("the action took too long", hint="The screen shows how far it got.") from None
            finally:
                self._screen.look()


class Hand:
    """One viewer's: what it is asked to do waits in line here."""

    def __init__(self, hands: Hands, told: Callable[[], None]) -> None:
        self.told = told
        self._hands = hands
        self._held: set[Button] = set()
        self._line: asyncio.Queue[Action] = asyncio.Queue(_WAITING)

    async def take(self) -> None:
        """Take over."""
        await self._hands.give(self)

    async def release(self) -> None:
        """Give it back."""
        if self._hands.holds(self):
            await self._hands.give(None)

    async def ask(self, value: Any) -> None:
        """Put an action in line; waits where the line is long. Raises `ComputerAgentError` for what may not be."""
        action = parse_action(value)
        if not isinstance(action, _ALLOWED):
            raise InsufficientPermissionError("that is no action of a hand", hint="Pointer, keys, text and addresses.")
        if not self._hands.holds(self):
            raise ConflictError("you do not have the computer", hint="Take over first.")
        await self._line.put(action)

    async def work(self, failed: Callable[[ComputerAgentError], None]) -> None:
        """Do what is in line, until cancelled. Of pointer moves that wait only the last counts."""
        action: Action | None = None
        while True:
            if action is None:
                action = await self._line.get()
            following: Action | None = None
            if isinstance(action, Move) and not self._line.empty():
                following = self._line.get_nowait()
                if isinstance(following, Move):
                    action = following
                    continue
            await self._do(action, failed)
            action = following

    async def _do(self, action: Action, failed: Callable[[ComputerAgentError], None]) -> None:
        if not self._hands.holds(self):
            return  # taken from it meanwhile
        if isinstance(action, MouseDown):
            self._held.add(action.button)
        try:
            await self._hands.act(action)
        except ComputerAgentError as error:
            failed(error)
        else:
            if isinstance(action, MouseUp):
                self._held.discard(action.button)

    async def let_go(self) -> None:
        """Let the buttons go that it held."""
        held, self._held = self._held, cast("set[Button]", set())
        for button in held:
            try:
                await self._hands.act(MouseUp(button=button))
            except ComputerAgentError:
                return  # a computer that has gone holds nothing
