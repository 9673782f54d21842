"""`computeragent run`: one turn with an agent."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from computeragent.agent import ComputerAgent
from computeragent.approval import tty_approval
from computeragent.chat import ChatHandle
from computeragent.chat_result import ChatResult
from computeragent.cli.audit_choice import audit_sinks, warn_unwritten
from computeragent.cli.policy_choice import policy_choice
from computeragent.cli.progress import Progress
from computeragent.cli.render import TurnView, footer, terminal
from computeragent.cli.server_choice import place_of, server_url, token_of
from computeragent.cli.store_choice import store_choice
from computeragent.errors import EngineError, ValidationError
from computeragent.eventlog import EventLog, SqliteEventLog
from computeragent.protocol_types import PermissionRequest, ToolCallback
from computeragent.settings import setting
from computeragent.wire.encoding import from_json
from computeragent.wire.events import encode_event
from computeragent.wire.requests import Attachment, PermissionDecision


def run(args: argparse.Namespace) -> int:
    """The command."""
    try:
        return asyncio.run(_run(args))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(args: argparse.Namespace) -> int:
    fill_in(args)
    message = _message(args.message)
    progress = Progress(sys.stderr)
    try:
        async with SqliteEventLog() as log, make_agent(args, log, progress) as agent:
            handle = agent.chat(message)
            with progress.waiting():
                if args.json:
                    return await _as_json(handle, progress)
                return await show_turn(handle, terminal(), progress)
    finally:
        warn_unwritten(args.audit_sinks)
        await close_computers()


async def close_computers() -> None:
    """End the computers that were leased in this process, if there were any."""
    if "computeragent.computer.pool" in sys.modules:
        from computeragent.computer.pool import default_pool

        await default_pool().aclose()


async def show_turn(handle: ChatHandle, console: Console, progress: Progress | None = None) -> int:
    """Play one turn at the terminal. Ctrl-C ends the turn; a second one ends everything. Returns the exit status."""
    view = TurnView(console)
    with cancelling(handle):
        async for event in handle:
            if progress is not None:
                progress.done()
            view.show(event)
    view.close_line()
    try:
        result = await handle.result()
    except EngineError as error:
        if isinstance(error.result, ChatResult) and error.result.usage.total_tokens:
            console.print(footer(error.result.usage, error.result.duration_ms, error.result.session_id), style="dim")
        raise
    console.print(footer(result.usage, result.duration_ms, result.session_id), style="dim")
    return _status(result)


async def _as_json(handle: ChatHandle, progress: Progress) -> int:
    with cancelling(handle):
        async for event in handle:
            progress.done()
            sys.stdout.buffer.write(encode_event(event) + b"\n")
            sys.stdout.buffer.flush()
    return _status(await handle.result())


def _status(result: ChatResult) -> int:
    return {"complete": 0, "cancelled": 130}.get(result.ended.reason, 1)


class cancelling:  # noqa: N801 - reads as a statement: with cancelling(handle)
    """While active, Ctrl-C ends the handle's turn; a second one, or one before the turn began, the program."""

    def __init__(self, handle: ChatHandle) -> None:
        self._handle = handle
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt, asyncio.current_task())

    def __exit__(self, *_: object) -> None:
        self._loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self, main: asyncio.Task[Any] | None) -> None:
        if self._task is None and self._handle.started:
            self._task = self._loop.create_task(self._handle.cancel())
        elif main is not None:
            main.cancel()


def fill_in(args: argparse.Namespace) -> None:
    """What the command line leaves open, from the environment or the config file (see `settings.py`)."""
    args.engine = setting("engine", args.engine)
    args.model = setting("model", args.model)
    args.agent_id = setting("agent_id", args.agent_id)
    args.audit_sinks = audit_sinks(args.audit_log)
    if args.harness_url is not None or args.runtime is None:
        args.harness_url = server_url(args)
    if args.harness_url is None:
        args.runtime = setting("runtime", args.runtime, "local")
        args.session_store = setting("session_store", args.session_store, "sqlite")


