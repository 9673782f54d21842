"""Unit cases of policies: calls, and what a policy is expected to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from computeragent.errors import PolicyInvalidError
from computeragent.policy.config import make_engine, read_policy
from computeragent.policy.risk import ORDER, classify
from computeragent.policy.rules.document import Entry, read_yaml
from computeragent.policy.types import (
    PolicyAction,
    PolicyEngine,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
)
from computeragent.wire.policy import PolicyConfig

_CALL = ("tool", "input", "principal", "groups", "attributes", "agent", "model", "cwd", "risk", "context")
_CASE = ("name", "call", "expect")
_EXPECT = ("decision", "rule", "reason", "code")
_FILE = ("version", "policy", "defaults", "cases", "description")


@dataclass(frozen=True, slots=True)
class Case:
    """A call and what is expected: the decision, and where given its rule and code, and what its reason contains."""

    name: str
    line: int
    question: PolicyInput
    decision: str
    rule: str | None = None
    reason: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a policy said. `problems` are the differences from what is expected; none where the case passed."""

    case: Case
    result: PolicyResult
    problems: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.problems


def load_cases(path: Path, cases: Path | None = None) -> tuple[PolicyEngine, list[Case]]:
    """A policy and its cases. `path` is a policy file, with cases inside it (rules alone) or beside it, or a file of
    cases that names its ``policy``: a file, or a mapping such as ``{kind: opa, url: …}``.

    Beside ``team.cedar`` or ``team.yaml`` they are in ``team.cases.yaml``. Raises `PolicyInvalidError`.
    """
    beside = path.with_name(f"{path.stem}.cases.yaml")
    held = cases or (beside if beside.is_file() and beside != path else path)
    if held == path and path.suffix not in {".yaml", ".yml"}:
        hint = f"Write cases into {beside.name}, or name their file with --cases."
        raise PolicyInvalidError(f"{path}: there are no cases", hint=hint)
    top = read_yaml(_text(held), str(held))
    given = top.mapping("a file of cases")
    if "rules" not in given:
        top.mapping("a file of cases", _FILE)
    if "cases" not in given or not isinstance(given["cases"].value, list) or not given["cases"].items():
        top.fail("there are no cases", "Add a list: cases: [{name: …, call: {tool: …}, expect: allow}]")
    engine = _engine(path, held, given)
    folder = str(path.resolve().parent)
    defaults = given["defaults"].mapping("defaults", _CALL) if "defaults" in given else {}
    return engine, [_case(entry, defaults, folder) for entry in given["cases"].items()]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PolicyInvalidError(f"{path}: it cannot be read: {why}", hint="Check the path.") from error


def _engine(path: Path, held: Path, given: dict[str, Entry]) -> PolicyEngine:
    if "policy" not in given or "rules" in given:
        return as_engine(path)
    named = given["policy"].plain()
    return as_engine(held.parent / named if isinstance(named, str) else named)


def as_engine(policy: Any) -> PolicyEngine:
    """The engine of a policy file, or of a policy as plain data. Raises `ValidationError`."""
    read = read_policy(policy)
    return make_engine(read) if isinstance(read, PolicyConfig) else cast("PolicyEngine", read)


def _case(entry: Entry, defaults: dict[str, Entry], folder: str) -> Case:
    given = entry.mapping("a case", _CASE)
    for key in _CASE:
        if key not in given:
            entry.fail(f"a case needs its {key}")
    call = {**defaults, **given["call"].mapping("a call", _CALL)}
    if "tool" not in call:
        given["call"].fail("a call needs its tool")
    expect = given["expect"]
    told = expect.mapping("expect", _EXPECT) if isinstance(expect.value, dict) else {"decision": expect}
    if "decision" not in told:
        expect.fail("expect needs its decision")
    decision = told["decision"].choice("decision", ("allow", "deny", "ask", "abstain"))
    texts = {key: told[key].text(key) for key in ("rule", "reason", "code") if key in told}
    return Case(given["name"].text("name"), entry.line, _question(call, folder), decision, **texts)


def _question(call: dict[str, Entry], folder: str) -> PolicyInput:
    tool = call["tool"].text("tool")
    tool_input = _plain(call, "input")
    context = {"cwd": call["cwd"].text("cwd") if "cwd" in call else folder, **_plain(call, "context")}
    context["risk"] = call["risk"].choice("risk", ORDER) if "risk" in call else classify(tool, tool_input)
    principal = PolicyPrincipal(
        call["principal"].text("principal") if "principal" in call else "tester",
        call["groups"].texts("groups") if "groups" in call else [],
        _plain(call, "attributes"),
    )
    resource = PolicyResource(
        agent_name=call["agent"].text("agent") if "agent" in call else "",
        model=call["model"].text("model") if "model" in call else "",
    )
    return PolicyInput(principal, PolicyAction("tool_use", tool, tool_input), resource, context)


def _plain(call: dict[str, Entry], key: str) -> dict[str, Any]:
    if key not in call:
        return {}
    call[key].mapping(key)
    return call[key].plain()


async def run_cases(engine: PolicyEngine, cases: Sequence[Case]) -> list[CaseResult]:
    """Put each case to a policy."""
    return [_compare(case, await engine.evaluate(case.question)) for case in cases]


def _compare(case: Case, result: PolicyResult) -> CaseResult:
    problems: list[str] = []
    if result.decision.value != case.decision:
        problems.append(f"expected {case.decision}, got {result.decision.value}")
    if case.rule is not None and case.rule not in (result.rule or "").split(" + "):
        problems.append(f"expected the rule {case.rule}, got {result.rule or 'none'}")
    if case.reason is not None and case.reason not in result.reason:
        problems.append(f"the reason does not say {case.reason!r}")
    if case.code is not None and case.code != result.code:
        problems.append(f"expected the code {case.code}, got {result.code or 'none'}")
    return CaseResult(case, result, problems)
