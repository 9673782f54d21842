"""`computeragent computer`: the live view, the replay, the MCP server, and the wire of a computer-server."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeragent.computer.spec import HEIGHT, WIDTH, ComputerSpec, check
from computeragent.errors import MissingExtraError, ValidationError
from computeragent.logs import configure_logging

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from computeragent.desk.screen import Screen


_ON_ITS_WAY = 256 * 1024


def view(args: argparse.Namespace) -> int:
    """Serve a computer's screen until interrupted."""
    spec = spec_from(args)
    _require_server("view")
    from computeragent.computer.kinds import open_computer
    from computeragent.desk.view import MAX_MESSAGE, create_view_server

    token = _token(args)
    app = create_view_server(
        partial(open_computer, spec),
        token=token,
        allowed_hosts=_hosts(args),
        take_over=args.take_over,
        fps=args.fps,
        title=_title(spec),
    )
    configure_logging(None)
    hands = ", with the pointer and the keyboard" if args.take_over else ""
    warning = "sees this computer" + (" and uses it" if args.take_over else "")
    settings = {"ws_max_size": MAX_MESSAGE, "ws_per_message_deflate": False}
    asyncio.run(_serve(args, app, f"{_title(spec)}{hands}", token, warning, app.state.screen, settings))
    return 0


def replay(args: argparse.Namespace) -> int:
    """Serve trajectories, or write one into a file."""
    _require_server("replay")
    from computeragent.desk.replay import create_replay_server, export

    if args.export is not None:
        target = Path(args.export)
        written = export(Path(args.dir), target)
        print(f"wrote {target}: {written} bytes", file=sys.stderr)
        return 0
    token = _token(args)
    app = create_replay_server(Path(args.dir), token=token, allowed_hosts=_hosts(args))
    configure_logging(None)
    asyncio.run(_serve(args, app, f"replay of {args.dir}", token, "sees these trajectories"))
    return 0


def mcp(args: argparse.Namespace) -> int:
    """Speak MCP on standard input and output until the client leaves."""
    spec = spec_from(args)
    try:
        from computeragent.desk.mcp.server import Bounds, serve_stdio
    except ImportError as error:
        hint = "pip install 'computer-agent-py[computer]'"
        raise MissingExtraError(f"computer mcp needs the package mcp, version 2: {error}", hint=hint) from error
    configure_logging(None)
    bounds = Bounds(
        max_calls=args.max_calls,
        idle=args.idle,
        max_steps=args.max_steps,
        deadline=args.deadline,
        max_images=args.max_images,
    )
    asyncio.run(serve_stdio(spec, model=args.model, allow_shell=args.allow_shell, bounds=bounds))
    return 0


def serve(args: argparse.Namespace) -> int:
    """Serve a computer to programs until interrupted."""
    spec = spec_from(args)
    _require_server("serve")
    token = _token(args)
    assert token is not None
    configure_logging(None)
    asyncio.run(_serve_wire(args, spec, token))
    return 0


def spec_from(args: argparse.Namespace) -> ComputerSpec:
    """The computer that the command line asks for. Raises `ValidationError`."""
    kind = args.kind or ("remote" if args.url else "x11")
    if (kind == "remote") != bool(args.url):
        raise ValidationError(
            "--url is where a remote computer is", hint="Give --url alone, or --kind remote with --url."
        )
    if kind == "remote" and (args.display or args.size):
        raise ValidationError("a remote computer has its own screen", hint="Leave --display and --size out.")
    if kind == "x11" and args.display and args.size:
        raise ValidationError("a display has its own size", hint="Leave --size or --display out.")
    width, height = args.size or (WIDTH, HEIGHT)
    spec = ComputerSpec(
        kind=kind,
        width=width,
        height=height,
        display=args.display,
        headless=args.display is None,
        url=args.url,
        api_key=(os.environ.get("CUA_API_KEY") or None) if kind == "remote" else None,
        name=(os.environ.get("CUA_CONTAINER_NAME") or None) if kind == "remote" else None,
        page=args.page,
    )
    check(spec)
    return spec


def _title(spec: ComputerSpec) -> str:
    if spec.kind == "remote":
        return f"computer at {spec.url}"
    if spec.kind == "browser":
        return "browser" + (f" on display {spec.display}" if spec.display else "")
    return f"display {spec.display}" if spec.display else "desktop"


def _require_server(name: str) -> None:
    try:
        import jinja2
        import starlette
        import uvicorn
    except ImportError as error:
        hint = "pip install 'computer-agent-py[server]'"
        raise MissingExtraError(f"computer {name} needs the [server] extra: {error}", hint=hint) from error
    del jinja2, starlette, uvicorn


def _token(args: argparse.Namespace) -> str | None:
    from computeragent.server.auth import LOOPBACK, own_token

    if not args.no_auth:
        return os.environ.get("COMPUTERAGENT_SERVER_TOKEN") or own_token("computer-token")
    if args.host not in LOOPBACK:
        raise ValidationError(
            f"--no-auth serves everybody who reaches {args.host}", hint="Bind to 127.0.0.1, or leave --no-auth out."
        )
    return None


def _hosts(args: argparse.Namespace) -> list[str]:
    from computeragent.cli.listening import bracketed
    from computeragent.server.auth import LOOPBACK

    return [] if "*" in args.allowed_host else [*LOOPBACK, bracketed(args.host), *args.allowed_host]


async def _serve(
    args: argparse.Namespace,
    app: Starlette,
    what: str,
    token: str | None,
    warning: str,
    screen: Screen | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Serve; a computer that cannot be had is told before anybody is asked to look at it."""
    from computeragent.cli.listening import listen, serve_in_loop, url_of

    listener = listen(args.host, args.port)
    # Of what a slow viewer has not read yet only so much is kept on its way; connections inherit it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_ITS_WAY)
    url = url_of(args.host, listener)
    try:
        if screen is not None:
            await screen.computer()
        print(f"{what} on {url}/{'' if token is None else f'?token={token}'}", file=sys.stderr)
        if token is None:
            print(f"warning: without authentication: whoever reaches this port {warning}", file=sys.stderr)
        await serve_in_loop(app, listener, **(settings or {}))
    finally:
        if screen is not None:
            await screen.close()
        listener.close()


async def _serve_wire(args: argparse.Namespace, spec: ComputerSpec, token: str) -> None:
    from computeragent.cli.listening import listen, serve_in_loop, url_of
    from computeragent.computer.kinds import open_computer
    from computeragent.server.auth import bearer
    from computeragent.server.computers import MAX_MESSAGE, create_computer_server

    listener = listen(args.host, args.port)
    try:
        computer = await open_computer(spec)
        try:
            url = url_of(args.host, listener)
            print(f"{_title(spec)} on {url}, for whoever has the token", file=sys.stderr)
            print(f"try: CUA_API_KEY={token} computeragent computer view --url {url}", file=sys.stderr)
            app = create_computer_server(computer, auth=bearer([token]), allowed_hosts=_hosts(args))
            await serve_in_loop(app, listener, ws_max_size=MAX_MESSAGE, ws_per_message_deflate=False)
        finally:
            await computer.close()
    finally:
        listener.close()
