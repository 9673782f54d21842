"""`computeragent serve --kind sandboxes`: runs, tasks, warm sandboxes and snapshots over HTTP."""

from __future__ import annotations

import argparse
import os
import sys

from computeragent import plugins
from computeragent.cli.audit_choice import audit_sinks
from computeragent.cli.callers import known
from computeragent.cli.listening import bracketed, listen, serve_app, url_of
from computeragent.cli.places import pooled
from computeragent.cli.policy_choice import policy_choice
from computeragent.server.auth import LOOPBACK, Authenticate, basic, own_token
from computeragent.server.introspection import any_of
from computeragent.server.sandboxes import create_sandbox_server
from computeragent.telemetry.config import auto_sinks, configure

PORT = 8787


def serve_sandboxes(args: argparse.Namespace) -> int:
    """Serve until interrupted. What lives then is saved as it asks for it, and ended."""
    token = None if args.no_auth else os.environ.get("COMPUTERAGENT_SERVER_TOKEN") or own_token("sandboxes-token")
    for name in args.runtime or ["bwrap"] if args.pool else []:
        plugins.register_substrate(name, pooled(name, args.pool))
    if audits := audit_sinks(args.audit_log):
        configure(sinks=[*auto_sinks(), *audits])  # one pipeline tells all runs, each of which has its own harness
    listener = listen(args.host, PORT if args.port is None else args.port)
    app = create_sandbox_server(
        auth=None if token is None else _auth(token, args.introspect),
        engines=args.engine or None,
        runtimes=args.runtime or None,
        default_runtime=os.environ.get("DEFAULT_RUNTIME") or None,
        forward_env=args.forward_env,
        source_roots=args.source_root or None,
        default_task_store=args.task_store,
        policy=policy_choice(args.policy),
        allowed_hosts=[*LOOPBACK, bracketed(args.host), *args.allowed_host] if "*" not in args.allowed_host else [],
    )
    _greet(url_of(args.host, listener), token)
    serve_app(app, listener)
    return 0


def _auth(token: str, introspect_url: str | None) -> Authenticate:
    """The token, whom the control plane vouches for, and the one user of API_AUTH_USER and API_AUTH_PASS."""
    ways = [known(token, introspect_url)]
    user, password = os.environ.get("API_AUTH_USER"), os.environ.get("API_AUTH_PASS")
    if user and password:
        ways.insert(0, basic(user, password))
    return any_of(*ways)


def _greet(url: str, token: str | None) -> None:
    """A line that works when it is pasted."""
    header = "" if token is None else f" -H 'Authorization: Bearer {token}'"
    print(f"sandboxes on {url}, routes at {url}/openapi.json", file=sys.stderr)
    if token is None:
        print("warning: without authentication: whoever reaches this port runs agents", file=sys.stderr)
    body = '{"source": "github.com/org/agent", "harness": "claude-agent-sdk", "message": "Hello"}'
    print(f"try: curl -N {url}/run{header} -d '{body}'", file=sys.stderr)
