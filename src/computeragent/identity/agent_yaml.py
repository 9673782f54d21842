"""`AgentYaml`: the values of an agent.yaml, checked one by one, with the line of each that is wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import yaml

from computeragent.errors import IdentityError

_MAX_KEYS = 1000
_MAX_INTEGER = 2**31
_REPR = reprlib.Repr()  # bounded: a few aliases can make a value whose full text fills the memory
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


class _Loader(yaml.SafeLoader):
    """Plain data only, and no merge keys (``<<``) that multiply until memory is gone."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MAX_KEYS:
            raise yaml.constructor.ConstructorError(None, None, "a mapping has too many keys", node.start_mark)


class AgentYaml:
    """A YAML file read by paths of keys. Every method returns None where the key is absent or null.

    Unknown keys are kept and ignored. `name` is what errors call the file.
    """

    def __init__(self, text: str, name: str = "agent.yaml") -> None:
        self._name = name
        try:
            self._node: Any = cast("Any", yaml).compose(text, _Loader)  # the stubs leave it untyped
            self._data: Any = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise IdentityError(
                f"{name}:{mark.line + 1 if mark else 1}: {error.problem or 'not valid YAML'}",
                hint="Check the indentation and quotes near this line.",
            ) from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            deep = isinstance(error, RecursionError)
            reason = "nested too deeply" if deep else str(error).partition("\n")[0][:200]
            raise IdentityError(f"{name}: not valid YAML: {reason}", hint="Save it as plain UTF-8 text.") from None

    @property
    def data(self) -> Any:
        """The whole content."""
        return self._data

    def require_mapping(self) -> None:
        """The file must be a mapping of keys."""
        if not isinstance(self._data, Mapping):
            raise self.wrong((), "must be a mapping of keys", self._data, "Start with: name: my-agent")

    def text(self, *path: str) -> str | None:
        """A non-empty string."""
        value = self.get(*path)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        scalar = not isinstance(value, (str, Mapping, list))
        hint = f'Quote it: {path[-1]}: "{self._written(path)}"' if scalar else f"For example: {path[-1]}: text"
        raise self.wrong(path, "must be a non-empty string", value, hint)

    def required_text(self, key: str, example: str) -> str:
        """A non-empty string that must be there."""
        value = self.text(key)
        if value is None:
            raise IdentityError(f"{self._name}: {key} is required", hint=f'Add a line such as: {key}: "{example}"')
        return value

    def positive_integer(self, *path: str, example: int) -> int | None:
        """An integer greater than 0."""
        value = self.get(*path)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_INTEGER):
            return value
        raise self.wrong(path, "must be an integer greater than 0", value, f"For example: {path[-1]}: {example}")

    def number(self, *path: str, example: float) -> float | None:
        """A finite number, 0 or more."""
        value = self.get(*path)
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return value
        raise self.wrong(path, "must be a number, 0 or more", value, f"For example: {path[-1]}: {example}")

    def choice(self, *path: str, among: Sequence[str]) -> str | None:
        """One of a few words."""
        value = self.get(*path)
        if value is None or value in among:
            return value
        raise self.wrong(path, f"must be one of {', '.join(among)}", value, f"For example: {path[-1]}: {among[0]}")

    def flag(self, *path: str) -> bool | None:
        """True or false."""
        value = self.get(*path)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(path, "must be true or false", value, f"For example: {path[-1]}: true")

    def texts(self, *path: str) -> list[str] | None:
        """A list of strings."""
        value = self.get(*path)
        if value is None:
            return None
        items = cast("list[Any]", value) if isinstance(value, list) else []
        if isinstance(value, list) and all(isinstance(item, str) for item in items):
            return items
        raise self.wrong(path, "must be a list of strings", value, f"For example: {path[-1]}: [one, two]")

    def get(self, *path: str) -> Any:
        """The value as it is. What lies on the way must be mappings."""
        value: Any = self._data
        for index, key in enumerate(path):
            if value is None:
                return None
            if not isinstance(value, Mapping):
                raise self.wrong(
                    path[:index], "must be a mapping", value, f"Write {key}: … on a line below it, indented."
                )
            value = cast("Mapping[str, Any]", value).get(key)
        return value

    def wrong(self, path: Sequence[str | int], must: str, value: Any, hint: str) -> IdentityError:
        """The error for a value that is not what it must be."""
        try:
            shown = _REPR.repr(value)
            shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
        except ValueError:
            shown = "a huge number"
        subject = ".".join(str(key) for key in path) or "the file"
        return IdentityError(f"{self._name}:{self.line(path)}: {subject} {must}, got {shown}", hint=hint)

    def line(self, path: Sequence[str | int]) -> int:
        """The line of a key, or of the nearest one above it."""
        return self._find(path)[0]

    def _written(self, path: Sequence[str | int]) -> str:
        """A scalar as the file spells it."""
        node = self._find(path)[1]
        return str(node.value)[:60] if isinstance(node, yaml.ScalarNode) else ""

    def _find(self, path: Sequence[str | int]) -> tuple[int, Any]:
        node = self._node
        line = 1 if node is None else node.start_mark.line + 1
        for key in path:
            if isinstance(node, yaml.MappingNode):
                found = [pair for pair in node.value if pair[0].value == key]
                if not found:
                    break
                line, node = found[-1][0].start_mark.line + 1, found[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line, node
