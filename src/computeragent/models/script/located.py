"""YAML with line numbers: values that know where they stand, and mappings that know their keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Any, cast, overload

import yaml
from msgspec import Struct

from computeragent.errors import ScriptError


def locate(text: str, source: str) -> Located | None:
    """Read YAML text; None where there is nothing in it. Raises `ScriptError`, naming `source` and the line."""
    try:
        node = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
        return None if node is None else _locate(node, source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScriptError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise ScriptError(f"{source}: not valid YAML: {error}") from error


class Located(Struct, frozen=True):
    """A YAML value with its place: a dict or list of located values, or a scalar and the text it was written as."""

    value: Any
    written: str
    source: str
    line: int

    def fail(self, message: str, hint: str | None = None) -> ScriptError:
        """The error that something is wrong here, to be raised."""
        return ScriptError(f"{self.source}:{self.line}: {message}", hint=hint, details={"line": self.line})

    def items(self) -> list[Located]:
        """The items of a list. Raises `ScriptError` for anything else."""
        value: Any = self.value
        if not isinstance(value, list):
            raise self.fail("must be a list")
        return cast("list[Located]", value)

    def pairs(self) -> dict[str, Located]:
        """The pairs of a mapping. Raises `ScriptError` for anything else."""
        value: Any = self.value
        if not isinstance(value, dict):
            raise self.fail("must be a mapping of keys to values")
        return cast("dict[str, Located]", value)

    def strings(self) -> Iterator[Located]:
        """Every string in this value, at any depth."""
        if isinstance(self.value, str):
            yield self
        for child in self._children():
            yield from child.strings()

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.pairs().items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.items()]
        # A date is no JSON, so it stays the text that was written.
        return self.value if isinstance(self.value, (str, int, float, bool, NoneType)) else self.written

    def _children(self) -> Iterable[Located]:
        if isinstance(self.value, dict):
            return self.pairs().values()
        return self.items() if isinstance(self.value, list) else ()


def _locate(node: yaml.Node, source: str, line: int | None = None) -> Located:
    line = _line(node) if line is None else line
    if isinstance(node, yaml.MappingNode):
        return Located(_locate_pairs(node, source), "", source, line)
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(item, source) for item in node.value], "", source, line)
    constructor = yaml.SafeLoader("")
    value = constructor.construct_object(node, deep=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return Located(value, str(node.value), source, line)


def _line(node: yaml.Node) -> int:
    mark = node.start_mark
    return 1 if mark is None else mark.line + 1


def _locate_pairs(node: yaml.MappingNode, source: str) -> dict[str, Located]:
    found: dict[str, Located] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), _line(key_node)
        if key in found:
            raise ScriptError(f"{source}:{line}: the key `{key}` is given twice", details={"line": line})
        found[key] = _locate(value_node, source, line)  # a value stands where its key does
    return found


class Keys:
    """A mapping whose keys are known: wrong ones are refused at once, with the nearest right one.

    Each reader gives the default where the key is absent, and raises `ScriptError` for a value of the wrong kind.
    """

    def __init__(self, at: Located, known: Iterable[str]) -> None:
        self.at = at
        self._pairs = at.pairs()
        known = tuple(known)
        for key, item in self._pairs.items():
            if key not in known:
                raise item.fail(f"unknown key `{key}`", suggest(key, known))

    def get(self, key: str) -> Located | None:
        """The value of a key, if it is there."""
        return self._pairs.get(key)

    def one_of(self, *keys: str) -> str | None:
        """Which of these keys is there. Raises `ScriptError` for more than one."""
        given = [key for key in keys if key in self._pairs]
        if len(given) > 1:
            raise self._pairs[given[1]].fail(f"`{given[0]}` and `{given[1]}` exclude each other")
        return given[0] if given else None

    def text(self, key: str) -> str | None:
        """Text; a number or truth value is taken as it was written."""
        item = self.get(key)
        return None if item is None else read_text(item, key)

    @overload
    def number(self, key: str, default: float) -> float: ...
    @overload
    def number(self, key: str, default: None = None) -> float | None: ...
    def number(self, key: str, default: float | None = None) -> float | None:
        """A number, zero or more."""
        item = self.get(key)
        return default if item is None else read_number(item, key)

    @overload
    def integer(self, key: str, default: int, least: int = 0) -> int: ...
    @overload
    def integer(self, key: str, default: None = None, least: int = 0) -> int | None: ...
    def integer(self, key: str, default: int | None = None, least: int = 0) -> int | None:
        """A whole number, `least` or more."""
        item = self.get(key)
        return default if item is None else read_integer(item, key, least)

    def boolean(self, key: str) -> bool:
        """True or false; false where absent."""
        item = self.get(key)
        if item is None:
            return False
        if not isinstance(item.value, bool):
            raise item.fail(f"`{key}` must be true or false")
        return item.value


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint for a wrong word: the nearest right one, and all of them."""
    known = tuple(known)
    close = difflib.get_close_matches(word, known, n=1)
    listed = f"Known here: {', '.join(known)}."
    return f"Did you mean `{close[0]}`? {listed}" if close else listed


def read_text(item: Located, key: str) -> str:
    """Text; `key` names it in errors."""
    if isinstance(item.value, (dict, list)) or item.value is None:
        raise item.fail(f"`{key}` must be text")
    return item.value if isinstance(item.value, str) else item.written


def read_number(item: Located, key: str) -> float:
    """A number, zero or more."""
    if isinstance(item.value, bool) or not isinstance(item.value, (int, float)) or not 0 <= item.value < 1e9:
        raise item.fail(f"`{key}` must be a number, zero or more")
    return item.value


def read_integer(item: Located, key: str, least: int = 0) -> int:
    """A whole number, `least` or more."""
    number = read_number(item, key)
    if number != int(number) or number < least:
        raise item.fail(f"`{key}` must be a whole number, {least} or more")
    return int(number)
