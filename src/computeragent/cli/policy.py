"""`computeragent policy`: check, test and explain policies."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from computeragent.approval import printable
from computeragent.cli.render import terminal
from computeragent.errors import PolicyInvalidError, ValidationError
from computeragent.policy.cases import CaseResult, as_engine, load_cases, run_cases
from computeragent.policy.risk import classify
from computeragent.policy.rules import RulesPolicyEngine
from computeragent.policy.rules.explain import SubjectAnswer
from computeragent.policy.rules.explain import explain as explain_rules
from computeragent.policy.rules.lint import Finding
from computeragent.policy.rules.lint import lint as lint_rules
from computeragent.policy.types import (
    PolicyAction,
    PolicyEngine,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
)

_COLOURS = {"allow": "green", "ask": "yellow", "deny": "red"}


def test(args: argparse.Namespace) -> int:
    """Run a policy's unit cases."""
    engine, cases = load_cases(Path(args.file), None if args.cases is None else Path(args.cases))
    results = asyncio.run(_run(engine, cases))
    failed = [result for result in results if not result.passed]
    if args.json:
        for result in results:
            print(json.dumps(_told(result), ensure_ascii=False))
        return 1 if failed else 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "CASE", "SAYS", "RULE", ""):
        table.add_column(name, overflow="fold")
    for result in results:
        says = result.result.decision.value
        table.add_row(
            Text("ok" if result.passed else "FAIL", "green" if result.passed else "bold red"),
            Text(printable(result.case.name)),
            Text(says, _COLOURS.get(says, "")),
            Text(printable(result.result.rule or "-")),
            Text(printable("; ".join(result.problems))),
        )
    terminal().print(table)
    print(f"{len(results) - len(failed)} of {len(results)} cases passed")
    return 1 if failed else 0


async def _run(engine: PolicyEngine, cases: Any) -> list[CaseResult]:
    try:
        return await run_cases(engine, cases)
    finally:
        await engine.aclose()


def _told(result: CaseResult) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "line": result.case.line,
        "passed": result.passed,
        "problems": result.problems,
        **_answer(result.result),
    }


def _answer(result: PolicyResult) -> dict[str, Any]:
    said = {"decision": result.decision.value, "rule": result.rule, "reason": result.reason or None}
    return said | {"code": result.code, "obligations": result.obligations}


def lint(args: argparse.Namespace) -> int:
    """Look for mistakes in a policy."""
    findings = _findings(Path(args.file))
    errors = sum(finding.level == "error" for finding in findings)
    for finding in findings:
        if args.json:
            print(json.dumps(dataclasses.asdict(finding), ensure_ascii=False))
            continue
        print(printable(f"{args.file}:{finding.line}: {finding.level}: {finding.message}"))
        if finding.hint:
            print(printable(f"  hint: {finding.hint}"))
    if not args.json:
        warnings = len(findings) - errors
        print(f"{args.file}: {_count(errors, 'error')}, {_count(warnings, 'warning')}", file=sys.stderr)
    return 1 if errors or (findings and args.strict) else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _findings(path: Path) -> list[Finding]:
    try:
        if path.suffix in {".yaml", ".yml"}:
            return lint_rules(path.read_text("utf-8"), str(path))
        as_engine(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PolicyInvalidError(f"{path}: it cannot be read: {why}", hint="Check the path.") from error
    except PolicyInvalidError as error:
        details: dict[str, Any] = error.details if isinstance(error.details, dict) else {}
        line = int(details.get("line") or 1)
        return [Finding("error", line, error.message.removeprefix(f"{path}:{line}: "), error.hint)]
    return []


def explain(args: argparse.Namespace) -> int:
    """Show why a policy judges a call as it does."""
    question = _question(args)
    engine = as_engine(Path(args.file))
    result = asyncio.run(_ask(engine, question))
    parts = explain_rules(engine.ruleset, question) if isinstance(engine, RulesPolicyEngine) else []
    if args.json:
        answer = {**_answer(result), "parts": [dataclasses.asdict(part) for part in parts]}
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    console = terminal()
    for part in parts:
        _show(part)
    decision = result.decision.value
    console.print(Text(decision, f"bold {_COLOURS.get(decision, '')}"), Text(printable(result.reason)), sep="  ")
    return 0


async def _ask(engine: PolicyEngine, question: PolicyInput) -> PolicyResult:
    try:
        return await engine.evaluate(question)
    finally:
        await engine.aclose()


def _question(args: argparse.Namespace) -> PolicyInput:
    try:
        tool_input: Any = json.loads(args.input)
    except ValueError as error:
        hint = 'Write it as for example --input \'{"command": "ls"}\'.'
        raise ValidationError(f"--input is not JSON: {error}", hint=hint) from error
    if not isinstance(tool_input, dict):
        raise ValidationError("--input must be a JSON object", hint="Write --input '{}' for no input.")
    given = cast("dict[str, Any]", tool_input)
    return PolicyInput(
        PolicyPrincipal(args.principal, list(args.group)),
        PolicyAction("tool_use", args.tool, given),
        PolicyResource(agent_name=args.agent),
        {"cwd": str(Path(args.cwd or ".").absolute()), "risk": classify(args.tool, given)},
    )


def _show(part: SubjectAnswer) -> None:
    console = terminal()
    console.print(Text(printable(part.what), "bold"), Text(f"({part.risk} risk)", "dim"), highlight=False)
    for name, values in (
        ("unclear", [part.unclear] if part.unclear else []),
        ("files", part.files),
        ("hosts", part.hosts),
    ):
        if values:
            console.print(Text(f"  {name}: {printable(', '.join(values))}", "dim"), highlight=False)
    for rule in part.rules:
        because = f" ({rule.because})" if rule.because else ""
        said = printable(f"  line {rule.line}: {rule.effect} {rule.rule}: {rule.matches}{because}")
        console.print(Text(said, "" if rule.matches != "no" else "dim"), highlight=False)
    by = f" by {', '.join(part.decided_by)}" if part.decided_by else " by default" if part.effect != "allow" else ""
    console.print(Text(f"  → {part.effect}{printable(by)}", _COLOURS.get(part.effect, "")), highlight=False)
