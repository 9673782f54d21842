"""Text typed exactly, also into programs that lag behind.

Short texts are keys, so that programs hear each of them. Long ones, and ones with more foreign characters than there
are spare keys, are pasted line by line: we own the clipboard, so we know when a program has taken what it was given,
and then the clipboard gets back what it had.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Iterator

from computeragent.computer.x11.keyboard import Keyboard
from computeragent.computer.x11.selections import CLIPBOARD, PRIMARY, Selections
from computeragent.errors import ComputerActionError

_BY_KEYS = 400
"""Characters of a text that is not pasted."""
_SHORT = 24
"""Characters of a line that is not pasted, in a text that is."""
_AT_ONCE = 50
_PASTE_PART = 20_000
_TAKEN = 10.0
"""Seconds that a program gets to take a paste."""
_QUIET, _LONGEST_QUIET = 0.1, 2.0
"""Seconds without another look at the clipboard after which a paste is over; more for a program that is slow to look,
or to begin with it.

Chromium looks a dozen times, and throws the paste away if the clipboard has changed before it is done.
"""
_PASTE = ("shift", "insert")  # which terminals understand, too
_KEYS = {"\n": "enter", "\t": "tab"}


class Typist:
    """Types on a keyboard, with the clipboard at hand."""

    def __init__(self, keyboard: Keyboard, selections: Selections) -> None:
        self._keyboard = keyboard
        self._selections = selections

    async def type(self, text: str) -> None:
        """Type a text. Raises `ComputerActionError` for characters that nobody can type."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        _check(text)
        await self._keyboard.load()
        plain = re.sub(r"[\n\t]", "", text)
        if len(text) <= _BY_KEYS and len(self._keyboard.foreign(plain)) <= self._keyboard.capacity:
            await self._keyboard.learn(self._keyboard.foreign(plain))
            await self._by_keys(text)
        else:
            await self._pasting(text)

    async def _by_keys(self, text: str) -> None:
        """Type what all has keys. In parts, so that who cancels is heard."""
        for part in re.split(r"([\n\t])", text):
            if part in _KEYS:
                await self._keyboard.press([_KEYS[part]])
            else:
                for start in range(0, len(part), _AT_ONCE):
                    await self._keyboard.type(part[start : start + _AT_ONCE])

    async def _pasting(self, text: str) -> None:
        before = await self._selections.get(CLIPBOARD)
        pasting = True
        for part in _lines(text):
            if part in _KEYS:
                await self._keyboard.press([_KEYS[part]])
            elif len(part) <= _SHORT and not self._keyboard.foreign(part):
                await self._keyboard.type(part)
            else:
                pasting = pasting and await self._paste(part)
                if not pasting:
                    await self._slowly(part)
        # Where a program did not take it, what it may take later must not be there.
        await self._selections.set(before if pasting else "", CLIPBOARD)
        await self._selections.set("", PRIMARY)

    async def _paste(self, part: str) -> bool:
        """Paste text; False if nobody took it, and then nobody will."""
        looks = _Looks()
        self._selections.asked = looks.add
        try:
            await self._selections.set(part, CLIPBOARD, PRIMARY)
            await self._keyboard.press(_PASTE)
            if await looks.taken():
                return True
            await self._selections.set("", CLIPBOARD, PRIMARY)
            return False
        finally:
            self._selections.asked = lambda text: None

    async def _slowly(self, part: str) -> None:
        """Type by keys, as many foreign characters at a time as there are spare keys."""
        start, capacity = 0, self._keyboard.capacity
        while start < len(part):
            end = start + 1
            while end < len(part) and len(self._keyboard.foreign(part[start : end + 1])) <= capacity:
                end += 1
            await self._keyboard.learn(self._keyboard.foreign(part[start:end]))
            await self._by_keys(part[start:end])
            start = end


def _lines(text: str) -> Iterator[str]:
    for part in re.split(r"([\n\t])", text):
        for start in range(0, len(part), _PASTE_PART):
            yield part[start : start + _PASTE_PART]


class _Looks:
    """When a program looked at the clipboard, and whether it took the text."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self._last, self._gap, self._taken = time.monotonic(), 0.0, False

    def add(self, text: bool) -> None:
        """From the connection's thread."""
        self._loop.call_soon_threadsafe(self._add, time.monotonic(), text)

    async def taken(self) -> bool:
        """Wait until the text is taken and nobody looks any more; False when nobody takes it."""
        end = time.monotonic() + _TAKEN
        while True:
            quiet = min(max(_QUIET, self._gap * 4), _LONGEST_QUIET)
            over = self._last + quiet if self._taken else end
            try:
                async with asyncio.timeout(max(0.0, over - time.monotonic())):
                    await self._more.wait()
            except TimeoutError:
                return self._taken
            self._more.clear()

    def _add(self, at: float, text: bool) -> None:
        self._gap = max(self._gap, at - self._last)
        self._last, self._taken = at, self._taken or text
        self._more.set()


def _check(text: str) -> None:
    for character in text:
        if character not in _KEYS and unicodedata.category(character) in {"Cc", "Cs"}:
            raise ComputerActionError(
                f"no key types the character U+{ord(character):04X}",
                hint="Text is printable characters, newlines and tabs. For other keys, press them.",
            )
