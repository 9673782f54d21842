"""YAML that knows where it stands: every complaint names the file and the line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast

import yaml

from computeragent.errors import PolicyInvalidError

_MAX_NODES = 100_000
_MAX_DEPTH = 40


class Entry:
    """A YAML value with its place."""

    __slots__ = ("file", "line", "value", "written")

    def __init__(self, value: Any, written: str, file: str, line: int) -> None:
        self.value: Any = value
        """A scalar, or a list or dict of entries."""
        self.written = written
        self.file = file
        self.line = line

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """Raise `PolicyInvalidError`, naming this place."""
        raise PolicyInvalidError(
            f"{self.file}:{self.line}: {message}",
            hint=hint or "docs/policy.md says what a policy file may hold.",
            details={"file": self.file, "line": self.line},
        )

    def mapping(self, what: str, keys: Iterable[str] | None = None) -> dict[str, Entry]:
        """Its pairs. With `keys`, any other key is refused."""
        value: Any = self.value
        if not isinstance(value, dict):
            self.fail(f"{what} must be a mapping of keys to values")
        pairs = cast("dict[str, Entry]", value)
        if keys is not None:
            known = list(keys)
            for key, entry in pairs.items():
                if key not in known:
                    entry.fail(f"{what} has no key {key!r}", did_you_mean(key, known))
        return pairs

    def items(self) -> list[Entry]:
        """Its items; of a scalar itself alone."""
        value: Any = self.value
        if isinstance(value, dict):
            self.fail("must be a value or a list of values")
        return cast("list[Entry]", value) if isinstance(value, list) else [self]

    def text(self, what: str) -> str:
        """A scalar as it is written, such as ``no`` or ``1.10``. It must not be empty."""
        if isinstance(self.value, list | dict) or self.value is None or not self.written.strip():
            self.fail(f"{what} must be a text")
        return self.written

    def texts(self, what: str) -> list[str]:
        """A text, or a list of them that is not empty."""
        found = [item.text(what) for item in self.items()]
        if not found:
            self.fail(f"{what} is an empty list", "Leave the key out to match anything.")
        return found

    def choice(self, what: str, choices: Iterable[str]) -> str:
        """One of some words."""
        word, known = self.text(what), list(choices)
        if word not in known:
            self.fail(f"{what} cannot be {word!r}", did_you_mean(word, known))
        return word

    def plain(self) -> Any:
        """The value without its places."""
        value: Any = self.value
        if isinstance(value, dict):
            return {key: entry.plain() for key, entry in cast("dict[str, Entry]", value).items()}
        if isinstance(value, list):
            return [entry.plain() for entry in cast("list[Entry]", value)]
        return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names what was meant, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    listed = f"Known: {', '.join(known)}."
    return f'Did you mean "{close[0]}"? {listed}' if close else listed


def read_yaml(text: str, file: str) -> Entry:
    """Read YAML. Raises `PolicyInvalidError`."""
    start = Entry(None, "", file, 1)
    try:
        node = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
        return start if node is None else _Reader(file).entry(node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        start.line = mark.line + 1 if mark else 1
        start.fail(f"not valid YAML: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, PolicyInvalidError):
            raise
        start.fail(f"not valid YAML: {' '.join(str(error).split())[:200]}")


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._scalars = yaml.SafeLoader("")

    def entry(self, node: yaml.Node, depth: int) -> Entry:
        found = Entry(None, "", self._file, node.start_mark.line + 1)
        self._count += 1
        if self._count > _MAX_NODES or depth > _MAX_DEPTH:
            found.fail("the file is too large, or nested too deeply")
        if isinstance(node, yaml.MappingNode):
            found.value = self._pairs(node, depth)
        elif isinstance(node, yaml.SequenceNode):
            found.value = [self.entry(item, depth + 1) for item in cast("list[yaml.Node]", node.value)]
        else:
            scalar = cast("yaml.ScalarNode", node)
            found.written = str(scalar.value)
            value: Any = cast("Any", self._scalars.construct_object(scalar))  # pyright: ignore[reportUnknownMemberType]
            # a date is a text here
            found.value = value if isinstance(value, str | int | float | bool | None) else found.written
        return found

    def _pairs(self, node: yaml.MappingNode, depth: int) -> dict[str, Entry]:
        pairs: dict[str, Entry] = {}
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            place = Entry(None, "", self._file, key.start_mark.line + 1)
            if not isinstance(key, yaml.ScalarNode):
                place.fail("a key must be a text")
            name = str(key.value)
            if name in pairs:
                place.fail(f"the key {name!r} is there twice")
            pairs[name] = self.entry(value, depth + 1)
            if not isinstance(value, yaml.ScalarNode):
                pairs[name].line = place.line
        return pairs


def as_yaml(value: Mapping[str, Any] | list[Any]) -> str:
    """Plain data as YAML text."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)  # pyright: ignore[reportUnknownMemberType]
