"""Cedar policies, parsed once: what each is called, what it does, and where in its file it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from computeragent.errors import MissingExtraError, PolicyInvalidError
from computeragent.wire.encoding import from_json

_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[^\s"]|"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class CedarPolicies:
    """Policies that are ready to judge. `names` are their ``@id`` annotations, where they have one."""

    parsed: Any
    forbids: frozenset[str]
    names: dict[str, str]

    def name(self, policy: str) -> str:
        """What a policy is called."""
        return self.names.get(policy, policy)


def cedar() -> Any:
    """The library. Raises `MissingExtraError`."""
    try:
        import cedarpy
    except ImportError:
        hint = "pip install 'computer-agent-py[cedar]'"
        raise MissingExtraError("Cedar policies need the [cedar] extra", hint=hint) from None
    return cedarpy


def parse_schema(text: str) -> Any:
    """A schema in Cedar's own syntax or as JSON. Raises `PolicyInvalidError`."""
    library = cedar()
    try:
        if text.lstrip().startswith("{"):
            return library.Schema.from_json_str(text)
        return library.Schema.from_str(text)
    except ValueError as error:
        hint = "A schema declares User, Group, Agent and the action toolUse."
        raise PolicyInvalidError(f"schema: {error}", hint=hint, details={"file": "schema"}) from None


def parse_policies(sources: Sequence[tuple[str, str]], schema: Any = None) -> CedarPolicies:
    """Policies from texts, each with its file's name. Raises `PolicyInvalidError` with the file and line."""
    library = cedar()
    for text, file in sources:  # each by itself: half a policy must not be completed by the next text
        try:
            library.PolicySet.from_str(text)
        except ValueError as error:
            _refuse(str(error), file, _line_of_fault(text))
    places = [(file, line) for text, file in sources for line, _ in statements(text)]
    joined = "\n".join(text for text, _ in sources)
    parsed = library.PolicySet.from_str(joined)
    described: dict[str, Any] = from_json(library.policies_to_json_str(joined))
    for template in described["templates"]:
        _refuse("a template judges nothing by itself: put the entity in place of the slot", *_place(template, places))
    static: dict[str, dict[str, Any]] = described["staticPolicies"]
    if schema is not None:
        checked = library.validate_policies(joined, schema)
        for fault in checked.errors:
            _refuse(fault.error, *_place(fault.policy_id, places))
        if not checked.validation_passed:
            _refuse("the policies do not conform to the schema", sources[0][1] if sources else "policies", None)
    return CedarPolicies(
        parsed,
        forbids=frozenset(name for name, policy in static.items() if policy["effect"] == "forbid"),
        names={name: noted for name, policy in static.items() if (noted := policy.get("annotations", {}).get("id"))},
    )


def statements(text: str) -> list[tuple[int, str]]:
    """The policies of a text as written, each with the line that it starts on. The last may lack its end."""
    found: list[tuple[int, str]] = []
    start: int | None = None
    for token in _TOKEN.finditer(text):
        if token.group().startswith("//"):
            continue
        if start is None:
            start = token.start()
        if token.group() == ";":
            found.append((text.count("\n", 0, start) + 1, text[start : token.end()]))
            start = None
    if start is not None:
        found.append((text.count("\n", 0, start) + 1, text[start:]))
    return found


def _line_of_fault(text: str) -> int | None:
    """Where the first policy starts that cannot be parsed: the parser does not say."""
    library = cedar()
    for line, statement in statements(text):
        try:
            library.PolicySet.from_str(statement)
        except ValueError:
            return line
    return None


def _place(policy: str, places: list[tuple[str, int]]) -> tuple[str, int | None]:
    """Where a policy stands: the parser numbers them in order."""
    number = policy.removeprefix("policy")
    if number.isdecimal() and int(number) < len(places):
        return places[int(number)]
    return places[0][0] if places else "policies", None


def _refuse(fault: str, file: str, line: int | None) -> NoReturn:
    place = file if line is None else f"{file}:{line}"
    hint = None if line is None else "The line is where the policy starts."
    raise PolicyInvalidError(f"{place}: {fault}", hint=hint, details={"file": file, "line": line})
