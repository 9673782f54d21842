"""`computeragent run`: one turn, its permission requests, its pipes and its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from .conftest import BASH, COMMAND, Cli, script

SLOW = script([{"text": "Working on it."}, {"delay": 30}, {"text": "never"}], [{"text": "Back again."}])
PROMPT = r"\[a\]llow, \[d\]eny, \[m\]odify \(Enter: deny\)\? "


def test_a_turn_prints_who_answers_the_answer_and_what_it_took(cli: Cli) -> None:
    turn = [{"text": "Hello."}, {"usage": {"input_tokens": 1200, "output_tokens": 34, "cost_usd": 0.0123}}]
    done = cli("run", *script(turn), "-m", "hi")
    assert done.returncode == 0
    assert not done.stderr
    who, answer, footer = done.stdout.splitlines()
    assert who == "work 0.0.0 · scripted"
    assert answer == "Hello."
    assert footer.startswith("$0.0123 · 1,234 tokens · ")
    assert footer.split(" · ")[-1].startswith("sess_")


def test_without_a_terminal_calls_that_change_something_are_denied(cli: Cli) -> None:
    turn = [{"tool": "Write", "input": {"file_path": "a.txt", "content": "x"}}, {"tool": "Read", "input": {}}]
    done = cli("run", *script([*turn, {"text": "Done."}]), "-m", "hi")
    assert done.returncode == 0
    assert "● Write  a.txt" in done.stdout
    assert done.stdout.count("nobody is at the terminal to ask; --yes allows tool calls") == 1  # Read changes nothing
    assert not (cli.work / "a.txt").exists()


def test_yes_allows_every_call(cli: Cli) -> None:
    turn = [{"tool": "Write", "input": {"file_path": "a.txt", "content": "x"}}, {"tool": "Bash", "input": {}}]
    done = cli("run", *script(turn), "--yes", "-m", "hi")
    assert done.returncode == 0
    assert (cli.work / "a.txt").read_text() == "x"
    lines = done.stdout.splitlines()
    assert lines[1] == "● Write  a.txt"
    assert lines[2].startswith("  ✓ wrote 1 bytes to a.txt  ")


def test_a_message_comes_from_standard_input(cli: Cli) -> None:
    for arguments in ([], ["-m", "-"]):
        assert "You said: from a pipe" in cli("run", *script(), *arguments, stdin="from a pipe").stdout
    assert "You said: \ufffd" in cli("run", *script(), stdin=b"\xff").stdout


def test_attachments_are_put_into_the_working_directory(cli: Cli) -> None:
    outside = cli.home / "data.bin"
    outside.write_bytes(b"\x00\xff")
    assert cli("run", *script(), "--attach", str(outside), "-m", "hi").returncode == 0
    assert (cli.work / "data.bin").read_bytes() == b"\x00\xff"


def test_a_session_goes_on_in_a_second_process(cli: Cli) -> None:
    recall = script([{"text": "Noted."}], [{"text": "You said first: {user}"}])
    assert "Noted." in cli("run", *recall, "--session-id", "mine", "-m", "the first thing").stdout
    second = cli("run", *recall, "--session-id", "mine", "-m", "and now?")
    assert "work 0.0.0 · resumed" in second.stdout
    assert "You said first: the first thing" in second.stdout


def test_long_lines_into_a_pipe_are_not_broken(cli: Cli) -> None:
    text = "word " * 200 + "end."
    assert text in cli("run", *script([{"text": text}]), "-m", "hi").stdout.splitlines()


def test_what_the_model_says_does_not_steer_the_terminal(cli: Cli) -> None:
    nasty = "a\x1b[2Jb\x1b]52;c;eA==\x07c [bold]d[/bold] [/x] :smile:"
    turn = [{"text": nasty}, {"tool": "Bash", "input": {"command": "ls \x1b[1A\x1b[2K\u202e; rm -rf /"}}]
    done = cli("run", *script(turn), "--yes", "-m", "hi")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "a[2Jb]52;c;eA==c [bold]d[/bold] [/x] :smile:" in done.stdout
    assert r"● Bash  ls \x1b[1A\x1b[2K\u202e; rm -rf /" in done.stdout


# ── Events as JSON ──


def test_json_is_one_event_per_line(cli: Cli) -> None:
    done = cli("run", *BASH, "--json", "-m", "hi")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert events[0]["kind"] == "ca_session_started"
    assert events[-1] == {"kind": "ca_session_ended", "sessionId": events[0]["sessionId"], "reason": "complete"} | (
        {"turnIndex": 0}
    )
    assert {"ca_permission_request", "ca_permission_decision", "ca_turn_started", "sdk_message"} <= {
        event["kind"] for event in events
    }


def test_json_tells_a_failure_on_stderr_and_in_its_last_event(cli: Cli) -> None:
    done = cli("run", *script([{"raise": "boom"}]), "--json", "-m", "hi")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["reason"], last["errorCode"]) == ("error", "ENGINE_FAILED")
    assert done.stderr.startswith("error[ENGINE_FAILED]: RuntimeError: boom\n")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_crash(cli: Cli, form: list[str]) -> None:
    (cli.work / "long.json").write_text(json.dumps([[{"text": f"line {n} " + "x" * 200} for n in range(1000)]]))
    with cli.start("run", "--engine", "scripted", "--option", "script=long.json", *form, "-m", "hi") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == b""


# ── Exit status ──


@pytest.mark.parametrize(
    ("step", "status"),
    [({"text": "fine"}, 0), ({"raise": "boom"}, 1), ({"end": "budget_exceeded"}, 1), ({"end": "complete"}, 0)],
)
def test_the_exit_status_says_how_it_ended(cli: Cli, step: dict[str, Any], status: int) -> None:
    assert cli("run", *script([step]), "-m", "hi").returncode == status


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_ends_the_turn_with_status_130(cli: Cli, form: list[str]) -> None:
    with cli.start("run", *SLOW, *form, "-m", "hi") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"Working on it." not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"cancelled" in process.stdout.read()
        assert process.stderr.read() == b""


def test_more_ctrl_c_end_an_engine_that_does_not_listen(cli: Cli) -> None:
    with cli.start("run", *script([{"text": "Deaf."}, {"hang": True}]), "-m", "hi") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b"Deaf." not in process.stdout.readline():
            pass
        for _ in range(4):
            process.send_signal(signal.SIGINT)
            time.sleep(0.4)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_ctrl_c_ends_a_clone_that_hangs(cli: Cli) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/org/agent"
        with cli.start("run", url, "--engine", "scripted", "-m", "hi") as process:
            silent.settimeout(10)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.wait(10) == 130
                assert process.stderr is not None
                assert b"Traceback" not in process.stderr.read()


# ── At a terminal ──


def ask(cli: Cli, *keys: str) -> tuple[int, str]:
    """A run whose one call is answered by these keys, one for each prompt."""
    with cli.terminal("run", *BASH, "-m", "hi") as terminal:
        terminal.expect(r"Bash \(medium risk\): make deploy\n" + PROMPT)
        for index, key in enumerate(keys):
            if index:
                terminal.expect(PROMPT + "|JSON: ")
            terminal.type(key)
        return terminal.wait(), terminal.seen


def test_allow_runs_the_call(cli: Cli) -> None:
    status, seen = ask(cli, "a\n")
    assert status == 0
    assert "  ✓ ok  " in seen
    assert "Done." in seen


@pytest.mark.parametrize(("key", "reason"), [("d\n", "denied at the terminal"), ("\n", "denied at the terminal")])
def test_deny_and_enter_deny_it(cli: Cli, key: str, reason: str) -> None:
    status, seen = ask(cli, key)
    assert status == 0
    assert f"  ✗ {reason}  " in seen
    assert "✓" not in seen


def test_the_end_of_input_denies_it(cli: Cli) -> None:
    assert "  ✗ no answer at the terminal  " in ask(cli, "\x04")[1]


def test_modify_takes_one_line_of_json(cli: Cli) -> None:
    status, seen = ask(cli, "m\n", "[1]\n", "what?\n", "m\n", '{"command": "make test"}\n')
    assert status == 0
    assert "the input must be a JSON object" in seen
    assert "  ✓ ok  " in seen
    shown = cli("sessions", "show", "sess_", "--json").stdout.splitlines()
    decision = next(e for e in map(json.loads, shown) if e["kind"] == "ca_permission_decision")
    assert (decision["decision"], decision["input"]) == ("modify", {"command": "make test"})


def test_ctrl_c_at_the_question_ends_the_turn(cli: Cli) -> None:
    status, seen = ask(cli, "\x03")
    assert status == 130
    assert "ended: cancelled" in seen


def test_what_was_typed_before_the_question_is_no_answer(cli: Cli) -> None:
    turn = [{"text": "Wait."}, {"delay": 1}, {"tool": "Bash", "input": {"command": "make deploy"}}]
    with cli.terminal("run", *script(turn), "-m", "hi") as terminal:
        terminal.expect("Wait.")
        terminal.type("a\na\n")
        terminal.expect(PROMPT)
        with pytest.raises(AssertionError):
            terminal.expect("✓", timeout=0.7)
        terminal.type("d\n")
        assert terminal.wait() == 0
        assert "✓" not in terminal.seen


def test_calls_that_only_read_are_not_asked(cli: Cli) -> None:
    (cli.work / "a.txt").write_text("content")
    turn = [{"tool": "Read", "input": {"file_path": "a.txt"}}, {"text": "Read it."}]
    with cli.terminal("run", *script(turn), "-m", "hi") as terminal:
        terminal.expect("Read it.")
        assert terminal.wait() == 0
        assert "llow" not in terminal.seen


def test_yes_asks_nothing_at_a_terminal(cli: Cli) -> None:
    with cli.terminal("run", *BASH, "--yes", "-m", "hi") as terminal:
        assert terminal.wait() == 0
        assert "llow" not in terminal.seen


# ── With the real engine ──

TOOLS = """
rules:
  - match: work
    turns:
      - {text: "On it, step by step.", chunk_size: 4}
      - text: All done.
  - match: write
    turns:
      - {tool: Write, input: {file_path: WORK/notes.txt, content: hello}}
      - text: Written.
