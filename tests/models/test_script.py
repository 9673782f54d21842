"""Reading a script, and what is said about a wrong one."""

import pytest

from computeragent.dialects import Usage
from computeragent.errors import ScriptError
from computeragent.testing.models import Break, ErrorReply, Reply, Rule, Script, ToolUse, load_script, parse_script

FULL = r"""
name: everything
models: [small, large]
require_key: secret
rules:
  - match: write (\w+)
    model: opus
    system: careful
    turns:
      - thinking: Let me see.
        text: Writing $1.
        tool: Write
        input: {file_path: $1, content: 5}
        usage: {input_tokens: 7, output_tokens: 3}
        stop_reason: tool_use
      - tools:
          - {name: Read, input: {file_path: $1}}
          - {name: Bash, id: call_1}
        delay: 0.5
        chunk_delay: 0.1
        chunk_size: 3
      - Done with $1.
  - match: fail
    reply: {text: better, error: {status: 529, type: overloaded_error, message: busy, times: 2, retry_after: 1}}
  - match: cut
    reply: {text: whole, drop_after: 3}
  - match: break
    reply: {text: whole, sse_error: {kind: rate_limit, after: 2, times: 1}}
default:
  text: No idea.
  echo_tool_results: true
"""


def test_every_key_is_read():
    script = parse_script(FULL)
    assert script == Script(
        name="everything",
        models=("small", "large"),
        require_key="secret",
        rules=(
            Rule(
                match=r"write (\w+)",
                model="opus",
                system="careful",
                turns=(
                    Reply(
                        thinking="Let me see.",
                        text="Writing $1.",
                        tools=(ToolUse(name="Write", input={"file_path": "$1", "content": 5}),),
                        usage=Usage(input_tokens=7, output_tokens=3),
                        stop_reason="tool_use",
                    ),
                    Reply(
                        tools=(ToolUse(name="Read", input={"file_path": "$1"}), ToolUse(name="Bash", id="call_1")),
                        delay=0.5,
                        chunk_delay=0.1,
                        chunk_size=3,
                    ),
                    Reply(text="Done with $1."),
                ),
            ),
            Rule(
                match="fail",
                turns=(
                    Reply(
                        text="better",
                        error=ErrorReply(status=529, type="overloaded_error", message="busy", times=2, retry_after=1),
                    ),
                ),
            ),
            Rule(match="cut", turns=(Reply(text="whole", broken=Break(how="cut", after=3)),)),
            Rule(
                match="break",
                turns=(Reply(text="whole", broken=Break(how="error", kind="rate_limit", after=2, times=1)),),
            ),
        ),
        default=Rule(match=".*", turns=(Reply(text="No idea.", echo_tool_results=True),)),
    )


def test_a_list_of_rules_is_a_script():
    assert parse_script("- {match: hi, reply: Hello.}") == Script(
        rules=(Rule(match="hi", turns=(Reply(text="Hello."),)),)
    )


def test_text_that_yaml_takes_for_something_else_stays_as_it_was_written():
    [rule] = parse_script("- {match: on, turns: [{text: 2024-01-01}, {text: 1.0}, {text: yes}]}").rules
    assert [reply.text for reply in rule.turns] == ["2024-01-01", "1.0", "yes"]


def test_dates_in_inputs_are_text():
    [rule] = parse_script("- {match: a, reply: {tool: T, input: {day: 2024-01-01}}}").rules
    assert rule.turns[0].tools[0].input == {"day": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "s.yaml: the script is empty", "Start with `rules:` and a list of rules."),
        ("rules: [", "s.yaml:1: not valid YAML", None),
        ("name: x", "s.yaml:1: the script has neither `rules` nor `default`", None),
        ("rulez: []", "s.yaml:1: unknown key `rulez`", "Did you mean `rules`?"),
        ("rules:\n  - match: a\n    replies: b", "s.yaml:3: unknown key `replies`", "Did you mean `reply`?"),
        ("rules:\n  - match: a\n    reply:\n      txt: b", "s.yaml:4: unknown key `txt`", "Did you mean `text`?"),
        ("rules:\n  - match: a\n    reply:\n      tols:\n        - b", "s.yaml:4: unknown key `tols`", None),
        ("- match: a", "s.yaml:1: the rule has no answer", "Give it `reply` (one turn) or `turns` (a list)."),
        ("- {match: a, reply: b, turns: [c]}", "s.yaml:1: `turns` and `reply` exclude each other", None),
        ("- {match: a, turns: b}", "s.yaml:1: must be a list", None),
        ("- {match: a, turns: []}", "s.yaml:1: the list of turns is empty", None),
        ("- match: (\n  reply: b", "s.yaml:1: `match` is no regular expression", "It is a Python regular expression"),
        ("- match: a\n  reply: $1", "s.yaml:2: $1 stands for a group, and `match` has no group", "Write $$1 for"),
        ("- {match: a, reply: {error: 200}}", "s.yaml:1: the status of an error is between 400 and 599", None),
        ("- {match: a, reply: {error: 500, drop_after: 1}}", "`error` and `drop_after` exclude each other", None),
        ("- {match: a, reply: {sse_error: overload}}", "unknown kind of error `overload`", "Did you mean `overloaded`"),
        ("- {match: a, reply: {input: {a: 1}}}", "s.yaml:1: `input` belongs to a tool", "Add `tool: NAME`"),
        ("- {match: a, reply: {tool: T, input: [1]}}", "s.yaml:1: must be a mapping of keys to values", None),
        ("- {match: a, reply: {delay: soon}}", "s.yaml:1: `delay` must be a number, zero or more", None),
        ("- {match: a, reply: {chunk_size: 0}}", "s.yaml:1: `chunk_size` must be a whole number, 1 or more", None),
        ("- {match: a, reply: {echo_tool_results: 1}}", "s.yaml:1: `echo_tool_results` must be true or false", None),
        ("- match: a\n  match: b\n  reply: c", "s.yaml:2: the key `match` is given twice", None),
    ],
)
def test_a_wrong_script_is_refused_with_line_and_hint(text, message, hint):
    with pytest.raises(ScriptError) as caught:
        parse_script(text, source="s.yaml")
    assert message in caught.value.message
    assert caught.value.message.startswith("s.yaml")
    if hint is not None:
        assert caught.value.hint.startswith(hint)


def test_scripts_are_loaded_from_yaml_and_python_files(tmp_path):
    (tmp_path / "a.yaml").write_text("- {match: hi, reply: Hello.}")
    (tmp_path / "b.py").write_text(
        "from computeragent.testing.models import Reply, Rule, Script\n"
        "script = Script(rules=(Rule(match='hi', turns=(Reply(text='Hello.'),)),))\n"
    )
    assert load_script(tmp_path / "a.yaml") == load_script(str(tmp_path / "b.py"))


def test_a_script_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    for name, message in [("none.yaml", "No such file"), ("none.py", "No such file"), ("empty.py", "no `script`")]:
        with pytest.raises(ScriptError, match=message):
            load_script(tmp_path / name)
