"""docs/reference/policy-gate.md: the ways that are closed, and the codes of faults."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from computeragent.policy.types import POLICY_CODES

TARGET = "docs/reference/policy-gate.md"
_CASES = Path(__file__).parents[2] / "tests" / "e2e" / "gate_cases.py"


def generate() -> str:
    """The page."""
    spec = importlib.util.spec_from_file_location("gate_cases", _CASES)
    assert spec is not None
    assert spec.loader is not None
    cases = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    rows = [f"| {case.name} | {case.closed} | {case.harness or 'the same'} |" for case in cases.CASES]
    codes = [f"| `{code}` | {meaning} |" for code, meaning in POLICY_CODES.items()]
    return "\n".join(
        [
            "# What passes the gate",
            "",
            "Generated. Each row is tried on the real Claude CLI by `tests/e2e/test_claude_gate.py`: without a policy",
            "the deed is done (played in the soak); with one that forbids it, nothing of it is left on disk or in a",
            "request to the model.",
            "",
            "| Claude Code comes to do it by | What stops it in the drop-in | In the harness |",
            "|---|---|---|",
            *rows,
            "",
            "# Why a call was denied when no rule said so",
            "",
            'The `code` of a decision. Each denies; with `fail_mode="allow"` the first two do not, but say so.',
            "",
            "| Code | Meaning |",
            "|---|---|",
            *codes,
            "",
        ]
    )
