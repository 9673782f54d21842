"""The command line itself: help, usage, and what a person is told who got something wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from computeragent import plugins

from .conftest import Cli, script

SESSIONS = ["sessions", *(f"sessions {action}" for action in ("ls", "show", "tail", "fork", "rm"))]
COMMANDS = ["", "run", "chat", "demo", "simulate", *SESSIONS, "agent"]


@pytest.mark.parametrize("command", [*COMMANDS, "agent validate", "version"])
def test_every_command_has_help(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: computeragent {command}".strip())
    assert not done.stderr


def test_help_shows_examples_and_defaults(cli: Cli) -> None:
    assert 'computeragent run ./my-agent -m "Summarise the README"' in cli("--help").stdout
    text = " ".join(cli("run", "--help").stdout.split())
    for default in (
        "default: claude-agent-sdk",
        "default .",
        "sqlite (default)",
        "default: local",
        "without a terminal",
    ):
        assert default in text


HEAVY = ["claude_agent_sdk", "rich", "msgspec", "anyio", "asyncio", "computeragent.agent", "computeragent.cli.run"]


@pytest.mark.parametrize("command", ["--help", "run --help", "demo --help", "chat --help"])
def test_help_imports_nothing_heavy(cli: Cli, command: str) -> None:
    program = (
        "import sys\nfrom computeragent.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command.split()], env=cli.env, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_a_scripted_run_does_not_import_the_claude_sdk(cli: Cli) -> None:
    program = (
        "import sys\nfrom computeragent.cli.main import main\n"
        "assert main(['run', '.', '--engine', 'scripted', '-m', 'hi']) == 0\n"
        "assert 'claude_agent_sdk' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=cli.env, cwd=cli.work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "bogus",
        "run --temperature hot",
        "run --budget nan",
        "run --budget -1",
        "run --max-turns 0",
        "run --harness-kind other",
        "sessions tail s --after -1",
        "sessions fork",
        "simulate --port 99999",
        "sessions ls --limit 0",
        "sessions show",
        "agent",
    ],
)
def test_wrong_usage_is_status_2(cli: Cli, arguments: str) -> None:
    done = cli(*arguments.split())
    assert done.returncode == 2
    assert done.stderr.startswith("usage: computeragent")
    assert "Traceback" not in done.stderr


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    done = cli()
    assert done.returncode == 0
    assert "commands:" in done.stdout


# ── One line of error, one of hint ──

BAD: dict[str, tuple[list[str], str, str]] = {
    "engine": (
        ["--engine", "scriptd"],
        "error[UNKNOWN_ENGINE]: engine 'scriptd' is not registered",
        'hint: Did you mean "scripted"? Available: acp, claude-agent-sdk, computer-use, scripted.',
    ),
    "the engine's short name": (
        ["--engine", "claude"],
        "error[UNKNOWN_ENGINE]: engine 'claude' is not registered",
        'hint: Did you mean "claude-agent-sdk"? Available: acp, claude-agent-sdk, computer-use, scripted.',
    ),
    "loader": (
        ["--loader", "gpa"],
        "error[UNKNOWN_LOADER]: identity loader 'gpa' is not registered",
        'hint: Did you mean "gap"? Available: gap, gitagentprotocol, passthrough.',
    ),
    "store": (
        ["--session-store", "sqlit"],
        "error[UNKNOWN_STORE]: session store 'sqlit' is not registered",
        f'hint: Did you mean "sqlite"? Available: {", ".join(plugins.stores.names())}.',
    ),
    "runtime": (
        ["--runtime", "locl"],
        "error[UNKNOWN_SUBSTRATE]: runtime 'locl' is not registered",
        f'hint: Did you mean "local"? Available: {", ".join(plugins.substrates.names())}.',
    ),
    "session id": (
        ["--session-id", "../x"],
        "error[INVALID_SESSION_ID]: session id '../x' is not valid",
        "hint: Use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'.",
    ),
    "agent.yaml": (
        ["--loader", "gap"],
        "error[IDENTITY_INVALID]: agent.yaml not found in the agent's directory",
        "hint: Add one with name and version, choose the agent's folder with subdir, or leave the loader out.",
    ),
    "directory": (
        ["--source", "./nowhere"],
        "error[SOURCE_UNAVAILABLE]: directory ./nowhere does not exist",
        "hint: Check the spelling.",
    ),
    "word": (
        ["--source", "nowhere"],
        "error[VALIDATION]: 'nowhere' is neither a directory nor a repository",
        "hint: Write ./nowhere for a directory, or github.com/nowhere for a repository.",
    ),
    "git host": (
        ["--source", "https://127.0.0.1:1/org/agent"],
        "error[SOURCE_UNAVAILABLE]: cannot reach 127.0.0.1:1: connection refused",
        "hint: Check the spelling, the network and the proxy settings.",
    ),
    "unknown git host": (
        ["--source", "https://no-such-host.invalid/org/agent"],
        "error[SOURCE_UNAVAILABLE]: cannot reach no-such-host.invalid: the host name does not resolve",
        "hint: Check the spelling, the network and the proxy settings.",
    ),
    "attachment": (
        ["--attach", "nope.txt"],
        "error[VALIDATION]: attachment nope.txt: No such file or directory",
        "hint: Check the path.",
    ),
    "variable": (
        ["--env", "NOPE"],
        "error[VALIDATION]: --env NOPE: no such variable here",
        "hint: Write --env NAME=VALUE, or export it.",
    ),
    "option": (
        ["--option", "script"],
        "error[VALIDATION]: --option 'script' has no value",
        "hint: Write --option NAME=JSON.",
    ),
    "base url": (
        ["--base-url", "localhost"],
        "error[VALIDATION]: base_url 'localhost' is not an http(s) URL",
        "hint: Such as https://host/path.",
    ),
    "store options": (
        ["--session-store", "file=[1]"],
        "error[VALIDATION]: the options of the session store 'file' are no JSON object",
        'hint: Such as file={"root": "transcripts"}.',
    ),
    "store address": (
        ["--session-store", "redis://user:canary@h"],
        "error[VALIDATION]: no session store has addresses of redis://",
        "hint: Use postgres://… or mongodb://…, or KIND={JSON}.",
    ),
    "server": (
        ["--harness-url", "localhost:7700"],
        "error[VALIDATION]: 'localhost:7700' is not the address of a server",
        "hint: Such as http://127.0.0.1:7700.",
    ),
    "key file": (
        ["--harness-url", "http://127.0.0.1:1", "--harness-token-file", "nope"],
        "error[VALIDATION]: the key in nope cannot be read: No such file or directory",
        "hint: It has one line, the key.",
    ),
    "inline source": (
        ["--source", "inline:[1]"],
        "error[VALIDATION]: the inline source is not a JSON object: Expected `object`, got `array`",
        'hint: Such as inline:{"manifest":{"name":"hello"}}.',
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_told_in_two_lines(cli: Cli, what: str) -> None:
    arguments, error, hint = BAD[what]
    engine = [] if "--engine" in arguments else ["--engine", "scripted"]
    assert cli.fails("run", *engine, *arguments, "-m", "hi") == [error, hint]


def test_an_empty_message_is_refused(cli: Cli) -> None:
    for arguments, stdin in ((["-m", ""], None), (["-m", "-"], " \n"), ([], "")):
        assert cli.fails("run", "--engine", "scripted", *arguments, stdin=stdin) == [
            "error[VALIDATION]: the message is empty",
            'hint: Pass -m "…", or pipe the message in.',
        ]


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        (
            "name: a\nversion: 0.1.0\nruntime:\n  max_turns: many\n",
            "agent.yaml:4: runtime.max_turns must be an integer greater than 0, got 'many'",
            "hint: For example: max_turns: 20",
        ),
        (
            "name: a\nversion: 1\n",
            "agent.yaml:2: version must be a non-empty string, got 1",
            'hint: Quote it: version: "1"',
        ),
        (
            "name: a\nversion: 0.1.0\nruntime:\n  permission_mode: byPass\n",
            "agent.yaml:4: runtime.permission_mode must be",
            "hint: ",
        ),
        ("name: [a\n", "agent.yaml:1: expected ',' or ']'", "hint: Check the indentation and quotes near this line."),
    ],
)
def test_wrong_types_in_agent_yaml_are_told_with_their_line(cli: Cli, text: str, error: str, hint: str) -> None:
    (cli.work / "agent.yaml").write_text(text)
    for command in (["run", "--engine", "scripted", "-m", "hi"], ["agent", "validate"]):
        told = cli.fails(*command)
        assert told[0].startswith(f"error[IDENTITY_INVALID]: {error}")
        assert told[1].startswith(hint)


def test_a_ref_that_is_not_there_is_told_with_those_that_are(cli: Cli, tmp_path: Path) -> None:
    repository = bare_repository(tmp_path)
    assert cli.fails("run", f"file://{repository}?ref=mian", "--engine", "scripted", "-m", "hi") == [
        "error[SOURCE_UNAVAILABLE]: ref 'mian' not found in agent.git",
        "hint: Did you mean main? Branches and tags there: main.",
    ]
    assert cli("run", f"file://{repository}?ref=main", "--engine", "scripted", "-m", "hi").returncode == 0


def bare_repository(folder: Path) -> Path:
    seed, bare = folder / "seed", folder / "agent.git"
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    seed.mkdir()
    (seed / "README.md").write_text("hello")
    for command in (
        ["init", "-q", "-b", "main", str(seed)],
        ["-C", str(seed), "add", "."],
        [*identity, "-C", str(seed), "commit", "-qm", "one"],
        ["clone", "-q", "--bare", str(seed), str(bare)],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    return bare


CLAUDE_OPTIONS = [
    ("max_turn=3", "error[UNKNOWN_OPTION]: engine claude-agent-sdk has no option 'max_turn'", '"max_turns"?'),
    ("cwd=/x", "error[UNKNOWN_OPTION]: option 'cwd' is set by the harness", "choose it with source=."),
    ("env={}", "error[UNKNOWN_OPTION]: option 'env' is set by the harness", "Pass envs= to ComputerAgent instead."),
    (
        "cli_path=/nowhere/claude",
        "error[ENGINE_UNAVAILABLE]: the Claude CLI '/nowhere/claude' is not an executable file",
        "Mend or drop options['cli_path'].",
    ),
]


@pytest.mark.parametrize(("option", "error", "hint"), CLAUDE_OPTIONS)
def test_the_faults_own_code_is_told(cli: Cli, option: str, error: str, hint: str) -> None:
    told = cli.fails("run", "--option", option, "-m", "hi", ANTHROPIC_API_KEY="k")
    assert told[0] == error
    assert told[1].endswith(hint)


def test_a_missing_key_is_told_at_once(cli: Cli) -> None:
    assert cli.fails("run", "-m", "hi") == [
        "error[ENGINE_UNAVAILABLE]: no credentials for Claude: neither a provider key nor a login was found",
        "hint: Set ANTHROPIC_API_KEY, or pass it in envs=; to try things out without a key, run `computeragent demo`.",
    ]


def test_a_state_folder_that_cannot_be_made_is_told(cli: Cli) -> None:
    (cli.work / "file").write_text("")
    told = cli.fails("run", *script(), "-m", "hi", COMPUTERAGENT_HOME=str(cli.work / "file"))
    assert told[0].endswith("cannot be made: File exists")
    assert told[1] == "hint: Point COMPUTERAGENT_HOME at a folder that you may write to."


def test_a_relative_state_folder_is_that_of_the_caller(cli: Cli) -> None:
    assert cli("run", *script(), "-m", "hi", COMPUTERAGENT_HOME="state").returncode == 0
    assert (cli.work / "state" / "sessions.db").is_file()


def test_version_names_everything(cli: Cli) -> None:
    done = cli("version")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["computer-agent-py", "claude-agent-sdk", "claude"]
