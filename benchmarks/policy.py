"""What a policy costs a tool call: rules, remembered answers, Cedar and OPA. Microseconds, median and p99."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import policy_engines
import policy_rehearsal

from computeragent.policy import (
    PolicyAction,
    PolicyInput,
    PolicyJudge,
    PolicyPrincipal,
    PolicyResource,
    RulesPolicyEngine,
)
from computeragent.policy.risk import classify, parse
from computeragent.policy.risk.classes import script_risks
from computeragent.protocol_types import PermissionRequest

ROUNDS = 20_000
RULES = 50
WORK = "/nowhere/shop"
PRINCIPAL = PolicyPrincipal("alice", ["engineers"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="a tenth of the calls")
    rounds = ROUNDS // 10 if arguments.parse_args().quick else ROUNDS
    print(f"{'µs a call':<58}{'median':>9}{'p99':>9}   goal")
    floor(rounds)
    rules(rounds)
    remembered(rounds)
    policy_engines.cedar(rounds)
    policy_engines.opa(rounds)
    policy_rehearsal.rehearsal(rounds // 2, policy(with_paths=True))


def floor(rounds: int) -> None:
    """What this machine takes for nothing: a coroutine, and a look at a file."""

    async def nothing(_: object) -> None:
        return None

    shown("(an empty coroutine, for scale)", nothing, [None], rounds)

    async def look(_: object) -> None:
        Path("/").stat()

    shown("(one stat of the system, for scale)", look, [None], rounds)


def rules(rounds: int) -> None:
    """A policy of 50 rules, asked about the calls of a coding agent."""
    plain, files = (RulesPolicyEngine(rules=policy(with_paths=each)) for each in (False, True))
    chosen = random.Random(7)
    mixed = [question(*call) for call in chosen.choices(calls(chosen), k=500)]
    tools = [each for each in mixed if each.action.tool_name != "Bash"]
    lines = [each for each in mixed if each.action.tool_name == "Bash"]
    for each in lines:
        classify("Bash", each.action.tool_input)  # as the permission chain does before a policy is asked
    shown(f"rules, {RULES} of them: tools and their arguments", plain.evaluate, tools, rounds, "p99 ≤ 20")
    shown("rules: shell lines that the chain has classified", plain.evaluate, lines, rounds, "p99 ≤ 20")
    shown("rules with paths (asks the system where links lead)", files.evaluate, tools, rounds)
    fresh = [
        question("Bash", {"command": f"git log -{n} --oneline | head -{n} && pytest tests/t{n}.py"})
        for n in range(rounds)
    ]
    shown("rules: shell lines never seen before, parsed anew", forgetting(plain), fresh, rounds)


def forgetting(engine: RulesPolicyEngine) -> Callable[[PolicyInput], Awaitable[object]]:
    parse.cache_clear()
    script_risks.cache_clear()
    return engine.evaluate


def remembered(rounds: int) -> None:
    """A judge that has the answer."""
    judge = PolicyJudge(RulesPolicyEngine(rules=policy(with_paths=False)), principal=PRINCIPAL, context={"cwd": WORK})
    requests = [PermissionRequest("c", "Read", {"file_path": f"{WORK}/src/m{n}.py"}, "low") for n in range(50)]
    shown("judge, answer remembered", judge, requests, rounds, "≤ 5")
    uncached = RulesPolicyEngine(rules=policy(with_paths=False))
    shown(
        "  beside: the same rules asked each time",
        uncached.evaluate,
        [question("Read", each.input) for each in requests],
        rounds,
    )


def policy(*, with_paths: bool) -> list[dict[str, Any]]:
    """Rules as a team would have them: denials, tools, commands, hosts, MCP servers."""
    found: list[dict[str, Any]] = [
        {"name": "destructive", "effect": "deny", "match": {"risk": "destructive"}},
        {"name": "force", "effect": "deny", "match": {"tool": "Bash", "commands": ["git push --force", "git push -f"]}},
        {"name": "read", "effect": "allow", "match": {"tool": ["Read", "Grep", "Glob", "LS"]}},
        {"name": "edit", "effect": "allow", "match": {"tool": ["Write", "Edit", "MultiEdit"]}},
        {
            "name": "docs",
            "effect": "allow",
            "match": {"tool": "WebFetch", "hosts": ["*.python.org", "*.readthedocs.io"]},
        },
        {"name": "push", "effect": "ask", "match": {"tool": "Bash", "commands": ["git push *"]}},
    ]
    if with_paths:
        found[2]["match"]["paths"] = found[3]["match"]["paths"] = ["./**"]
        found.append({"name": "secrets", "effect": "deny", "match": {"paths": ["**/.env", "**/*.pem", "~/.ssh/**"]}})
    programs = [
        "git status",
        "git diff",
        "git log",
        "pytest",
        "ruff",
        "npm test",
        "npm run",
        "make",
        "ls",
        "cat",
        "head",
        "tail",
    ]
    found += [
        {"name": f"run-{at}", "effect": "allow", "match": {"tool": "Bash", "commands": [f"{program} *"]}}
        for at, program in enumerate(programs)
    ]
    found += [
        {
            "name": f"mcp-{at}",
            "effect": "allow",
            "match": {"tool": f"mcp__server{at}__*", "groups": "engineers", "arguments": {"limit": {"at_most": 100}}},
        }
        for at in range(RULES - len(found))
    ]
    return found


def calls(chosen: random.Random) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("Read", {"file_path": f"{WORK}/src/m{chosen.randrange(99)}.py"}),
        (
            "Edit",
            {"file_path": f"{WORK}/src/m{chosen.randrange(99)}.py", "old_string": "a" * 400, "new_string": "b" * 400},
        ),
        ("Grep", {"pattern": "def x", "path": f"{WORK}/src", "glob": "*.py"}),
        ("WebFetch", {"url": "https://docs.python.org/3/library/re.html", "prompt": "x"}),
        ("mcp__server9__search", {"query": "x", "limit": 20}),
        ("mcp__unknown__search", {"query": "x"}),
        ("Bash", {"command": "git status"}),
        ("Bash", {"command": "pytest -q tests/test_a.py"}),
        ("Bash", {"command": "git log --oneline | head -5"}),
        ("Bash", {"command": "rm -rf /"}),
    ]


def question(tool: str, given: dict[str, Any]) -> PolicyInput:
    context = {"cwd": WORK, "risk": classify(tool, given)}
    return PolicyInput(PRINCIPAL, PolicyAction("tool_use", tool, given), PolicyResource(agent_name="coder"), context)


def shown(
    name: str, ask: Callable[[Any], Awaitable[object]], asked: Sequence[Any], rounds: int, goal: str = ""
) -> None:
    """Time each call by itself, one after the other, without an event loop in between."""
    times: list[int] = []
    for at in range(rounds):
        each = asked[at % len(asked)]
        started = time.perf_counter_ns()
        waiting = ask(each).__await__()
        try:
            next(waiting)
        except StopIteration:
            times.append(time.perf_counter_ns() - started)
        else:
            raise RuntimeError("it waits for something")
    times.sort()
    median, late = times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000
    print(f"{name:<58}{median:>9.1f}{late:>9.1f}   {goal}")


if __name__ == "__main__":
    main()
