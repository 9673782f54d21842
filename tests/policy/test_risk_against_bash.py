"""The parser beside the real bash: it never overlooks a command that bash runs, on lines made by rule and on soup."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from computeragent.policy import PolicyAction, PolicyInput, PolicyPrincipal, PolicyResource, RulesPolicyEngine
from computeragent.policy.risk.grammar import parse

from .bash_runs import STUBS, Bash, explains

SETTINGS = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Bash:
    return Bash(tmp_path_factory.mktemp("bash"))


def quoted(text: str) -> st.SearchStrategy[str]:
    """The same word in the spellings that bash has for it."""

    def spelled(parts: list[str]) -> str:
        return "".join(parts)

    def one(char: str) -> st.SearchStrategy[str]:
        octal = f"$'\\{ord(char):03o}'"
        return st.sampled_from(
            [char, char, char, f"\\{char}", f"'{char}'", f'"{char}"', f"$'\\x{ord(char):02x}'", octal]
        )

    return st.tuples(*(one(char) for char in text)).map(list).map(spelled)


PROGRAMS = st.sampled_from(STUBS).flatmap(quoted)
ARGUMENTS = st.one_of(
    st.sampled_from(["-x", "status", "a=b", "--k=v", "x.py", "+", "^", "%1", "}", "{}", "then", "in", "not", "a#b"]),
    st.sampled_from(["x y", "$(ls)", "; rm", "#x", "|", "'", 'a"b']).map(lambda t: "'" + t.replace("'", "'\\''") + "'"),
    st.sampled_from(
        ['"$HOME x"', "$HOME", '"${X:-d}"', "${X:-e f}", "*", "~/x", '"$@"', "{1,2}", '"a\\$b"', '"`:`"', "$'\\t'"]
    ),
    st.sampled_from(["abc", "rm"]).flatmap(quoted),
)
REDIRECTS = st.sampled_from(["", "", "", " >out", " 2>&1", " </dev/null", " &>out", " 2>>err >out", " <<<'x y'"])


@st.composite
def simple(draw: st.DrawFn) -> str:
    words = [draw(PROGRAMS), *draw(st.lists(ARGUMENTS, max_size=3))]
    before = draw(st.sampled_from(["", "", "X=1 ", "X='a b' Y= "]))
    return before + " ".join(words) + draw(REDIRECTS)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, inner)
    single = inner.filter(lambda line: "\n" not in line and "<<" not in line)
    return st.one_of(
        pairs.map(lambda p: f"{p[0]}; {p[1]}"),
        pairs.map(lambda p: f"{p[0]} && {p[1]}"),
        pairs.map(lambda p: f"{p[0]} | {p[1]}"),
        pairs.map(lambda p: f"{p[0]}\n\n  {p[1]}"),
        pairs.map(lambda p: f"{p[0]} # it's a comment\n{p[1]}"),
        pairs.map(lambda p: f"{p[0]} &&\n{p[1]}"),
        pairs.map(lambda p: f"if {p[0]}; then {p[1]}; fi"),
        pairs.map(lambda p: f"for i in 1 2; do {p[0]}; {p[1]}; done >out"),
        pairs.map(lambda p: f"f() {{ {p[0]}\n}}; f; {p[1]}"),
        pairs.map(lambda p: f"case x in y|x) {p[0]};; esac; {p[1]}"),
        st.tuples(single, single).map(lambda p: f'{{ cat <<E; {p[1]}\nit\'s "$( {p[0]})" \\$(rm)\nE\n}}'),
        inner.map(lambda line: f"{{ cat <<'E'\n$(rm) `rm`\nE\n{line}\n}}"),
        inner.map(lambda line: f"( {line})"),
        inner.map(lambda line: f"{{ {line}\n}}"),
        single.map(lambda line: f"ls $( {line})"),
        single.map(lambda line: f'ls "$( {line})"'),
        inner.map(lambda line: f"if ! {{ {line}\n}}; then :; fi"),
        single.filter(lambda line: not set("`\\\"$'") & set(line)).map(lambda line: f"ls `{line}`"),
        single.map(lambda line: "bash -c '" + line.replace("'", "'\\''") + "'"),
        inner.map(lambda line: f"[[ -z '' && ( x == x ) ]] && {line}"),
    )


@st.composite
def wrapped(draw: st.DrawFn) -> str:
    before = draw(st.sampled_from([
        "env ", "env -u X Y=1 ","nohup ", "nice -n 3 ", "timeout -s KILL 5 ", "command ", "exec ",
        "timeout 5 env X=1 nice ", "xargs ", "echo q | xargs -I{} ", "command -- ", "find . -maxdepth 0 -exec ",
    ]))  # fmt: skip
    words = " ".join(
        [draw(st.sampled_from(STUBS)), *draw(st.lists(st.sampled_from(["-x", "y", "'a b'", "{}"]), max_size=2))]
    )
    line = before + words + (" \\;" if before.startswith("find") else "")
    return f"({line})" if before.startswith("exec") else line


LINES = st.recursive(st.one_of(simple(), simple(), wrapped()), compound, max_leaves=5)


@SETTINGS
@given(LINES)
def test_lines_are_read_as_bash_runs_them(bash: Bash, line: str):
    script = parse(line)
    assert script.unclear is None, script.unclear
    ran = bash.run(line)
    overlooked = [run for run in ran if not explains(script, run)]
    assert not overlooked, [str(command) for command in script.commands]
    ran_names = {run[0] for run in ran}
    invented = {command.program for command in script.commands} - ran_names
    assert not invented & set(STUBS), ran


TOKENS = [
    *"ab \"'\\$`(){}<>|&;\n#*?=!~-1", "a ", " b", "$(", "${", "$'", '"', "<<a\n", "\na\n", "<<-'a'", " <<'b' ", "\nb\n",
    "$((", "))", "&&", "||", ";;", "case a in ", "esac", " if ", " then ", " fi", "for a in ", " do ", " done", "a()",
    "{ ", "; }", "[[ ", " ]]", "eval ", "exec ", "env ", "bash -c ", "X=", "\\\n", "\t", "é", "$a", "${a}", "${a:-",
    "2>", ">&", "&>", "ab", "<(", "`a`", " | xargs ", "command ", '"$(', ')"',
]  # fmt: skip
SOUP = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=14).map("".join)


@settings(SETTINGS, max_examples=400)
@given(SOUP)
@example("a <<b\n`a`\nb")
@example("a\\\n#b")
@example(">&-a")
@example("b <&-a")
def test_nothing_runs_unseen(bash: Bash, line: str):
    """Whatever the characters: bash runs nothing that was not read, unless the line was called unclear."""
    script = parse(line)
    if script.unclear is not None:
        return
    overlooked = [run for run in bash.run(line) if not explains(script, run)]
    assert not overlooked, [str(command) for command in script.commands]


POLICY = RulesPolicyEngine(
    rules=[{"name": "some", "effect": "allow", "match": {"tool": "Bash", "commands": ["a *", "b *", "ls *", "cat *"]}}]
)


def allows(line: str) -> bool:
    call = PolicyAction("tool_use", "Bash", {"command": line})
    judging = POLICY.evaluate(PolicyInput(PolicyPrincipal("p"), call, PolicyResource()))
    try:
        judging.send(None)
    except StopIteration as answered:
        return bool(answered.value.decision.value == "allow")
    raise AssertionError("rules wait for nothing")


@settings(SETTINGS, max_examples=300)
@given(st.one_of(SOUP, LINES))
def test_a_line_that_a_policy_allows_runs_what_it_allows_alone(bash: Bash, line: str):
    if allows(line):
        assert {run[0] for run in bash.run(line)} <= {"a", "b", "ls", "cat"}