"""


@pytest.mark.e2e
def test_a_real_agent_streams_and_asks_at_the_terminal(cli: Cli, simulated: Any) -> None:
    simulated(TOOLS)
    with cli.terminal("run", "-m", "write it") as terminal:
        terminal.expect(r"Write \(medium risk\): \S+/notes.txt\n" + PROMPT)
        assert not (cli.work / "notes.txt").exists()
        terminal.type("a\n")
        terminal.expect("Written.")
        assert terminal.wait() == 0
    assert (cli.work / "notes.txt").read_text() == "hello"
    assert terminal.seen.count("● Write") == 1
    assert "tokens" in terminal.seen


BOTH = """
rules:
  - match: both
    turns:
      - tools:
          - {name: Bash, input: {command: "touch WORK/one"}}
          - {name: Bash, input: {command: "touch WORK/two"}}
      - text: Both asked.
"""


@pytest.mark.e2e
def test_parallel_calls_of_a_real_agent_are_asked_one_after_another(cli: Cli, simulated: Any) -> None:
    simulated(BOTH)
    with cli.terminal("run", "-m", "both") as terminal:
        terminal.expect(r"Bash \(medium risk\): touch \S+/one\n" + PROMPT)
        terminal.type("d\n")
        terminal.expect(r"Bash \(medium risk\): touch \S+/two\n" + PROMPT)
        terminal.type("a\n")
        terminal.expect("Both asked.")
        assert terminal.wait() == 0
    assert not (cli.work / "one").exists()
    assert (cli.work / "two").exists()


@pytest.mark.e2e
def test_a_real_agent_piped_as_json(cli: Cli, simulated: Any) -> None:
    simulated(TOOLS)
    done = subprocess.run(
        [*COMMAND, "run", "--json", "-m", "work"], env=cli.env, cwd=cli.work, capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert not done.stderr
    deltas = [e for e in events if e["kind"] == "sdk_message" and e["payload"]["type"] == "stream_event"]
    assert len(deltas) > 5
    assert events[-1]["reason"] == "complete"


if sys.platform == "linux":

    @pytest.mark.e2e
    def test_a_secret_is_on_no_command_line_in_no_log_and_in_no_database(cli: Cli, simulated: Any) -> None:
        simulated("rules: [{match: look, turns: [{tool: Bash, input: {command: 'ps -eo args > WORK/ps.txt'}}, ok]}]")
        canary = "sk-canary-1f6c2a"
        cli.env.pop("ANTHROPIC_API_KEY")
        env = {"ANTHROPIC_API_KEY": canary, "MY_TOKEN": canary}
        done = cli("run", "--env", "ANTHROPIC_API_KEY", "--env", "MY_TOKEN", "--yes", "--debug", "-m", "look", **env)
        assert done.returncode == 0, done.stderr
        assert "engine" in done.stderr or "event" in done.stderr  # it did log
        assert canary not in done.stdout + done.stderr
        assert canary not in (cli.work / "ps.txt").read_text()
        found = [path for path in cli.state.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
        assert found == []


def test_the_config_file_and_the_environment_fill_in_what_the_command_line_leaves_open(cli: Cli) -> None:
    cli.state.mkdir(exist_ok=True)
    (cli.state / "config.yaml").write_text("engine: scripted\nsession_store: file\n")
    assert cli("run", "-m", "hello").stdout.endswith("\n")
    assert list((cli.state / "transcripts").rglob("*.jsonl"))
    refused = cli("run", "-m", "hello", "--session-store", "postgress")
    assert "error[UNKNOWN_STORE]" in refused.stderr
