"""`computeragent serve`: the harness over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from computeragent.errors import MissingExtraError, ValidationError
from computeragent.eventlog import MemoryEventLog, SqliteEventLog
from computeragent.logs import configure_logging

if TYPE_CHECKING:
    from computeragent.server.auth import Authenticate


def serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        import uvicorn

        from computeragent.server import create_harness_server
        from computeragent.server.auth import LOOPBACK, own_token
    except ImportError as error:
        hint = "pip install 'computer-agent-py[server]'"
        raise MissingExtraError(f"serve needs the [server] extra: {error}", hint=hint) from error
    configure_logging(None)
    is_loopback = args.host in LOOPBACK
    if args.no_auth and not is_loopback:
        raise ValidationError(
            f"--no-auth serves everybody who reaches {args.host}", hint="Bind to 127.0.0.1, or leave --no-auth out."
        )
    if args.kind == "sandboxes":
        from computeragent.cli.serve_sandboxes import serve_sandboxes

        return serve_sandboxes(args)
    args.port = 7700 if args.port is None else args.port
    token = None if args.no_auth else os.environ.get("COMPUTERAGENT_SERVER_TOKEN") or own_token("harness-token")
    log = MemoryEventLog() if args.event_log == "memory" else SqliteEventLog()
    app = create_harness_server(
        engines=args.engine or None,
        auth=None if token is None else known(token, args.introspect),
        log=log,
        allowed_hosts=[*LOOPBACK, args.host, *args.allowed_host] if "*" not in args.allowed_host else [],
    )
    _greet(args, token)
    config = uvicorn.Config(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run()
    return 0


def known(token: str, introspect_url: str | None) -> Authenticate:
    """Who is let in: whoever has this server's token, and whom the control plane vouches for."""
    from computeragent.server import bearer, introspect
    from computeragent.server.introspection import any_of, secret_of_environment

    own = bearer([token])
    return any_of(own, introspect(introspect_url, secret_of_environment())) if introspect_url else own


def _greet(args: argparse.Namespace, token: str | None) -> None:
    """A line that works when it is pasted."""
    url = f"http://{args.host}:{args.port}"
    header = "" if token is None else f" -H 'Authorization: Bearer {token}'"
    print(f"harness on {url}, protocol at {url}/v1/openapi.json", file=sys.stderr)
    if token is None:
        print("warning: without authentication: whoever reaches this port runs agents", file=sys.stderr)
    body = '{"source": "github.com/org/agent", "message": "Hello"}'
    print(f"try: curl -N {url}/v1/sessions{header} -d '{body}'", file=sys.stderr)
