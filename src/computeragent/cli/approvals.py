"""`computeragent approvals`: the tool calls that wait for a person, and answering them."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from rich.table import Table

from computeragent.approval import describe, printable
from computeragent.cli.render import terminal
from computeragent.cli.server_choice import harness_client, place_of, server_url
from computeragent.client import HarnessClient
from computeragent.errors import HarnessProtocolError, UnknownCallError, ValidationError
from computeragent.policy.principals import user_name
from computeragent.protocol_types import PermissionRequest

Json = dict[str, Any]
T = TypeVar("T")
OWN_SERVER = "http://127.0.0.1:7700"
_POLL = 1.0
"""Seconds between two looks at what waits."""


def ls(args: argparse.Namespace) -> int:
    """List what waits."""
    if args.watch:
        return _with_client(args, lambda client: _watch(client, as_json=args.json))
    found = _with_client(args, _waiting)
    if args.json:
        for approval in found:
            print(msgspec.json.encode(approval).decode())
        return 0
    if not found:
        print(f"nothing waits for an answer at {place_of(_url(args))}", file=sys.stderr)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("CALL", "AGENT", "SESSION", "RISK", "LEFT"):
        table.add_column(name, justify="right" if name == "LEFT" else "left", no_wrap=True)
    table.add_column("WHAT", overflow="fold")
    for approval in found:
        texts = (approval["callId"], approval.get("agent"), approval["sessionId"], approval.get("risk"))
        table.add_row(*(printable(str(text or "")) for text in texts), _left(approval), _what(approval))
    terminal().print(table)
    return 0


def allow(args: argparse.Namespace) -> int:
    """Let a call run, as it is or with another input."""
    if args.input is None:
        return _answer(args, "allow", "allowed")
    return _answer(args, "modify", "allowed with another input:", input=args.input)


def deny(args: argparse.Namespace) -> int:
    """Keep a call from running."""
    return _answer(args, "deny", "denied", reason=args.reason)


def _answer(args: argparse.Namespace, decision: str, said: str, **more: Any) -> int:
    async def answer(client: HarnessClient) -> Json:
        call = _meant(await _waiting(client), args.call_id, args.session)
        await client.decide_permission(call["sessionId"], call["callId"], decision, by=user_name(), **more)
        return call

    call = _with_client(args, answer)
    print(f"{said} {_what(call)} ({printable(call['callId'])} of {printable(call['sessionId'])})")
    return 0


async def _watch(client: HarnessClient, *, as_json: bool) -> int:
    """Print each call when it begins to wait, and when it does not any more."""
    known: dict[tuple[str, str], Json] | None = None
    while True:
        try:
            found = {(each["sessionId"], each["callId"]): each for each in await _waiting(client)}
        except HarnessProtocolError as error:
            if known is None:
                raise
            print(f"warning: {printable(error.message)}; trying again", file=sys.stderr)
            found = known
        for place, approval in found.items():
            if place not in (known or {}):
                text = msgspec.json.encode(approval).decode() if as_json else _asked(approval)
                print(text, flush=True)
        for place, approval in (known or {}).items():
            if place not in found and not as_json:
                print(f"{printable(approval['callId'])}  waits no more", flush=True)
        known = found
        await asyncio.sleep(_POLL)


async def _waiting(client: HarnessClient) -> list[Json]:
    """What waits. Says on stderr of which sessions that is not known."""
    answer = await client.approvals()
    for session_id in answer.get("unreachable", []):
        print(f"warning: the server of session {printable(str(session_id))} cannot be reached", file=sys.stderr)
    try:
        return msgspec.convert(answer.get("approvals"), list[Json])
    except msgspec.ValidationError:
        raise HarnessProtocolError("the server's list of approvals cannot be read", hint="Is it a harness?") from None


def _meant(waiting: list[Json], call_id: str, session_id: str | None) -> Json:
    """The call that is meant. Raises `UnknownCallError` for none, `ValidationError` for several."""
    found = [each for each in waiting if str(each["callId"]).startswith(call_id)]
    found = [each for each in found if each["callId"] == call_id] or found
    if session_id is not None:
        found = [each for each in found if str(each["sessionId"]).startswith(session_id)]
    if not found:
        raise UnknownCallError(
            f"no call that begins with {call_id!r} waits for an answer",
            hint="It was answered or denied already, or it is somebody else's: computeragent approvals ls",
        )
    if len(found) > 1:
        places = ", ".join(f"{each['callId']} of {each['sessionId']}" for each in found[:5])
        raise ValidationError(f"{call_id!r} may be {len(found)} calls: {places}", hint="Say more of it, or --session.")
    return found[0]


def _what(approval: Json) -> str:
    """The call, and why a person is asked."""
    given: Any = approval.get("input")
    tool, tool_input = str(approval.get("toolName", "")), cast("Json", given) if isinstance(given, dict) else {}
    text = f"{printable(tool)} {describe(PermissionRequest('', tool, tool_input))}"
    why = " ".join(str(approval[name]) for name in ("policy", "reason") if approval.get(name))
    return f"{text} — {printable(why)}" if why else text


def _asked(approval: Json) -> str:
    head = f"{approval['callId']}  {approval.get('agent', '')}  {approval.get('risk') or 'unknown'} risk"
    return f"{printable(head)}  {_left(approval)} left  {_what(approval)}"


def _left(approval: Json) -> str:
    """How long it waits still."""
    try:
        seconds = datetime.fromisoformat(str(approval["expiresAt"])).timestamp() - time.time()
    except (KeyError, ValueError):
        return "?"
    seconds = max(0, round(seconds))
    if seconds >= 3_600:
        return f"{seconds // 3_600}h{seconds % 3_600 // 60:02}m"
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds >= 60 else f"{seconds}s"


def _url(args: argparse.Namespace) -> str:
    return server_url(args) or OWN_SERVER


def _with_client(args: argparse.Namespace, do: Callable[[HarnessClient], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with harness_client(_url(args), args) as client:
            return await do(client)

    return asyncio.run(run())
