"""Where an agent runs and what remembers it, as the command line says it; and what is seen while it starts."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.stores.servers import mongo, postgres

from .conftest import Cli, script
from .test_serve import serving
from .test_tail import WHO

RECALL = script([{"text": "Noted."}], [{"text": "You said first: {user}"}])


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a repository whose server takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}/org/agent"


def test_a_start_that_takes_long_says_plainly_what_it_does(cli: Cli, silent_server: str) -> None:
    with cli.start("run", silent_server, *script(), "-m", "hi") as running:
        assert running.stderr is not None
        assert running.stderr.readline().decode().startswith("Cloning ")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == b""


def test_at_a_terminal_one_line_tells_it_and_is_wiped(cli: Cli, silent_server: str) -> None:
    with cli.terminal("run", silent_server, *script(), "-m", "hi") as terminal:
        terminal.expect(r"\rCloning [^\n]* · 1 s")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "\n" not in terminal.seen.replace("^C", "").strip("\n")


def test_the_environment_names_a_server_and_a_runtime_here_beats_it(cli: Cli) -> None:
    with serving(cli, "--event-log", "memory") as (_, port):
        cli.env["COMPUTERAGENT_HARNESS_URL"] = f"http://127.0.0.1:{port}"
        agent = f"inline:{json.dumps(WHO)}"
        assert "Noted." in cli("run", agent, *RECALL, "--session-id", "there", "-m", "hi").stdout
        assert "Noted." in cli("run", agent, *RECALL, "--session-id", "here", "--runtime", "local", "-m", "hi").stdout
        assert "Noted." in cli("run", agent, *RECALL, "--session-id", "too", "--harness-url", "", "-m", "hi").stdout
    del cli.env["COMPUTERAGENT_HARNESS_URL"]
    listed = [json.loads(line)["session_id"] for line in cli("sessions", "ls", "--json").stdout.splitlines()]
    assert listed == ["too", "here"]


def test_a_server_that_is_not_there_is_told_with_its_address_and_without_its_password(cli: Cli) -> None:
    told = cli.fails("sessions", "ls", "--harness-url", "http://127.0.0.1:1")
    assert told[0].startswith("error[PROTOCOL]: the server at http://127.0.0.1:1 cannot be reached")
    refused = cli.fails("run", *script(), "--harness-url", "ftp://user:canary@127.0.0.1", "-m", "hi")
    assert "canary" not in " ".join(refused)


@pytest.mark.parametrize("kind", ["mongo", "postgres"])
def test_a_database_remembers_sessions_by_its_address_or_by_its_options(cli: Cli, kind: str) -> None:
    with mongo() if kind == "mongo" else postgres() as server:
        url = server if isinstance(server, str) else server.url("cli")
        kept = ["--session-store", url, "--session-id", "mine"]
        first = cli("run", *RECALL, *kept, "-m", "the first thing")
        assert (first.returncode, first.stderr) == (0, "")
        options = f"{kind}={json.dumps({'url': url})}"
        second = cli("run", *RECALL, "--session-store", options, "--session-id", "mine", "-m", "and now?")
        assert (second.returncode, second.stderr) == (0, "")
        assert "You said first: the first thing" in second.stdout
        assert cli("sessions", "fork", "mine", "--id", "twin", "--session-store", url).stdout == "twin\n"
        by_name = {"COMPUTERAGENT_MONGO_URL" if kind == "mongo" else "COMPUTERAGENT_POSTGRES_URL": url}
        twin = ["--session-store", kind, "--session-id", "twin"]
        assert "work 0.0.0 · resumed" in cli("run", *script(), *twin, "-m", "and you?", **by_name).stdout


def test_how_to_go_on_is_said_without_what_may_be_a_password(cli: Cli) -> None:
    chat = cli("chat", *RECALL, "--session-store", 'file={"root": "canary"}', stdin="hello\n")
    assert "resume with: computeragent chat" in chat.stdout
    assert "canary" not in chat.stdout
    assert "'file=…'" in chat.stdout


def test_chat_takes_attachments_too(cli: Cli) -> None:
    (cli.home / "notes.txt").write_text("x")
    assert cli("chat", *script(), "--attach", str(cli.home / "notes.txt"), stdin="hello\n").returncode == 0
    assert (cli.work / "notes.txt").read_text() == "x"
