"""`computeragent chat`: a conversation at the terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable

from rich.console import Console

from computeragent.chat import ChatHandle
from computeragent.cli.main import report
from computeragent.cli.render import terminal
from computeragent.cli.run import fill_in, make_agent, show_turn
from computeragent.errors import ComputerAgentError, EngineError
from computeragent.eventlog import SqliteEventLog
from computeragent.settings import home


def chat(args: argparse.Namespace) -> int:
    """The command. The event loop runs during turns; between them the program waits at the prompt."""
    console = terminal()
    save_history = _history()
    fill_in(args)
    log = SqliteEventLog()
    agent = make_agent(args, log)
    with asyncio.Runner() as runner:
        try:
            while (line := _read()) is not None:
                if line:
                    _turn(runner, agent.chat(line), console)
        finally:
            runner.run(agent.dispose())
            runner.run(log.close())
            save_history()
    if agent.session_id and args.session_store != "memory":
        console.print(f"resume with: {_resume(args, agent.session_id)}", style="dim", soft_wrap=True)
    return 0


def _resume(args: argparse.Namespace, session_id: str) -> str:
    """The command line that goes on with this conversation."""
    source = args.source or args.source_flag
    command = ["computeragent", "chat", *([source] if source else []), "--session-id", session_id]
    for flag, value in (("--engine", args.engine), ("--loader", args.loader), ("--model", args.model)):
        command += [flag, value] if value else []
    command += ["--session-store", args.session_store] if args.session_store != "sqlite" else []
    return shlex.join(command)


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
