"""Suggestions: rules from what agents did, which lint clean and allow what they are for, and little else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policy.recordings import Call, made, record, step

from computeragent.errors import NotFoundError
from computeragent.policy import PolicyAction, PolicyInput, PolicyPrincipal, PolicyResource, RulesPolicyEngine
from computeragent.policy.recorded import GivenCalls, LogCalls
from computeragent.policy.rehearsal import rehearse
from computeragent.policy.risk import classify
from computeragent.policy.rules.lint import lint
from computeragent.policy.suggest import Suggestion, suggest

pytestmark = pytest.mark.anyio
WORK = "/work/shop"


def bash(command: str) -> Call:
    return "Bash", {"command": command}


async def allowed(suggestion: Suggestion, *calls: Call, cwd: str = WORK) -> list[bool]:
    """Which of some calls the suggested rules allow."""
    engine = RulesPolicyEngine(text=suggestion.text)
    found: list[bool] = []
    for tool, tool_input in calls:
        action = PolicyAction("tool_use", tool, tool_input)
        context = {"cwd": cwd, "risk": classify(tool, tool_input)}
        result = await engine.evaluate(PolicyInput(PolicyPrincipal("p"), action, PolicyResource(), context))
        found.append(result.decision.value == "allow")
    return found


async def test_recorded_sessions_become_rules_that_allow_them_and_no_more(tmp_path: Path) -> None:
    calls = (
        step("Write", file_path="src/a.py", content="x"),
        step("Read", file_path="src/a.py"),
        step("Bash", command="git status && npm test"),
        step("Bash", command="rm -rf /"),
        step("WebFetch", url="https://docs.example.com/x", prompt="p"),
    )
    policy = {"kind": "rules", "text": "version: 1\ndefault: allow\nrules: []\n"}
    for name in ("one", "two"):
        await record(tmp_path / name, *calls, policy=policy)
    found = await suggest(LogCalls(), subject="of coders")
    assert lint(found.text, "suggested.yaml") == []
    assert (found.calls, found.covered) == (10, 8)
    assert found.left_out == {("destructive", "Bash rm"): 2}
    assert "#   2 calls, destructive: Bash rm" in found.text.splitlines()
    assert "description: What agents did of coders" in found.text.splitlines()
    rehearsed = await rehearse({"kind": "rules", "text": found.text}, LogCalls())
    assert [(group.tool, group.shape, group.count) for group in rehearsed.groups] == [("Bash", "rm", 2)]
    cwd = str(tmp_path / "one")
    same = [(each["tool"], each["input"]) for each in calls]
    assert await allowed(found, *same, cwd=cwd) == [True, True, True, False, True]
    others = [
        ("Write", {"file_path": "other/a.py"}),
        ("Read", {"file_path": "/etc/passwd"}),
        bash("git push"),
        bash("git status; curl https://x.example"),
        ("WebFetch", {"url": "https://evil.example"}),
        ("Agent", {}),
    ]
    assert await allowed(found, *others, cwd=cwd) == [False] * 6


async def test_commands_become_program_and_subcommand() -> None:
    found = await suggest(
        made(
            bash("git status"),
            bash("git diff HEAD~1"),
            bash("npm run build -- --fast"),
            bash("python -m pytest -q tests"),
            bash("python tool.py --x"),
            bash("docker compose up -d"),
            bash("cat a.txt b.txt"),
            bash("./deploy.sh staging now"),
            bash("make -j4 test"),
            bash("cd src && ls | wc -l"),
            bash("timeout 9 cargo build"),
        )
    )
    listed = {line.strip()[2:].partition("  #")[0].strip('"') for line in found.text.splitlines() if "  #" in line}
    assert listed == {
        "git status",
        "git diff *",
        "npm run build *",
        "python -m pytest *",
        "python tool.py *",
        "docker compose up *",
        "cat *",
        "./deploy.sh staging *",
        "make -j4 test",
        "cd *",
        "ls",
        "wc *",
        "cargo build",
    }
    assert found.covered == 11
    assert await allowed(found, bash("git status -s"), bash("npm run deploy"), bash("python other.py")) == [False] * 3
    assert await allowed(found, bash("cat /etc/passwd"), bash("cat ../x"), bash("wc -l > /etc/x")) == [False] * 3


async def test_what_cannot_be_bounded_is_left_out_and_listed() -> None:
    found = await suggest(
        made(
            bash("$TOOL run"),
            bash("cat $FILE"),
            bash("grep -r x /"),
            ("Grep", {"pattern": "x", "path": "/etc"}),
            ("Read", {}),
            ("WebFetch", {"url": "http://a b/"}),
            bash("curl -H 'authorization: token ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5' $URL"),
            ("Read", {"file_path": "ok.md"}),
        )
    )
    assert (found.calls, found.covered) == (8, 1)
    assert sorted({why for why, _ in found.left_out}) == [
        "in a folder that is too wide to allow",
        "its files cannot be told",
        "its host cannot be told",
        "its words cannot be written as a pattern",
        "what it runs cannot be told",
    ]
    assert "ghp_" not in found.text


async def test_a_secret_on_the_line_does_not_get_into_the_rules() -> None:
    token = "ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"
    found = await suggest(made(bash(f"python -c 'login(\"{token}\")'"), bash("python -c 'print(1)'")))
    assert found.left_out == {("its words may hold a secret", "Bash python"): 1}
    assert token not in found.text
    assert await allowed(found, bash("python -c 'print(1)'"), bash("python -c 'print(2)'")) == [True, False]


async def test_hosts_that_lines_name_bound_them_and_others_are_word_for_word() -> None:
    found = await suggest(
        made(bash("curl -s https://api.example.com/v1"), bash("git push origin main"), bash("curl --version"))
    )
    assert found.covered == 3
    again = (bash("curl https://api.example.com/v2 -o x"), bash("git push origin main"), bash("curl --version"))
    assert await allowed(found, *again) == [True, True, True]
    others = (bash("curl https://evil.example"), bash("git push evil main"), bash("curl $URL"))
    assert await allowed(found, *others) == [False, False, False]


async def test_files_become_folders_and_many_neighbours_a_pattern() -> None:
    reads = [("Read", {"file_path": path}) for path in ("a/b/c.py", f"{WORK}/a/d.py", "Makefile", "x.md", "/etc/hosts")]
    reads += [("Read", {"file_path": f"/usr/include/x{n}.h"}) for n in range(9)]
    found = await suggest(made(*reads, ("Glob", {"pattern": "docs/**/*.md"})))
    assert (found.covered, lint(found.text, "x")) == (15, [])
    lines = [line.strip() for line in found.text.splitlines() if "paths:" in line]
    assert lines == [
        "paths: [./docs/**]",
        'paths: [./a/**, "./[M]akefile", ./x.md, "/etc/[h]osts", /usr/include/*]',
    ]


async def test_calls_with_and_without_files_of_one_tool_are_kept_apart() -> None:
    tool = "mcp__store__put"
    found = await suggest(made((tool, {"path": "a.txt"}), (tool, {"key": "k"}), (tool, {"url": "https://a.example/"})))
    assert (found.covered, lint(found.text, "x")) == (3, [])
    others = [{"path": "/etc/passwd"}, {"key": "j"}, {"url": "https://b.example/"}]
    assert await allowed(found, *[(tool, each) for each in others]) == [False, True, False]


async def test_only_what_was_allowed_as_it_was_and_ran_counts() -> None:
    read = ("Read", {"file_path": "a.md"})
    calls = GivenCalls(
        [
            *made(read, decision="deny").calls,
            *made(read, decision="modify", changed={"file_path": "b"}).calls,
            *made(read, ran=False).calls,
            *made(("TodoWrite", {}), ran=None).calls,
        ]
    )
    found = await suggest(calls)
    assert (found.calls, found.covered, found.not_run) == (1, 1, 3)
    assert "Read" not in found.text
    with pytest.raises(NotFoundError, match="no calls that were allowed and ran"):
        await suggest(made(read, decision="deny"))


async def test_a_working_folder_that_is_not_on_record_can_be_given() -> None:
    calls = made(("Read", {"file_path": "a.md"}), bash("cat a"), cwd=None)
    found = await suggest(calls)
    assert {why for why, _ in found.left_out} == {"its working folder is not on record"}
    assert (await suggest(calls, cwd=WORK)).covered == 2


WORDS = st.sampled_from(
    ["a.py", "src/b.txt", "-v", "--all", "x=1", "'a b'", "*.md", "$X", "/etc/hosts", "..", "-rf", "'[*]'", "é", "main"]
)
PROGRAMS = st.sampled_from(
    "git npm python python3.11 cat ls rm curl make docker echo ./run.sh tool sed awk pytest cd sudo cp kubectl".split()  # noqa: SIM905
)
SUBCOMMANDS = st.sampled_from(["", "status", "run", "push", "-c", "-m", "remote", "'print(1)'", "https://a.example/x"])
COMMANDS = st.builds(lambda *parts: " ".join(parts), PROGRAMS, SUBCOMMANDS, st.lists(WORDS, max_size=3).map(" ".join))
LINES = st.builds(
    lambda first, joint, second: f"{first}{joint}{second}",
    COMMANDS,
    st.sampled_from([" && ", " | ", " > out.txt; ", "; X=1 "]),
    COMMANDS,
)
PATHS = st.sampled_from(["a", "b.md", "src/x/y.py", "/etc/hosts", "../up", "~/.bashrc", "we[i]rd*", ".env", "", "./"])
ANY = st.text(st.characters(codec="utf-8"), max_size=12)
CALLS: st.SearchStrategy[Any] = st.one_of(
    st.builds(bash, COMMANDS | LINES | ANY),
    st.tuples(st.sampled_from(["Read", "Write", "Edit", "LS", "read"]), st.fixed_dictionaries({"file_path": PATHS})),
    st.tuples(st.just("Grep"), st.fixed_dictionaries({"pattern": st.just("x")}, optional={"path": PATHS})),
    st.tuples(st.just("Glob"), st.fixed_dictionaries({"pattern": PATHS}, optional={"path": PATHS})),
    st.tuples(
        st.just("WebFetch"), st.fixed_dictionaries({"url": st.sampled_from(["https://a.b/", "http://É.fr", "x"])})
    ),
    st.just(("TodoWrite", {"todos": []})),
    st.tuples(
        st.sampled_from(["mcp__a__b", "mcp__a__C", "MCP__A__b"]),
        st.fixed_dictionaries({}, optional={"path": PATHS, "url": st.just("https://h.example"), "n": st.integers()}),
    ),
)


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=25), seed=st.randoms(use_true_random=False))
def test_a_suggestion_lints_clean_and_allows_all_that_it_is_for(calls: list[Call], seed: random.Random) -> None:
    async def check() -> None:
        found = await suggest(made(*calls))
        assert lint(found.text, "suggested.yaml") == []
        assert ("not met by these rules") not in {why for why, _ in found.left_out}
        assert found.covered + sum(found.left_out.values()) == found.calls == len(calls)
        rehearsed = await rehearse({"kind": "rules", "text": found.text}, made(*calls))
        assert rehearsed.total.says["allow"] == found.covered
        mixed = calls[:]
        seed.shuffle(mixed)
        assert (await suggest(made(*mixed))).text == found.text
        destructive = [call for call in calls if classify(*call) == "destructive"]
        assert not any(await allowed(found, *destructive))

    anyio.run(check)
