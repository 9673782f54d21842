"""Keys as Chromium is told them, and text cut into what is typed and what is inserted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from computeragent.computer import keys as names
from computeragent.errors import ComputerActionError

_CHROMIUM = {
    "ctrl": "Control",
    "super": "Meta",
    "space": " ",
    "pageup": "PageUp",
    "pagedown": "PageDown",
    **{direction: f"Arrow{direction.title()}" for direction in ("up", "down", "left", "right")},
    "capslock": "CapsLock",
    "numlock": "NumLock",
    "printscreen": "PrintScreen",
    "menu": "ContextMenu",
}
_UNKNOWN = frozenset(f"f{number}" for number in range(13, 25))
_SHORTCUT = frozenset({"ctrl", "alt", "super"})
_PIECES = re.compile(r"\r\n|[\r\n\t]|[\x20-\x7e]+|[^\r\n\t\x20-\x7e]+")
MOST_TYPED = 100
"""Characters that are typed key by key, so that a page sees each; longer texts are inserted at once."""


def is_on_keyboard(key: str) -> bool:
    """Whether a key (as `keys.key` spells it) is on a US keyboard; other characters are inserted."""
    return len(key) > 1 or " " <= key <= "~"


def chromium_key(name: str) -> str:
    """A key of `keys.py` as Chromium calls it. Raises `ComputerActionError` for one that it does not have."""
    key = names.key(name)
    if key in _UNKNOWN or not is_on_keyboard(key):
        raise ComputerActionError(f"the browser has no key {name!r}", hint="Type text with the type action.")
    return _CHROMIUM.get(key) or (key if len(key) == 1 else key.title())


def chromium_combo(combo: Sequence[str]) -> list[str]:
    """Keys that go down together. A letter with ctrl is the same key in either case: shift is said by its name."""
    spelled = names.keys(combo)
    is_shortcut = bool(_SHORTCUT.intersection(spelled))
    return [chromium_key(key.lower() if is_shortcut and len(key) == 1 else key) for key in spelled]


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text in order: runs of characters, and whether to press them as keys (else: insert them whole)."""
    typed = len(text) <= MOST_TYPED
    held = ""
    for piece in _PIECES.findall(text):
        is_key = piece in {"\r\n", "\r", "\n", "\t"}
        if not is_key and not typed:
            held += piece  # one insertion, so that nothing comes between a letter and its accents
            continue
        if held:
            yield held, False
            held = ""
        if is_key:
            yield ("\t" if piece == "\t" else "\n"), True
        else:
            yield piece, piece.isascii()
    if held:
        yield held, False
