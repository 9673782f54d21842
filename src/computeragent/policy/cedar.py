"""Cedar policies, judged in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from computeragent.errors import PolicyInvalidError, ValidationError
from computeragent.logs import Logger
from computeragent.policy.cedar_policies import CedarPolicies, cedar, parse_policies, parse_schema
from computeragent.policy.cedar_values import cedar_record, cedar_text, cedar_value
from computeragent.policy.files import WatchedFile
from computeragent.policy.http import known_fail_mode
from computeragent.policy.types import (
    FailMode,
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
    denied_by_fault,
)
from computeragent.wire.encoding import from_json, to_json

_ACTION = {"type": "Action", "id": "toolUse"}
_FAILED = re.compile(r"while evaluating policy `([^`]*)`: (.*)", re.DOTALL)
_REMEMBERED = 512
"""Sets of entities that are kept parsed: one for each principal, tool and resource."""
_HINT = "ask for an attribute with `has` before it is used"
_log = Logger("policy")


class CedarPolicyEngine:
    """Judges calls by Cedar policies, parsed once.

    A call is ``principal`` ``User::"<id>"`` (in its groups ``Group::"…"``, with its attributes), ``action``
    ``Action::"toolUse"`` (with the attribute ``tool``), ``resource`` ``Agent::"<name>"`` (with ``model``,
    ``session_id`` and its attributes), and ``context``: what the question has, and ``tool_name`` and ``tool_input``.
    How JSON becomes Cedar is told in `computeragent.policy.cedar_values`.

    A ``forbid`` that fails while it judges denies; a ``permit`` that fails permits nothing.

    Args:
        policies: Cedar text, or a list of texts.
        entities: Entities that policies refer to, in Cedar's JSON. What they say of a principal or an agent is added to
            what the question says, and wins.
        schema: A Cedar schema, to check policies and entities against when the engine is made.
        fail_mode: As other engines have it; an engine in this process is never away, and faults deny.
        path: A ``.cedar`` file in place of `policies`, which is watched.

    Raises `PolicyInvalidError`, a `ValueError`, for what is no policy, schema or entity.

    """

    name = "cedar"

    def __init__(
        self,
        *,
        policies: str | list[str] | None = None,
        entities: list[dict[str, Any]] | None = None,
        schema: str | None = None,
        fail_mode: FailMode = "deny",
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        known_fail_mode(fail_mode)
        if (policies is None) == (path is None):
            raise ValidationError("a Cedar engine needs either policies or path", hint="Give one of them.")
        checked = parse_schema(schema) if schema is not None else None
        self._entities = _Entities(entities or [], checked)
        self._file: WatchedFile[CedarPolicies] | None = None
        if path is not None:
            self._file = WatchedFile(path, lambda text, name: parse_policies([(text, name)], checked))
        else:
            self._fixed = parse_policies(_sources(policies or ""), checked)

    def __repr__(self) -> str:
        return f"CedarPolicyEngine({str(self._file.path)!r})" if self._file else "CedarPolicyEngine()"

    @property
    def generation(self) -> Hashable:
        """Changes when the policies do."""
        if self._file is None:
            return 1
        _ = self._file.value  # looks whether it has changed
        return self._file.generation

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not in force; None while it is."""
        return None if self._file is None else self._file.problem

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002 - the name that users know
        """Judge one call. Never raises: a fault is a denial with a code."""
        try:
            return self._judge(input, self._fixed if self._file is None else self._file.value)
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of the library
                raise
            _log.error("cedar_failed", tool=input.action.tool_name, error=type(error).__name__)
            reason = f"Cedar could not judge the call: {type(error).__name__}: {_short(str(error))}"
            return denied_by_fault(self.name, "POLICY_ERROR", reason)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _judge(self, asked: PolicyInput, policies: CedarPolicies) -> PolicyResult:
        context = _filled(asked.context)
        context["tool_name"] = asked.action.tool_name
        context["tool_input"] = cedar_value(asked.action.tool_input, depth=1)
        request = {
            "principal": {"type": "User", "id": cedar_text(asked.principal.id)},
            "action": _ACTION,
            "resource": {"type": "Agent", "id": _agent(asked.resource)},
            "context": to_json(context).decode(),
        }
        answer = cedar().is_authorized(request, policies.parsed, self._entities.of(asked))
        return self._result(answer, policies)

    def _result(self, answer: Any, policies: CedarPolicies) -> PolicyResult:
        if answer.decision.name == "NoDecision":
            reason = f"Cedar could not judge the call: {_short('; '.join(answer.diagnostics.errors))}"
            return denied_by_fault(self.name, "POLICY_ERROR", reason)
        named = ", ".join(sorted(policies.name(policy) for policy in answer.diagnostics.reasons))
        forbids, permits = _failures(answer.diagnostics.errors, policies)
        skipped = f"; skipped, as they failed: {_short('; '.join(permits))} ({_HINT})" if permits else ""
        if answer.allowed and not forbids:
            return PolicyResult(
                PolicyDecision.ALLOW, reason=f"permitted by {named}{skipped}", engine=self.name, rule=named
            )
        if not answer.allowed and named:
            return PolicyResult(PolicyDecision.DENY, reason=f"forbidden by {named}", engine=self.name, rule=named)
        if forbids:
            reason = f"a policy that may forbid the call failed: {_short('; '.join(forbids))} ({_HINT})"
            return denied_by_fault(self.name, "POLICY_ERROR", reason)
        return PolicyResult(
            PolicyDecision.DENY,
            reason=f"no policy permits the call{skipped}",
            engine=self.name,
            code="POLICY_ERROR" if permits else None,
        )


