"""`computeragent simulate`: serve a model from a script, or check the script."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.request
from pathlib import Path

from .conftest import Cli

SCRIPT = "rules:\n  - match: my name is (\\w+)\n    reply: Hello $1.\n"


def test_check_says_that_a_script_is_valid(cli: Cli) -> None:
    (cli.work / "good.yaml").write_text(SCRIPT)
    done = cli("simulate", "good.yaml", "--check")
    assert (done.returncode, done.stdout) == (0, "good.yaml is valid: 1 rules\n")


def test_check_says_where_a_script_is_wrong(cli: Cli) -> None:
    (cli.work / "bad.yaml").write_text("rules:\n  - match: hello\n    turns:\n      - txt: hi\n")
    error, hint = cli.fails("simulate", "bad.yaml", "--check")
    assert error == "error[SCRIPT_INVALID]: bad.yaml:4: unknown key `txt`"
    assert hint.startswith("hint: Did you mean `text`?")
    assert cli.fails("simulate", "none.yaml")[0] == "error[SCRIPT_INVALID]: none.yaml: No such file or directory"


def test_the_shipped_scripts_are_valid(cli: Cli) -> None:
    scripts = sorted(Path(__file__).parents[2].glob("examples/scripts/*.yaml"))
    assert scripts
    assert all(cli("simulate", str(script), "--check").returncode == 0 for script in scripts)


def test_it_serves_logs_requests_and_stops_at_ctrl_c(cli: Cli) -> None:
    (cli.work / "good.yaml").write_text(SCRIPT)
    with cli.terminal("simulate", "good.yaml", "--port", "0") as terminal:
        shown = terminal.expect(r"OPENAI_BASE_URL=\S+")
        assert "export ANTHROPIC_API_KEY=" in shown
        url = re.search(r"http://127.0.0.1:\d+", shown)
        assert url is not None
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "my name is Ada"}]}
        request = urllib.request.Request(f"{url[0]}/v1/messages", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["content"][0]["text"] == "Hello Ada."
        terminal.expect(r"POST /v1/messages 200 m Hello Ada\.")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert "stopped" in terminal.seen


def test_a_port_in_use_is_told(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error, hint = cli.fails("simulate", "--port", str(port))
    assert error.startswith(f"error[VALIDATION]: cannot listen on 127.0.0.1:{port}: ")
    assert hint == "hint: Choose another --host or --port; port 0 takes any that is free."
