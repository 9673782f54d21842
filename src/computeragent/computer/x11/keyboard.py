"""Keys of a display, pressed through XTEST: which key types what, and spare keys for what no key types."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from computeragent.computer import keys as names
from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection

_KEYSYMS = {
    "ctrl": 0xFFE3, "shift": 0xFFE1, "alt": 0xFFE9, "super": 0xFFEB, "enter": 0xFF0D, "tab": 0xFF09,
    "escape": 0xFF1B, "space": 0x20, "backspace": 0xFF08, "delete": 0xFFFF, "insert": 0xFF63, "home": 0xFF50,
    "end": 0xFF57, "pageup": 0xFF55, "pagedown": 0xFF56, "up": 0xFF52, "down": 0xFF54, "left": 0xFF51,
    "right": 0xFF53, "capslock": 0xFFE5, "numlock": 0xFF7F, "printscreen": 0xFF61, "pause": 0xFF13, "menu": 0xFF67,
    **{f"f{number}": 0xFFBD + number for number in range(1, 25)},
}  # fmt: skip
_SHIFT, _CAPSLOCK = 0xFFE1, 0xFFE5
_SETTLE = 0.06
"""Seconds that programs get to hear of new keys."""
_REUSE = 1.0
"""Seconds after its last use before a spare key may mean something else; a busy program may still have it to read."""

Stroke = tuple[int, bool]
"""A key's code, and whether shift goes with it."""


def keysym(character: str) -> int:
    """The keysym that types a character."""
    code = ord(character)
    return code if 0x20 <= code < 0x7F or 0xA0 <= code < 0x100 else 0x01000000 | code