def make_agent(args: argparse.Namespace, log: EventLog, progress: Progress) -> ComputerAgent:
    """The agent that the command line describes, recorded in the session database where it runs here."""
    if args.source and args.source_flag and args.source != args.source_flag:
        raise ValidationError("two sources are given", hint="Give the source once, as an argument or with --source.")
    source = args.source or args.source_flag or (None if args.agent_id else ".")
    progress.begin("starting" if args.harness_url is None else f"starting at {place_of(args.harness_url)}")
    return ComputerAgent(
        source=None if source is None else _source(source),
        agent_id=args.agent_id,
        engine=args.engine,
        runtime=args.runtime,
        identity_loader=args.loader,
        model=args.model,
        temperature=args.temperature,
        base_url=args.base_url,
        session_id=args.session_id,
        session_store=store_choice(args.session_store),
        options=_options(args),
        envs=_envs(args.env),
        attachments=[_attach(path) for path in args.attach],
        budget_max_usd=args.budget,
        on_tool_call=approver(allow_all=args.yes),
        policy=policy_choice(args.policy),
        audit_sinks=args.audit_sinks,
        event_log=log,
        harness_url=args.harness_url,
        harness_kind=args.harness_kind,
        harness_token=token_of(args),
        progress=progress.tell,
        debug=args.debug,
    )


def approver(*, allow_all: bool) -> ToolCallback:
    """Who decides tool calls: nobody with --yes, else the person at the terminal, else no call that changes things."""
    if allow_all:
        return lambda _: PermissionDecision(decision="allow")
    if sys.stdin.isatty() and sys.stderr.isatty():
        return tty_approval(risk_gate="medium", stdout=sys.stderr)
    return _unattended


def _unattended(request: PermissionRequest) -> PermissionDecision:
    if request.risk == "low" and request.policy is None:
        return PermissionDecision(decision="allow")
    return PermissionDecision(decision="deny", reason="nobody is at the terminal to ask; --yes allows tool calls")


def _source(text: str) -> Any:
    if text.startswith("inline:"):
        try:
            return {"type": "inline"} | msgspec.json.decode(text.removeprefix("inline:"), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ValidationError(
                f"the inline source is not a JSON object: {error}", hint='Such as inline:{"manifest":{"name":"hello"}}.'
            ) from error
    return Path(text) if Path(text).is_dir() else text


def _message(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise ValidationError("no message", hint='Pass -m "…", or pipe the message in.')
    piped = given is None or given == "-"
    message = sys.stdin.buffer.read().decode("utf-8", "replace") if piped else str(given)
    if not message.strip():
        raise ValidationError("the message is empty", hint='Pass -m "…", or pipe the message in.')
    return message


def _options(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in args.option:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValidationError(f"--option {pair!r} has no value", hint="Write --option NAME=JSON.")
        try:
            options[name] = from_json(value)
        except msgspec.DecodeError:
            options[name] = value
    if args.permission_mode is not None:
        options["permission_mode"] = args.permission_mode
    if args.max_turns is not None:
        options["max_turns"] = args.max_turns
    return options


def git_tokens() -> dict[str, str]:
    """The tokens for private repositories that this environment holds."""
    return {name: os.environ[name] for name in ("GITHUB_TOKEN", "GIT_TOKEN") if name in os.environ}


def _envs(pairs: list[str]) -> dict[str, str]:
    envs = git_tokens()
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            raise ValidationError(f"--env {name}: no such variable here", hint="Write --env NAME=VALUE, or export it.")
        envs[name] = value if equals else os.environ[name]
    return envs


def _attach(path: str) -> Attachment:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValidationError(f"attachment {path}: {error.strerror}", hint="Check the path.") from error
    return Attachment(path=Path(path).name, content=base64.b64encode(data).decode(), encoding="base64")
