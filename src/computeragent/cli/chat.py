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
from computeragent.cli.audit_choice import warn_unwritten
from computeragent.cli.main import report
from computeragent.cli.progress import Progress
from computeragent.cli.render import terminal
from computeragent.cli.run import close_computers, fill_in, make_agent, show_turn
from computeragent.cli.store_choice import without_secrets
from computeragent.errors import ComputerAgentError, EngineError
from computeragent.eventlog import SqliteEventLog
from computeragent.settings import home


def chat(args: argparse.Namespace) -> int:
    """The command. The event loop runs during turns; between them the program waits at the prompt."""
    console = terminal()
    save_history = _history()
    fill_in(args)
    log = SqliteEventLog()
    progress = Progress(sys.stderr)
    agent = make_agent(args, log, progress)
    with asyncio.Runner() as runner:
        try:
            while (line := _read()) is not None:
                if line:
                    _turn(runner, agent.chat(line), console, progress)
        finally:
            runner.run(agent.dispose())
            runner.run(log.close())
            runner.run(close_computers())
            warn_unwritten(args.audit_sinks)
            save_history()
    if agent.session_id and args.session_store not in {None, "memory"}:
        console.print(f"resume with: {_resume(args, agent.session_id)}", style="dim", soft_wrap=True)
    return 0


def _resume(args: argparse.Namespace, session_id: str) -> str:
    """The command line that goes on with this conversation."""
    source = args.source or args.source_flag
    command = ["computeragent", "chat", *([source] if source else []), "--session-id", session_id]
    here = args.harness_url is None
    for flag, value in (
        ("--agent-id", args.agent_id),
        ("--engine", args.engine),
        ("--loader", args.loader),
        ("--model", args.model),
        ("--session-store", None if here and args.session_store == "sqlite" else without_secrets(args.session_store)),
        ("--runtime", None if here and args.runtime == "local" else args.runtime),
        ("--harness-url", args.harness_url),
        ("--harness-kind", args.harness_kind),
        ("--audit-log", args.audit_log),
    ):
        command += [flag, value] if value else []
    return shlex.join(command)


def _turn(runner: asyncio.Runner, handle: ChatHandle, console: Console, progress: Progress) -> None:
    async def turn() -> None:
        with progress.waiting():
            await show_turn(handle, console, progress)

    try:
        runner.run(turn())
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
