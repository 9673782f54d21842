"""What lint says of rules that are valid, and of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from computeragent.policy.rules.lint import lint

HEAD = "version: 1\nrules:\n"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "policies"


def said(rules: str) -> list[str]:
    return [
        f"{each.level} {each.line}: {each.message} | {each.hint or ''}" for each in lint(HEAD + rules, "policy.yaml")
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("- {name: a, effect: allow}", "warning 3: a: it allows everything"),
        ("- {name: a, effect: allow, match: {tool: '*'}}", "a: it allows everything"),
        ("- {name: a, effect: allow, match: {tool: [Read, Bash]}}", "a: it allows every shell line"),
        ("- {name: a, effect: allow, match: {tool: Bash, commands: '*'}}", "it allows every command that can be told"),
        ("- {name: a, effect: allow, match: {tool: Bash, commands: python *}}", "`python *` can run anything"),
        ("- {name: a, effect: allow, match: {tool: Bsh, risk: low}}", 'no tool is known as Bsh | Did you mean "Bash"?'),
        ("- {name: a, effect: deny, match: {tool: Raed}}", 'Did you mean "Read"?'),
        ("- {name: a, effect: deny, match: {tool: X_*}}", "no tool is known as X_* | MCP tools are named"),
        ("- {name: a, effect: allow, match: {tool: Read, commands: ls}}", "it never matches: Read has no commands"),
        ("- {name: a, effect: allow, match: {tool: Read, hosts: x.de}}", "it never matches: Read reaches no hosts"),
        ("- {name: a, effect: allow, match: {tool: WebFetch, paths: x.py}}",
         "it never matches: WebFetch names no files"),
        ("- {name: a, effect: allow, match: {tool: Bash, commands: env git status}}", "`env git status` is never met"),
        ("- {name: a, effect: allow, match: {tool: Bash, commands: eval ls}}", "`eval ls` is never met"),
        ("- {name: a, effect: allow, match: {tool: Bash, commands: bash -c ls}}", "`bash -c ls` is never met"),
        ("- {name: a, effect: deny, match: {commands: /bin/rm}}", "`/bin/rm` leaves out the program by its name alone"),
        ("- {name: a, effect: allow, match: {tool: Read, paths: [src, ./**]}}", "src is that one file or folder"),
        ("- {name: a, effect: deny, match: {tool: Read}}\n- {name: b, effect: allow, match: {tool: Read, risk: low}}",
         "warning 4: b: it never decides: a (line 3) matches all of it and denies"),
        ("- {name: a, effect: ask}\n- {name: b, effect: allow, match: {tool: Read}}",
         "b: it never decides: a (line 3)"),
        ("- {name: a, effect: deny, match: {commands: [rm, dd]}}\n- {name: b, effect: deny, match: {commands: rm}}",
         "b: it says nothing new: a (line 3)"),
        ("- {name: a, effect: allow, match: {tool: mcp__*}}\n- {name: b, effect: allow, match: {tool: mcp__x__y}}",
         "b: it says nothing new: a"),
        ("- {name: a, effect: deny, match: {toool: x}}", 'error 3: match has no key \'toool\' | Did you mean "tool"?'),
        ("- {name: a, effect: deny, match: {arguments: {x: {regex: '(a*)*'}}}}", "error 3: the pattern may be slow"),
        ("  []", "there are no rules: everything gets the default, deny"),
    ],
)  # fmt: skip
def test_lint_says(rules: str, message: str):
    found = said(rules)
    assert any(message in each for each in found), found


@pytest.mark.parametrize(
    "rules",
    [
        "- {name: a, effect: deny, match: {tool: Read, risk: low}}\n- {name: b, effect: allow, match: {tool: Read}}",
        "- {name: a, effect: allow, match: {tool: Read, paths: [./**]}}\n- {name: b, effect: ask, match: {paths: x.k}}",
        "- {name: a, effect: allow, match: {tool: [mcp__x__*, Task*, TodoWrite], principal: x}}",
        "- {name: a, effect: allow, match: {tool: Bash, commands: [git status *, find *, python -m pytest *]}}",
        "- {name: a, effect: deny, match: {commands: [sudo, bash, env, eval]}}",
    ],
)
def test_lint_is_silent_about_good_rules(rules: str):
    assert said(rules) == []


def test_a_default_that_allows_is_noted():
    (found,) = [
        each for each in lint("version: 1\ndefault: allow\nrules:\n- {name: a, effect: deny}", "x") if each.line == 1
    ]
    assert found.message == "what no rule names is allowed"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_clean(path: Path):
    if not path.name.endswith(".cases.yaml"):
        assert lint(path.read_text(), str(path)) == []
