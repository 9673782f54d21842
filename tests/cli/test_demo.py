"""`computeragent demo`: the whole story with the real CLI, in a fresh folder, without a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

pytestmark = pytest.mark.e2e


def command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return lines


def test_the_demo_shows_everything_and_puts_no_key_on_a_command_line(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    seen: set[str] = set()
    with cli.terminal("demo", "--dir", str(folder), ANTHROPIC_API_KEY="") as terminal:
        while terminal.process.poll() is None:
            seen.update(line for line in command_lines() if str(folder) in line)
            terminal.read(0.05)
        assert terminal.wait() == 0
    text = terminal.seen
    assert "Model: the built-in simulator, since no ANTHROPIC_API_KEY is set." in text
    assert "● Read" in text
    assert "may it Write" in text
    assert "orders adds up the orders of a shop." in (folder / "orders" / "SUMMARY.md").read_text()
    assert "SESSION" in text
    assert "· resumed" in text
    assert "I wrote SUMMARY.md. It said: # Summary orders adds up" in text
    assert any("--session-id" in line for line in seen)
    assert not any("ANTHROPIC_API_KEY=" in line for line in seen)


def test_with_ask_the_person_decides(cli: Cli, tmp_path: Path) -> None:
    with cli.terminal("demo", "--simulate", "--ask", "--dir", str(tmp_path / "demo")) as terminal:
        terminal.expect(r"Write \(medium risk\): \S+SUMMARY.md\n\[a\]llow")
        terminal.type("d\n")
        assert terminal.wait(40) == 1
        assert "the agent did not write SUMMARY.md" in terminal.seen
        assert "Traceback" not in terminal.seen


def test_with_a_key_the_provider_is_used_and_said(cli: Cli, simulated: Any, tmp_path: Path) -> None:
    provider = simulated("rules: [{match: Read this repository, reply: I would rather not.}]")
    done = cli("demo", "--dir", str(tmp_path / "demo"))
    assert done.returncode == 1
    assert "Model: your provider's, by the key in the environment." in done.stdout
    assert "I would rather not." in done.stdout
    assert provider.calls
