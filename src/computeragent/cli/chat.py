"""`computeragent chat`: a conversation at the terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable

from rich.console import Console

from computeragent.chat import ChatHandle
from computeragent.cli.main import report
from computeragent.cli.render import terminal
from computeragent.cli.run import make_agent, show_turn
from computeragent.errors import ComputerAgentError, EngineError
from computeragent.settings import home


def chat(args: argparse.Namespace) -> int:
    """The command. The event loop runs during turns; between them the program waits at the prompt."""
    console = terminal()
    save_history = _history()
    agent = make_agent(args)
    with asyncio.Runner() as runner:
        try:
            while (line := _read()) is not None:
                if line:
                    _turn(runner, agent.chat(line), console)
        finally:
            runner.run(agent.dispose())
            save_history()
    if agent.session_id:
        console.print(f"resume with: computeragent chat --session-id {agent.session_id}", style="dim")
    return 0


def _turn(runner: asyncio.Runner, handle: ChatHandle, console: Console) -> None:
    try:
        runner.run(show_turn(handle, console))
    except asyncio.CancelledError:
        console.print("ended", style="yellow")
    except EngineError as error:
        report(error)  # the next turn may do better: it starts a new run where this one ended
    except ComputerAgentError as error:
        report(error)
        raise SystemExit(1) from error


def _read() -> str | None:
    """One line, or None at the end. Ctrl-C at the prompt clears the line."""
    while True:
        try:
            line = input("› " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print()
            continue
        return None if line in {"/exit", "/quit"} else line


def _history() -> Callable[[], None]:
    """Line editing with history over conversations; returns what saves it."""
    if not sys.stdin.isatty():
        return lambda: None
    import readline

    path = home() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1_000)

    def save() -> None:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)
            path.chmod(0o600)

    return save
