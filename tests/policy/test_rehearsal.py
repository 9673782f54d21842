"""Rehearsals: what a policy would say of calls that were made, beside what was decided of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.policy.recordings import made, record, step
from tests.policy.servers import OpaServer, RegoCpp, answering, misbehaving, serving, unused_port

from computeragent.errors import ValidationError
from computeragent.policy import PolicyDecision, PolicyInput, PolicyResult
from computeragent.policy.recorded import GivenCalls, LogCalls, RecordedCall
from computeragent.policy.rehearsal import Rehearsal, Word, compare, rehearse
from computeragent.protocol_types import PermissionRequest, PolicyVerdict

pytestmark = pytest.mark.anyio
PROPOSED = """
version: 1
rules:
- {name: files, effect: allow, match: {tool: [Read, Write], paths: [./**]}}
- {name: git, effect: allow, match: {tool: Bash, commands: [git status *, git log *]}}
- {name: push, effect: ask, reason: others see it, match: {tool: Bash, commands: [git push]}}
- {name: jobs, effect: allow, match: {tool: mcp__jobs__start}, obligations: [{kind: cap, argument: n, max: 5}]}
"""
RULES = {"kind": "rules", "text": PROPOSED}
OPEN = {"kind": "rules", "text": "version: 1\ndefault: allow\nrules: []\n"}


def bash(command: str) -> tuple[str, dict[str, Any]]:
    return "Bash", {"command": command}


def brief(found: Rehearsal) -> list[tuple[str, str, str, int]]:
    return [(group.change, group.tool, group.shape, group.count) for group in found.groups]


async def test_sessions_as_recorded_are_put_to_a_proposed_policy(tmp_path: Path) -> None:
    calls = (
        step("Write", file_path="a.txt", content="x"),
        step("Read", file_path="/etc/hosts"),
        step("Bash", command="git status -s"),
        step("Bash", command="git status --long"),
        step("Bash", command="git push origin main"),
        step("Bash", command="npm run build -- --fast"),
        step("Bash", command="npm run build"),
        step("mcp__jobs__start", n=9),
    )
    for name in ("one", "two"):
        await record(tmp_path / name, *calls, policy=OPEN)
    found = await rehearse(RULES, LogCalls())
    assert (found.total.calls, found.sessions, found.against) == (16, 2, "what was decided")
    assert found.total.says == {"allow": 6, "deny": 6, "ask": 2, "modify": 2}
    assert found.total.changes == {"newly_denied": 6, "newly_asked": 2, "changed_input": 2}
    assert brief(found) == [
        ("newly_denied", "Bash", "npm run build", 4),
        ("newly_denied", "Read", "/etc/hosts", 2),
        ("newly_asked", "Bash", "git push", 2),
        ("changed_input", "mcp__jobs__start", "", 2),
    ]
    group = found.groups[-1]
    assert (group.now.rule, group.now.input, group.input) == ("jobs", {"n": 5}, {"n": 9})
    assert {name: tally.changes["newly_denied"] for name, tally in found.agents.items()} == {"one": 3, "two": 3}
    assert {name: tally.calls for name, tally in found.rules.items()} == {
        "files": 2,
        "git": 4,
        "push": 2,
        "jobs": 2,
        "(no rule)": 6,
    }
    assert found.fails("newly-denied")
    assert found.fails("newly-asked")
    assert found.fails("changed-input")
    assert not found.fails("newly-allowed")
    assert not found.fails("fault")


async def test_the_policy_that_was_in_force_changes_nothing(tmp_path: Path) -> None:
    calls = [step("Write", file_path="a", content="x"), step("Bash", command="ls"), step("mcp__jobs__start", n=9)]
    await record(tmp_path / "shop", *calls, step("Bash", command="git push"), policy=RULES, on_tool_call=lambda _: True)
    found = await rehearse(RULES, LogCalls())
    assert (found.total.calls, brief(found)) == (4, [])
    found = await rehearse(OPEN, LogCalls())
    assert Counter(group.change for group in found.groups) == {
        "newly_allowed": 1,
        "no_longer_asked": 1,
        "changed_input": 1,
    }


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_runs_under_asyncio_and_trio(backend: str) -> None:
    async def run() -> None:
        calls = made(bash("git status"), bash("make"), ("Read", {"file_path": "a"}))
        found = await rehearse(RULES, calls, against=OPEN)
        assert (found.against, brief(found)) == ("rules", [("newly_denied", "Bash", "make", 1)])

    anyio.run(run, backend=backend)


@pytest.mark.parametrize(
    ("was", "now", "change"),
    [
        (Word("allow"), Word("deny"), "newly_denied"),
        (Word("ask"), Word("deny"), "newly_denied"),
        (Word("deny", by="policy"), Word("deny"), None),
        (Word("deny", by="policy"), Word("modify"), "newly_allowed"),
        (Word("deny", by="policy"), Word("abstain"), "newly_allowed"),
        (Word("deny", by="default"), Word("abstain"), None),
        (Word("deny", by="timeout", asked=True), Word("allow"), "newly_allowed"),
        (Word("deny", by="timeout", asked=True), Word("ask"), None),
        (Word("deny", by="policy"), Word("ask"), "newly_asked"),
        (Word("allow", by="callback", asked=True), Word("allow"), "no_longer_asked"),
        (Word("allow", by="callback", asked=True), Word("ask"), None),
        (Word("allow"), Word("modify", input={"a": 2}), "changed_input"),
        (Word("modify", input={"a": 2}), Word("modify", input={"a": 2}), None),
        (Word("modify", input={"a": 2}), Word("allow"), "changed_input"),
        (Word("deny", by="session"), Word("allow"), None),
    ],
    ids=str,
)
async def test_what_counts_as_a_change(was: Word, now: Word, change: str | None) -> None:
    assert compare(was, now, {"a": 1}) == change


async def test_a_policy_with_faults_is_told_and_fails_whatever_is_asked() -> None:
    class Brittle:
        name = "brittle"

        async def evaluate(self, input: PolicyInput) -> Any:  # noqa: A002
            if "x" in input.action.tool_input:
                raise RuntimeError("secret-of-the-engine")
            return PolicyResult(PolicyDecision.ALLOW) if "y" in input.action.tool_input else "yes"

        async def aclose(self) -> None:
            raise AssertionError("an engine of the caller's own stays open")

    calls = made(("T", {"x": 1}), ("T", {"x": 2}), ("T", {"y": 1}), ("T", {}))
    found = await rehearse(Brittle(), calls)
    assert found.faults == {"POLICY_ERROR": 2, "POLICY_MALFORMED": 1}
    assert (found.total.faults, found.total.says, found.total.changes) == (3, {"allow": 1}, {})
    assert brief(found) == [("fault", "T", "", 2), ("fault", "T", "", 1)]
    assert all(found.fails(on) for on in ("fault", "newly-denied", "newly-allowed"))
    assert "secret-of-the-engine" not in str(found.to_json())


async def test_a_slow_policy_is_a_fault_and_a_callable_is_a_policy() -> None:
    async def decider(request: PermissionRequest) -> PolicyVerdict:
        if request.tool_name == "Slow":
            await anyio.sleep(60)
        return PolicyVerdict("abstain")

    found = await rehearse(decider, made(("Slow", {}), ("Quick", {})), timeout=0.05)
    assert (found.faults, found.total.says) == ({"POLICY_TIMEOUT": 1}, {"abstain": 1})


async def test_opa_is_asked_about_many_calls_at_a_time_and_each_gets_its_own_answer() -> None:
    rego = 'package p\ndefault said := {"allow": false}\n'
    rego += 'said := {"allow": true} if endswith(input.action.tool_input.command, "0")\n'
    server = OpaServer(RegoCpp(rego))
    calls = made(*[bash(f"echo {n}") for n in range(120)])
    with serving(server.app()) as url:
        found = await rehearse({"kind": "opa", "url": url, "policyPath": "p/said"}, calls)
    assert len(server.asked) == 120
    assert 1 < len(server.clients) <= 16
    assert (found.total.says, found.faults) == ({"allow": 12, "deny": 108}, {})


async def test_an_opa_that_is_away_or_talks_nonsense_is_a_fault_of_every_call() -> None:
    calls = made(*[bash(f"echo {n}") for n in range(40)])
    opa = {"kind": "opa", "policyPath": "p/allow"}
    away = await rehearse(opa | {"url": f"http://127.0.0.1:{unused_port()}", "failMode": "allow"}, calls)
    assert (away.total.faults, away.total.says) == (40, {})
    with misbehaving(answering(b'{"result": "yes"}')) as url:
        nonsense = await rehearse(opa | {"url": url}, calls)
    assert nonsense.faults == {"POLICY_MALFORMED": 40}
    assert nonsense.fails("newly-denied")


async def test_what_is_not_known_of_calls_is_told() -> None:
    calls = GivenCalls(
        [
            *made(("Read", {"file_path": "a"}), cwd=None).calls,
            *made(("Read", {"file_path": "a"}), redacted=True).calls,
            *made(("Read", {"file_path": "a"}), decision="deny", decided_by="session", ran=None).calls,
        ]
    )
    changed = {"file_path": "b"}
    calls.calls.append(RecordedCall("s2", "c", "Read", changed, "modify", changed=changed, cwd="/work/shop"))
    found = await rehearse(RULES, calls)
    assert (found.without_folder, found.redacted, found.undecided, found.without_original) == (1, 1, 1, 1)
    assert found.total.says == {"allow": 3, "deny": 1}
    found = await rehearse(RULES, calls, cwd="/work/shop")
    assert (found.without_folder, found.total.says) == (0, {"allow": 4})


async def test_long_inputs_are_cut_in_examples_and_a_result_is_plain_data() -> None:
    found = await rehearse(RULES, made(("Other", {"text": "x" * 10_000, "deep": [{"y": "z" * 999}]})))
    (group,) = found.to_json()["groups"]
    assert group["input"] == {"text": "x" * 200 + "…", "deep": [{"y": "z" * 200 + "…"}]}
    assert group["change"] == "newly_denied"


async def test_progress_is_told_and_calls_are_never_all_in_memory() -> None:
    class Endless:
        def __init__(self) -> None:
            self.skipped: Counter[str] = Counter()
            self.ahead = 0

        async def __aiter__(self) -> Any:
            for number in range(2_000):
                self.ahead = number + 1 - told[-1]
                assert self.ahead <= 256
                yield RecordedCall("s", str(number), "Read", {"file_path": f"f{number}"}, "allow", cwd="/w")

    told = [0]
    found = await rehearse(RULES, Endless(), progress=told.append)
    assert (told[-1], found.total.calls, found.groups) == (2_000, 2_000, [])


async def test_a_policy_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for policy in ({"kind": "rules", "text": "version: 2"}, tmp_path / "none.yaml", 5):
        with pytest.raises(ValidationError):
            await rehearse(policy, made())  # type: ignore[arg-type]
