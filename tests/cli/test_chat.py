"""`computeragent chat`: a conversation at a terminal."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from .conftest import BASH, Cli, script

TWO = script([{"text": "First."}], [{"text": "Second, after: {user}"}])
SLOW = script([{"text": "Working on it."}, {"delay": 30}], [{"text": "Back again."}])


def test_turns_of_one_conversation_and_the_line_that_resumes_it(cli: Cli) -> None:
    with cli.terminal("chat", ".", *TWO) as terminal:
        terminal.expect("› ")
        terminal.type("one\n")
        terminal.expect("First.")
        terminal.expect("\n› ")
        terminal.type("two\n")
        terminal.expect("Second, after: one")
        terminal.expect("\n› ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    line = re.search(r"resume with: computeragent (chat .+)", terminal.seen)
    assert line is not None
    arguments = line[1].split()
    assert arguments[:3] == ["chat", ".", "--session-id"]
    assert arguments[4:] == ["--engine", "scripted"]
    resumed = cli(*arguments, *TWO[2:], stdin="and now?\n")
    assert "Second, after" not in resumed.stdout  # the third turn is past the script's end: it echoes
    assert "You said: and now?" in resumed.stdout
    assert "· resumed" in resumed.stdout


def test_slash_exit_ends_it_and_empty_lines_are_nothing(cli: Cli) -> None:
    done = cli("chat", *TWO, stdin="\n  \none\n/exit\ntwo\n")
    assert done.returncode == 0
    assert "First." in done.stdout
    assert "Second" not in done.stdout


def test_ctrl_c_in_mid_turn_returns_to_the_prompt(cli: Cli) -> None:
    with cli.terminal("chat", *SLOW) as terminal:
        terminal.expect("› ")
        terminal.type("go\n")
        terminal.expect("Working on it.")
        terminal.type("\x03")
        terminal.expect("ended: cancelled")
        terminal.expect("\n› ", timeout=5)
        terminal.type("again\n")
        terminal.expect("Back again.")
        terminal.expect("\n› ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_ctrl_c_at_a_question_returns_to_the_prompt(cli: Cli) -> None:
    with cli.terminal("chat", *BASH) as terminal:
        terminal.expect("› ")
        terminal.type("go\n")
        terminal.expect(r"deny\)\? ")
        terminal.type("\x03")
        terminal.expect("\n› ", timeout=5)
        terminal.type("hello?\n")
        terminal.expect(r"You said: hello\?")
        terminal.expect("\n› ")
        terminal.type("/exit\n")
        assert terminal.wait() == 0
        assert "✓" not in terminal.seen


def test_ctrl_c_at_the_prompt_clears_the_line(cli: Cli) -> None:
    with cli.terminal("chat", *TWO) as terminal:
        terminal.expect("› ")
        terminal.type("rubbish")
        terminal.expect("rubbish")
        time.sleep(0.3)  # readline hears Ctrl-C while it waits for a key, not while it takes one
        terminal.type("\x03")
        terminal.expect("\n› ")
        terminal.type("one\n")
        terminal.expect("First.")
        terminal.expect("\n› ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "one" in cli("sessions", "ls", "--json").stdout
    assert "rubbish" not in cli("sessions", "ls", "--json").stdout


def test_what_was_typed_is_in_the_history_of_the_next_conversation(cli: Cli) -> None:
    for keys in ("remember me\n", "\x1b[A\n"):  # the second time: the arrow up
        with cli.terminal("chat", *script()) as terminal:
            terminal.expect("› ")
            terminal.type(keys)
            terminal.expect("You said: remember me")
            terminal.expect("\n› ")
            terminal.type("\x04")
            assert terminal.wait() == 0
    history = cli.state / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "remember me" in history.read_text()


def test_a_turn_that_fails_does_not_end_the_conversation(cli: Cli) -> None:
    done = cli("chat", *script([{"raise": "boom"}], [{"text": "Better."}]), stdin="one\ntwo\n")
    assert "error[ENGINE_FAILED]: RuntimeError: boom" in done.stderr
    assert "Better." in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["./nowhere"], ["--loader", "gap"]])
def test_an_agent_that_cannot_start_ends_it(cli: Cli, arguments: list[str]) -> None:
    cli.fails("chat", *arguments, "--engine", "scripted", stdin="one\ntwo\n")


def test_an_answer_is_not_kept_for_the_next_line(cli: Cli) -> None:
    with cli.terminal("chat", *BASH) as terminal:
        terminal.expect("› ")
        terminal.type("go\n")
        terminal.expect(r"deny\)\? ")
        terminal.type("a\n")
        terminal.expect("✓ ok")
        terminal.expect("Done.")
        terminal.expect("\n› ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    turns = [json.loads(line) for line in cli("sessions", "ls", "--json").stdout.splitlines()]
    assert [turn["turns"] for turn in turns] == [1]


CONVERSATION = """
rules:
  - match: my name is (\\w+)
    reply: Nice to meet you, $1.
  - match: long story
    reply: {text: "Once upon a time there was a very long story that never ended.", chunk_size: 3, chunk_delay: 0.5}
  - match: what is my name
    reply: You told me.
"""


@pytest.mark.e2e
def test_a_real_agent_is_interrupted_and_remembers(cli: Cli, simulated: Any) -> None:
    simulator = simulated(CONVERSATION)
    with cli.terminal("chat") as terminal:
        terminal.expect("› ")
        terminal.type("my name is Ada\n")
        terminal.expect("Nice to meet you, Ada.")
        terminal.expect("\n› ")
        terminal.type("a long story\n")
        terminal.expect("Once up")
        terminal.type("\x03")
        terminal.expect("\n› ", timeout=5)
        terminal.type("what is my name?\n")
        terminal.expect("You told me.")
        terminal.expect("\n› ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "my name is Ada" in json.dumps(simulator.calls[-1].json)
