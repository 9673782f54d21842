"""`computeragent torture`: hold a server's event streams to what they promise."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from functools import partial

from computeragent.discovery import agent_key
from computeragent.placement import own_token_of
from computeragent.testing.torture import stream_torture

QUICK_EVENTS, QUICK_SEEDS, QUICK_SLOW = 60, 4, 2.0


def torture(args: argparse.Namespace) -> int:
    """The command; 1 where a promise was broken."""
    token = args.token or agent_key() or own_token_of(args.url, "protocol")
    run = partial(stream_torture, args.url, token=token, progress=_told)
    if args.quick:
        report = asyncio.run(run(events=QUICK_EVENTS, seeds=QUICK_SEEDS, slow=QUICK_SLOW, heartbeat=None))
    else:
        report = asyncio.run(run(events=args.events, seeds=args.seeds))
    _told("")
    if args.json:
        print(json.dumps(asdict(report) | {"ok": report.ok}))
    else:
        print(report.table())
    return int(not report.ok)


def _told(line: str) -> None:
    """What goes on, on one line of a terminal; into a pipe, nothing."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