class Keyboard:
    """The keyboard of a display, whatever its layout. Keys that are held stay held until `release_all`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._strokes: dict[int, Stroke] = {}
        self._spare: OrderedDict[int, tuple[int, float]] = OrderedDict()  # code: what it types now, and when it did
        self._held: dict[str, list[int]] = {}
        self._stale = True
        connection.on(xlib.X.MappingNotify, self._changed)

    @property
    def capacity(self) -> int:
        """How many characters without a key of their own can have one at a time."""
        return len(self._spare)

    async def load(self) -> None:
        """Learn which key types what, if that has changed."""
        if self._stale:
            self._stale = False
            await self._connection.run(self._load)

    async def press(self, keys: Sequence[str], repeat: int = 1) -> None:
        """Press keys together, and let them go, `repeat` times."""
        pressed = await self._codes(keys)

        def strike() -> None:
            for _ in range(repeat):
                self._send(pressed, down=True)
                self._send(list(reversed(pressed)), down=False)
            self._connection.display.sync()

        await self._connection.run(strike)

    async def down(self, keys: Sequence[str]) -> None:
        """Press keys and hold them."""
        for key in names.keys(keys):
            if key not in self._held:
                codes = await self._codes([key])
                self._held[key] = codes
                await self._connection.run(lambda codes=codes: self._send(codes, down=True))

    async def up(self, keys: Sequence[str]) -> None:
        """Let keys go, whether we hold them or not."""
        for key in reversed(names.keys(keys)):
            codes = self._held.pop(key, None) or await self._codes([key])
            await self._connection.run(lambda codes=codes: self._send(codes[::-1], down=False))

    async def release_all(self) -> None:
        """Let go what is held."""
        await self.up(list(self._held))

    def foreign(self, text: Iterable[str]) -> list[str]:
        """The distinct characters that no key of the layout types, in their order."""
        own = {code for code, _ in self._spare.items()}
        return [
            each
            for each in dict.fromkeys(text)
            if (stroke := self._strokes.get(keysym(each))) is None or stroke[0] in own
        ]

    async def learn(self, characters: Sequence[str]) -> None:
        """Give characters keys, at most `capacity`, and wait until programs know. They stay until others come."""
        wanted = {keysym(each) for each in characters}
        known = {symbol: code for code, (symbol, _) in self._spare.items()}
        for symbol in wanted & known.keys():
            self._touch(known[symbol], symbol)
        new = [keysym(each) for each in characters if keysym(each) not in known]
        if not new:
            return
        free = [code for code, (symbol, _) in self._spare.items() if symbol not in wanted][: len(new)]
        in_use = max((used for code in free if (used := self._spare[code][1])), default=0.0)
        await asyncio.sleep(max(0.0, in_use + _REUSE - time.monotonic()))
        await self._connection.run(lambda: self._map(dict(zip(free, new, strict=True))))
        await asyncio.sleep(_SETTLE)

    async def type(self, text: str) -> None:
        """Type characters that all have keys: of the layout, or learnt."""
        await self.load()
        strokes = [self._strokes[keysym(each)] for each in text]
        spare = {code for code, _ in strokes} & self._spare.keys()
        await self._connection.run(lambda: self._type(strokes))
        for code in spare:
            self._touch(code, self._spare[code][0])

    async def forget(self) -> None:
        """Take the spare keys' meanings away again, on a display that others use, too."""
        mapped = {code: (symbol, used) for code, (symbol, used) in self._spare.items() if symbol}
        if mapped:
            await asyncio.sleep(max(0.0, max(used for _, used in mapped.values()) + _REUSE - time.monotonic()))
            await self._connection.run(lambda: self._map(dict.fromkeys(mapped, 0)))

    async def _codes(self, keys: Sequence[str]) -> list[int]:
        """The codes of keys to be pressed together, in their order."""
        await self.load()
        wanted = names.keys(keys)
        together = bool(names.MODIFIERS.intersection(wanted) | names.MODIFIERS.intersection(self._held))
        codes: list[int] = []
        for key in wanted:
            # Models write CTRL+C for what nobody presses shift for.
            symbol = _KEYSYMS.get(key) or keysym(key.lower() if together and len(key.lower()) == 1 else key)
            if symbol not in self._strokes:
                await self._learn_symbol(symbol)
            code, shift = self._strokes[symbol]
            if shift:
                codes.append(self._strokes[_SHIFT][0])
            codes.append(code)
        return list(dict.fromkeys(codes))

    async def _learn_symbol(self, symbol: int) -> None:
        code = next(iter(self._spare))
        await self._connection.run(lambda: self._map({code: symbol}))
        await asyncio.sleep(_SETTLE)

    # ── In the connection's thread ──

    def _load(self) -> None:
        display = self._connection.display
        first, last = display.display.info.min_keycode, display.display.info.max_keycode
        rows = display.get_keyboard_mapping(first, last - first + 1)
        known = dict(self._spare)
        self._strokes.clear()
        for code, row in enumerate(rows, first):
            symbols = list(row)
            if not any(symbols):
                self._spare.setdefault(code, (0, 0.0))
            elif code in self._spare and symbols[0] != known[code][0]:
                del self._spare[code]  # somebody else's now
            for shift, symbol in enumerate(symbols[:2]):
                if symbol:
                    self._strokes.setdefault(symbol, (code, bool(shift)))

    def _map(self, meanings: dict[int, int]) -> None:
        display = self._connection.display
        for code, symbol in meanings.items():
            display.change_keyboard_mapping(code, [[symbol, symbol]])
            self._touch(code, symbol)
            self._strokes = {known: stroke for known, stroke in self._strokes.items() if stroke[0] != code}
            if symbol:
                self._strokes[symbol] = (code, False)
        display.sync()

    def _touch(self, code: int, symbol: int) -> None:
        self._spare[code] = (symbol, time.monotonic())
        self._spare.move_to_end(code)

    def _type(self, strokes: list[Stroke]) -> None:
        fake, display = xlib.xtest.fake_input, self._connection.display
        press, release, shift = xlib.X.KeyPress, xlib.X.KeyRelease, self._strokes[_SHIFT][0]
        locked = bool(self._connection.root.query_pointer().mask & xlib.X.LockMask)
        if locked:
            self._tap(self._strokes[_CAPSLOCK][0])
        shifted = False
        for code, needs_shift in strokes:
            if needs_shift != shifted:
                fake(display, press if needs_shift else release, shift)
                shifted = needs_shift
            fake(display, press, code)
            fake(display, release, code)
        if shifted:
            fake(display, release, shift)
        if locked:
            self._tap(self._strokes[_CAPSLOCK][0])
        display.sync()

    def _tap(self, code: int) -> None:
        self._send([code], down=True)
        self._send([code], down=False)

    def _send(self, codes: Sequence[int], *, down: bool) -> None:
        kind = xlib.X.KeyPress if down else xlib.X.KeyRelease
        for code in codes:
            xlib.xtest.fake_input(self._connection.display, kind, code)
        self._connection.display.flush()

    def _changed(self, event: object) -> None:
        del event
        self._stale = True
