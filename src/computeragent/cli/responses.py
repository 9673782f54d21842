"""`computeragent responses serve`: the computer-use proxy over HTTP, WebRTC, or both."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeragent.cli.audit_choice import audit_sinks
from computeragent.cli.policy_choice import policy_choice
from computeragent.errors import MissingExtraError, ValidationError
from computeragent.logs import configure_logging

if TYPE_CHECKING:
    from computeragent.responses.peers import PeerChoice

_OPEN = "warning: without authentication: whoever reaches this port acts on its computers and spends its keys"
_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})")


def serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        from computeragent.cli.listening import bracketed, listen, serve_app, url_of
        from computeragent.computer.pool import LIMIT
        from computeragent.responses import create_responses_server
        from computeragent.responses.held import MAX_LIVE
        from computeragent.responses.resolving import Offered
        from computeragent.server.auth import LOOPBACK, bearer, own_token
    except ImportError as error:
        hint = "pip install 'computer-agent-py[server,computer]'"
        raise MissingExtraError(f"responses serve needs the [server] extra: {error}", hint=hint) from error
    configure_logging(None)
    if args.no_auth and (args.host not in LOOPBACK or args.lan):
        raise ValidationError(
            "--no-auth serves everybody who reaches this port", hint="Bind to 127.0.0.1, or leave --no-auth out."
        )
    token = None if args.no_auth else os.environ.get("COMPUTERAGENT_RESPONSES_TOKEN") or own_token("responses-token")
    offered = Offered(
        attach=args.allow_attach,
        computer=_computer(args),
        trajectories=Path(args.trajectories).expanduser().resolve() if args.trajectories else None,
        computers=args.max_computers or LIMIT,
        remote_hosts=args.remote_host or None,
        scripts=Path(args.scripts).expanduser().resolve() if args.scripts else None,
    )
    peer = _peer(args, token) if args.mode != "http" else None
    app = create_responses_server(
        auth=None if token is None else bearer([token]),
        allowed_hosts=[*LOOPBACK, bracketed(args.host), *args.allowed_host] if "*" not in args.allowed_host else [],
        offered=offered,
        policy=policy_choice(args.policy),
        audit_sinks=audit_sinks(args.audit_log),
        max_live=args.max_live or MAX_LIVE,
        peer=peer,
    )
    if args.mode == "p2p":
        from computeragent.responses.peers import serve_peers

        _say(_OPEN if token is None else f"peers connect with the metadata {json.dumps({'secret': token})}")
        return serve_peers(app)
    listener = listen(args.host, args.port)
    url = url_of(args.host, listener)
    _greet(url, token)
    serve_app(app, listener)
    return 0


def _computer(args: argparse.Namespace) -> dict[str, Any]:
    """What `computer_kwargs` are where a request says nothing."""
    found: dict[str, Any] = {}
    if args.kind is not None:
        found["kind"] = args.kind
    if args.size is not None:
        if _SIZE.fullmatch(args.size) is None:
            raise ValidationError(f"--size {args.size!r} is no size", hint="Such as 1280x800.")
        found["display"] = args.size
    return found


def _peer(args: argparse.Namespace, token: str | None) -> PeerChoice:
    from computeragent.p2p import PeerOptions
    from computeragent.responses.peers import PeerChoice

    if args.signaling_host is not None and token is None:
        raise ValidationError("--no-auth is for a broker of our own", hint="Leave --signaling-host or --no-auth out.")
    options = PeerOptions(
        port=args.signaling_port or (9000 if args.signaling_host is None else 443 if args.signaling_secure else 80),
        secure=args.signaling_secure,
        secret=token,
        exposure="lan" if args.lan else "loopback",
    )
    return PeerChoice(
        peer_id=args.peer_id,
        options=options,
        signaling_host=args.signaling_host,
        welcome=not args.no_welcome,
        told=_say,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _greet(url: str, token: str | None) -> None:
    """Where it is, and a line that works when it is pasted."""
    header = "" if token is None else f" -H 'Authorization: Bearer {token}'"
    _say(f"Agent proxy started at {url}, its routes at {url}/docs")
    if token is None:
        _say(_OPEN)
    body = '{"model": "anthropic/claude-sonnet-4-5", "input": "What is on the screen?"}'
    _say(f"try: curl {url}/responses{header} -d '{body}'")
