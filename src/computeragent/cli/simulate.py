"""`computeragent simulate`: serve the model simulator."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import datetime

from computeragent.errors import ValidationError
from computeragent.models.script.rules import Script
from computeragent.testing.models import ModelSimulator, RecordedRequest, load_script

_SHOWN = 80


def simulate(args: argparse.Namespace) -> int:
    """The command."""
    script = load_script(args.script) if args.script else Script()
    if args.check:
        print(f"{args.script or 'the default script'} is valid: {len(script.rules)} rules")
        return 0
    try:
        asyncio.run(_serve(script, args))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except OSError as error:
        hint = "Choose another --host or --port; port 0 takes any that is free."
        raise ValidationError(f"cannot listen on {args.host}:{args.port}: {error.strerror}", hint=hint) from error
    return 0


async def _serve(script: Script, args: argparse.Namespace) -> None:
    async with ModelSimulator(
        script, host=args.host, port=args.port, require_key=args.require_key, keep=100, on_request=_log
    ) as simulator:
        print(f"model simulator at {simulator.url}\n")
        print("point a client at it:")
        for name, value in simulator.claude_environment().items():
            print(f"  export {name}={value}")
        print(f"  export OPENAI_BASE_URL={simulator.url}/v1")
        print(f"  export GOOGLE_GEMINI_BASE_URL={simulator.url}\n", flush=True)
        await asyncio.Event().wait()


def _log(request: RecordedRequest) -> None:
    reply = " ".join(request.response_text.split())
    shown = reply if len(reply) <= _SHOWN else reply[:_SHOWN] + "…"
    clock = datetime.fromtimestamp(request.at).astimezone().strftime("%H:%M:%S")
    print(
        f"{clock} {request.method} {request.path} {request.status or ''} {request.model} {shown}".rstrip(), flush=True
    )