class _Entities:
    """The entities of a question: those that were given, parsed once, and the three that it is about."""

    def __init__(self, given: list[dict[str, Any]], schema: Any) -> None:
        self._library = cedar()
        self._base = self._parsed(given, schema)
        if schema is not None:
            given = from_json(str(self._base))  # and with the actions that the schema has
        self._given = {_uid(entity): entity for entity in given}
        self._known: dict[bytes, Any] = {}

    def of(self, asked: PolicyInput) -> Any:
        own: list[dict[str, Any]] = [
            _principal(asked.principal),
            {"uid": _ACTION, "attrs": {"tool": asked.action.tool_name}, "parents": []},
            _resource(asked.resource),
        ]
        text = to_json(own)
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[text] = self._with(own, text)
        return known

    def _with(self, own: list[dict[str, Any]], text: bytes) -> Any:
        clashing = {uid for entity in own if (uid := _uid(entity)) in self._given}
        if not clashing:
            return self._base.with_added_json_str(text.decode())
        others = [entity for uid, entity in self._given.items() if uid not in clashing]
        merged = [_merged(entity, self._given.get(_uid(entity), {})) for entity in own]
        return self._library.Entities.from_json_str(to_json([*others, *merged]).decode())

    def _parsed(self, given: list[dict[str, Any]], schema: Any) -> Any:
        try:
            return self._library.Entities.from_json_str(to_json(given).decode(), schema)
        except (ValueError, TypeError) as error:
            fault, number = str(error), None
        for index, entity in enumerate(given):
            try:
                self._library.Entities.from_json_str(to_json([entity]).decode(), schema)
            except (ValueError, TypeError) as error:
                fault, number = str(error), index
                break
        place = "entities" if number is None else f"entities[{number}]"
        hint = "An entity is {'uid': {'type': …, 'id': …}, 'attrs': {…}, 'parents': [{'type': …, 'id': …}]}."
        raise PolicyInvalidError(f"{place}: {fault}", hint=hint, details={"file": "entities", "entity": number})


def _sources(policies: str | Sequence[str]) -> list[tuple[str, str]]:
    texts = [policies] if isinstance(policies, str) else list(policies)
    if not all(isinstance(text, str) for text in texts):
        raise ValidationError("policies must be Cedar text, or a list of texts")
    return [(text, "policies" if len(texts) == 1 else f"policies[{number}]") for number, text in enumerate(texts)]


def _principal(principal: PolicyPrincipal) -> dict[str, Any]:
    return {
        "uid": {"type": "User", "id": cedar_text(principal.id)},
        "attrs": _filled(principal.attributes),
        "parents": [{"type": "Group", "id": cedar_text(group)} for group in dict.fromkeys(principal.groups)],
    }


def _resource(resource: PolicyResource) -> dict[str, Any]:
    told = {"model": resource.model, "session_id": resource.session_id}
    attributes = _filled(resource.attributes) | {name: value for name, value in told.items() if value}
    return {"uid": {"type": "Agent", "id": _agent(resource)}, "attrs": attributes, "parents": []}


def _agent(resource: PolicyResource) -> str:
    return cedar_text(resource.agent_name or resource.session_id or "anonymous")


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is null or empty text, so that a policy can ask whether it is there."""
    return {name: value for name, value in cedar_record(values).items() if value != ""}


def _uid(entity: Mapping[str, Any]) -> tuple[str, str]:
    uid: Mapping[str, Any] = entity["uid"]
    uid = uid.get("__entity", uid)
    return str(uid["type"]), str(uid["id"])


def _merged(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """An entity of the question, with what the operator says of it."""
    return {
        **given,
        "uid": own["uid"],
        "attrs": {**own["attrs"], **given.get("attrs", {})},
        "parents": [*given.get("parents", []), *own["parents"]],
    }


def _failures(errors: Sequence[str], policies: CedarPolicies) -> tuple[list[str], list[str]]:
    """Which policies failed and why: those that may forbid, and those that permit."""
    forbids: list[str] = []
    permits: list[str] = []
    for error in errors:
        found = _FAILED.search(error)
        if found is None:
            forbids.append(error)  # whichever it was
            continue
        policy, why = found.groups()
        (forbids if policy in policies.forbids else permits).append(f"{policies.name(policy)}: {why}")
    return forbids, permits


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"
