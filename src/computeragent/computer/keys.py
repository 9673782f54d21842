"""The names of keys: one spelling inside, the many spellings of models and people at the edge."""

from __future__ import annotations

from collections.abc import Iterable

from computeragent.errors import ComputerActionError

NAMED = (
    *("ctrl", "shift", "alt", "super", "enter", "tab", "escape", "space", "backspace", "delete", "insert"),
    *("home", "end", "pageup", "pagedown", "up", "down", "left", "right", "capslock", "numlock", "printscreen"),
    *("pause", "menu", *(f"f{number}" for number in range(1, 25))),
)
"""Keys that have a name; every other key is the one character that it types."""

MODIFIERS = frozenset({"ctrl", "shift", "alt", "super"})

_ALSO = {
    **dict.fromkeys(("control", "control_l", "control_r", "ctrl_l", "ctrl_r", "controlleft", "controlright"), "ctrl"),
    **dict.fromkeys(("shift_l", "shift_r", "shiftleft", "shiftright"), "shift"),
    **dict.fromkeys(("alt_l", "alt_r", "option", "altleft", "altright", "opt"), "alt"),
    **dict.fromkeys(("cmd", "command", "meta", "meta_l", "win", "windows", "super_l", "super_r", "os"), "super"),
    **dict.fromkeys(("return", "kp_enter", "numpadenter"), "enter"),
    **dict.fromkeys(("esc",), "escape"),
    **dict.fromkeys(("back_space", "bksp"), "backspace"),
    **dict.fromkeys(("del",), "delete"),
    **dict.fromkeys(("ins",), "insert"),
    **dict.fromkeys(("page_up", "pgup", "prior"), "pageup"),
    **dict.fromkeys(("page_down", "pgdn", "pgdown", "next"), "pagedown"),
    **dict.fromkeys(("arrowup", "up_arrow", "uparrow"), "up"),
    **dict.fromkeys(("arrowdown", "down_arrow", "downarrow"), "down"),
    **dict.fromkeys(("arrowleft", "left_arrow", "leftarrow"), "left"),
    **dict.fromkeys(("arrowright", "right_arrow", "rightarrow"), "right"),
    **dict.fromkeys(("caps_lock", "capital"), "capslock"),
    **dict.fromkeys(("num_lock",), "numlock"),
    **dict.fromkeys(("print", "print_screen", "prtsc"), "printscreen"),
    **dict.fromkeys(("spacebar",), "space"),
    **dict.fromkeys(("apps", "contextmenu"), "menu"),
    "plus": "+", "minus": "-", "equal": "=", "comma": ",", "period": ".", "slash": "/", "backslash": "\\",
    "semicolon": ";", "apostrophe": "'", "quote": "'", "grave": "`", "backquote": "`", "bracketleft": "[",
    "bracketright": "]", "underscore": "_", "asterisk": "*", "question": "?", "exclam": "!", "at": "@",
    "numbersign": "#", "dollar": "$", "percent": "%", "asciicircum": "^", "ampersand": "&", "parenleft": "(",
    "parenright": ")", "colon": ":", "less": "<", "greater": ">", "bar": "|", "braceleft": "{", "braceright": "}",
    "asciitilde": "~", "quotedbl": '"',
}  # fmt: skip
_KNOWN = frozenset(NAMED)


def key(name: str) -> str:
    """The one spelling of a key: of `NAMED`, or the character that it types. Raises `ComputerActionError`."""
    if len(name) == 1:
        return "space" if name == " " else "enter" if name == "\n" else "tab" if name == "\t" else name
    lower = name.strip().lower()
    found = _ALSO.get(lower, lower)
    if found in _KNOWN or len(found) == 1:
        return found
    raise ComputerActionError(
        f"there is no key {name!r}", hint="Keys are single characters, or names such as ctrl, enter, pagedown, f5."
    )


def keys(names: Iterable[str]) -> tuple[str, ...]:
    """The one spelling of each key."""
    return tuple(key(name) for name in names)


def split_combo(combo: str) -> tuple[str, ...]:
    """The keys of a combination as models write it: ``ctrl+c``, ``ctrl-c``, ``ctrl++``, ``Return``, ``-``.

    A ``-`` joins keys only where it stands between names; so ``ctrl+-`` is ctrl and minus.
    """
    text = combo.strip() or combo
    if len(text) == 1:
        return (key(text),)
    parts = _split(text, "+")
    if len(parts) == 1 and "-" in text:
        parts = _split(text, "-")
    return keys(parts)


def _split(text: str, joint: str) -> list[str]:
    if text == joint:
        return [text]
    tail = [joint] if text.endswith(joint * 2) else []
    body = text[:-2] if tail else text
    return [*(part for part in body.split(joint) if part), *tail]
