"""Python functions as tools: the schema from the signature, the call checked against it, the answer as text."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast, get_type_hints

import msgspec

from computeragent.dialects.model import Tool, ToolCall
from computeragent.errors import ComputerActionError, ValidationError
from computeragent.wire.encoding import to_json

_LONGEST = 100_000


class Function:
    """One function, sync or async; a sync one runs on a thread. Its docstring is what the model is told.

    Raises `ValidationError` for one whose arguments no schema can describe.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self._arguments = _arguments_of(function, self.name)
        (schema,), parts = msgspec.json.schema_components([self._arguments], ref_template="#/$defs/{name}")
        resolved = dict(parts.pop(self._arguments.__name__, schema))
        resolved.pop("title", None)
        described = inspect.getdoc(function) or ""
        self.tool = Tool(
            name=self.name,
            description=described or None,
            input_schema={**resolved, **({"$defs": parts} if parts else {})},
        )

    async def call(self, arguments: dict[str, Any]) -> str:
        """The function's answer. Raises `ComputerActionError` for wrong arguments and for what the function raises."""
        try:
            given = msgspec.convert(arguments, self._arguments)
        except msgspec.ValidationError as error:
            raise ComputerActionError(f"{self.name}: {error}") from None
        values = {name: getattr(given, name) for name in self._arguments.__struct_fields__}
        try:
            if inspect.iscoroutinefunction(self._function):
                answer = await self._function(**values)
            else:
                answer = await asyncio.to_thread(self._function, **values)
                if inspect.isawaitable(answer):
                    answer = await answer
        except Exception as error:  # a foreign function may raise anything
            raise ComputerActionError(f"{self.name} failed: {type(error).__name__}: {error}"[:2_000]) from error
        return _text(answer)


class Functions:
    """The functions of a run, by name."""

    def __init__(self, given: Sequence[Any], *, taken: frozenset[str]) -> None:
        self._functions: dict[str, Function] = {}
        for each in given:
            if not callable(each):
                raise ValidationError(
                    f"a tool is a Python function, not {type(cast('object', each)).__name__}", hint="Mend tools=."
                )
            function = Function(each)
            if function.name in self._functions or function.name in taken:
                raise ValidationError(f"there are two tools named {function.name!r}", hint="Rename the function.")
            self._functions[function.name] = function

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the request offers."""
        return tuple(function.tool for function in self._functions.values())

    def find(self, call: ToolCall) -> Function:
        """The function that a call means. Raises `ComputerActionError`."""
        found = self._functions.get(call.name)
        if found is None:
            raise ComputerActionError(f"there is no tool {call.name[:100]!r}")
        return found


def _arguments_of(function: Callable[..., Any], name: str) -> type[msgspec.Struct]:
    """A struct with a field for each parameter."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    try:
        hints = get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise TypeError(f"parameter {parameter.name!r} has no name that a model could give")
            kind = hints.get(parameter.name, Any)
            has_default = parameter.default is not parameter.empty
            fields.append((parameter.name, kind, parameter.default) if has_default else (parameter.name, kind))
        made = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.schema(made)
    except (TypeError, NameError, ValueError) as error:
        raise ValidationError(
            f"the tool {name!r} cannot be described to a model: {error}",
            hint="Give its parameters types that JSON has: str, int, float, bool, list, dict, Literal.",
        ) from error
    return made


def _text(answer: Any) -> str:
    try:
        text = answer if isinstance(answer, str) else "" if answer is None else to_json(answer).decode()
    except (TypeError, ValueError):
        text = str(answer)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (and {len(text) - _LONGEST:,} characters more)"
