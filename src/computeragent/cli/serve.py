"""`computeragent serve`: the harness over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from computeragent import plugins
from computeragent.cli.audit_choice import audit_sinks
from computeragent.cli.callers import known
from computeragent.cli.places import pooled
from computeragent.cli.policy_choice import policy_choice
from computeragent.errors import MissingExtraError, ValidationError
from computeragent.eventlog import EventLog, MemoryEventLog, RedisEventLog, SharedSqliteEventLog
from computeragent.eventlog.redis import LEASE
from computeragent.logs import configure_logging
from computeragent.protocol_types import Substrate
from computeragent.settings import setting

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nobody is reached there


def serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        from computeragent.cli.listening import bracketed, listen, serve_app, url_of
        from computeragent.server import create_harness_server
        from computeragent.server.auth import LOOPBACK, own_token
        from computeragent.server.sessions import MAX_SESSIONS
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
    token = None if args.no_auth else os.environ.get("COMPUTERAGENT_SERVER_TOKEN") or own_token("harness-token")
    log = _log(args.event_log)
    if isinstance(log, RedisEventLog):
        _require_reachable(args)
    listener = listen(args.host, 7700 if args.port is None else args.port)
    url = url_of(args.host, listener)
    advertise = args.advertise
    if advertise is None and isinstance(log, (RedisEventLog, SharedSqliteEventLog)):
        advertise = url_of("127.0.0.1", listener) if args.host in _EVERYWHERE else url
    app = create_harness_server(
        engines=args.engine or None,
        auth=None if token is None else known(token, args.introspect),
        log=log,
        substrate=_substrate(args.runtime, args.pool),
        allowed_hosts=[*LOOPBACK, bracketed(args.host), *args.allowed_host] if "*" not in args.allowed_host else [],
        advertise=advertise,
        max_sessions=args.max_sessions or MAX_SESSIONS,
        policy=policy_choice(args.policy),
        audit_sinks=audit_sinks(args.audit_log),
    )
    _greet(url, token)
    serve_app(app, listener)
    return 0


def _substrate(runtimes: list[str], pool: int) -> Substrate:
    """Where agents run: one place for all of them."""
    if len(runtimes) > 1:
        raise ValidationError("a harness runs its agents in one place", hint="Give --runtime once.")
    name = runtimes[0] if runtimes else "local"
    plugins.substrates.require(name)
    return pooled(name, pool)


def _log(name: str) -> EventLog:
    """The event log of a name; one in Redis answers before it is used."""
    if name == "memory":
        return MemoryEventLog()
    if name == "sqlite":
        return SharedSqliteEventLog()
    if "://" not in name:
        raise ValidationError(f"there is no event log {name!r}", hint="Use memory, sqlite, or redis://host:6379/0.")
    keep, most = _number("redis_keep_finished"), _number("redis_max_events")

    def made() -> RedisEventLog:
        return RedisEventLog(
            name,
            lease=_number("redis_lease") or LEASE,
            keep_finished=keep,
            max_events=None if most is None else int(most),
        )

    async def answers() -> None:
        async with made() as log:
            await log.ping()

    asyncio.run(answers())
    return made()


def _number(name: str) -> float | None:
    """A setting that is a number above zero."""
    text = setting(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValidationError(f"{name} is a number above zero, not {text!r}", hint=f"Set COMPUTERAGENT_{name.upper()}.")
    return value


def _require_reachable(args: argparse.Namespace) -> None:
    """Raise `ValidationError` where other servers are not told how to reach this one."""
    if not args.advertise and args.host in _EVERYWHERE:
        raise ValidationError(
            f"other servers cannot reach this one at {args.host}",
            hint="Say where they can: --advertise http://10.0.0.5:7700.",
        )


def _greet(url: str, token: str | None) -> None:
    """A line that works when it is pasted."""
    header = "" if token is None else f" -H 'Authorization: Bearer {token}'"
    print(f"harness on {url}, its routes at {url}/docs", file=sys.stderr)
    if token is None:
        print("warning: without authentication: whoever reaches this port runs agents", file=sys.stderr)
    body = '{"source": "github.com/org/agent", "message": "Hello"}'
    print(f"try: curl -N {url}/v1/sessions{header} -d '{body}'", file=sys.stderr)
