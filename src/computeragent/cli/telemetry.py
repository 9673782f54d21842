"""`computeragent telemetry`: what is told, what waits, and telling it again."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from functools import partial

import msgspec
from rich.table import Table

from computeragent.cli.render import terminal
from computeragent.cli.sessions import resolve
from computeragent.errors import NotDeliveredError, NotFoundError
from computeragent.eventlog import SqliteEventLog
from computeragent.settings import home
from computeragent.telemetry.config import auto_sinks
from computeragent.telemetry.event import TelemetryEvent, decode, encode
from computeragent.telemetry.inspection import SpoolReader, spool_states
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.recorded import RecordedRun, RunFacts
from computeragent.telemetry.sinks.console import ConsoleSink
from computeragent.telemetry.sinks.jsonl import JsonlSink
from computeragent.telemetry.steps import Step
from computeragent.wire.events import CaSessionStarted, Recorded

_POLL = 0.2
_PAGE = 512


def stats(args: argparse.Namespace) -> int:
    """List the spools and what waits in them."""
    states = spool_states(home("spool"))
    if args.json:
        for state in states:
            print(msgspec.json.encode(state, enc_hook=str).decode())
        return 0
    if not states:
        print("nothing waits: no process has a spool", file=sys.stderr)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("SPOOL", "PROCESS", "OPEN", "SIZE", "WAITING"):
        table.add_column(name, justify="right" if name in {"OPEN", "SIZE", "WAITING"} else "left", no_wrap=True)
    table.add_column("FOR", overflow="fold")
    for state in states:
        first = [state.path.stem, "running" if state.live else "gone", str(state.open_sessions), _size(state.size)]
        for destination, waiting in state.waiting.items():
            table.add_row(*first, str(waiting), destination)
            first = ["", "", "", ""]
    terminal().print(table)
    if any(not state.live and any(state.waiting.values()) for state in states):
        print(
            "what processes that are gone left behind is sent by the next one, or now: computeragent telemetry replay"
        )
    return 0


def tail(args: argparse.Namespace) -> int:
    """Print events as they come in."""
    return asyncio.run(_tail(args))


async def _tail(args: argparse.Namespace) -> int:
    reader = SpoolReader(home("spool"))
    sink = ConsoleSink(sys.stdout, verbose=True)
    while True:
        for event in _events(reader):
            if (args.session and event.session_id != args.session) or (args.kind and event.kind not in args.kind):
                continue
            if args.json:
                print(encode(event).decode())
            else:
                await sink.emit(event)
        sys.stdout.flush()
        if args.no_follow:
            return 0
        await asyncio.sleep(_POLL)


def replay(args: argparse.Namespace) -> int:
    """Send what was left behind, or a recorded session."""
    if args.to and not args.session_id:
        return asyncio.run(_write_waiting(args.to))
    sinks = [JsonlSink(args.to)] if args.to else auto_sinks()
    if not sinks:
        raise NotFoundError(
            "no destination is configured",
            hint="Set OTEL_EXPORTER_OTLP_ENDPOINT or AGENTOS_INGEST_URL, or write to a file with --to.",
        )
    pipeline = Pipeline(sinks=sinks)
    try:
        if args.session_id:
            told = asyncio.run(_tell_session(args.session_id, pipeline))
            print(f"told {told} events of the session", file=sys.stderr)
        else:
            waiting = sum(sum(state.waiting.values()) for state in spool_states(home("spool")) if not state.live)
            print(f"{waiting} events wait in spools of processes that are gone", file=sys.stderr)
            pipeline.adopt()
        if not pipeline.flush_sync(args.timeout):
            raise NotDeliveredError(
                f"not everything was delivered in {args.timeout:g} s: {_failing(pipeline)}",
                hint="What is left stays in the spool; check the destination, then run this again.",
            )
    finally:
        pipeline.close(1.0)
    print("delivered", file=sys.stderr)
    return 0


async def _write_waiting(file: str) -> int:
    """Write what is in the spools to a file; it stays there for its destinations."""
    sink = JsonlSink(file)
    written = 0
    for event in _events(SpoolReader(home("spool"))):
        await sink.emit(event)
        written += 1
    await sink.aclose()
    print(f"wrote {written} events to {file}; they stay in the spools", file=sys.stderr)
    return 0


def _events(reader: SpoolReader) -> Iterator[TelemetryEvent]:
    """The events of all spools; what is none, in a damaged file, is passed over and said."""
    damaged = 0
    for spooled in reader.read():
        try:
            event = decode(spooled.data)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError):
            damaged += 1
        else:
            yield event
    if damaged:
        print(f"passed over {damaged} entries that are no events", file=sys.stderr)


async def _tell_session(prefix: str, pipeline: Pipeline) -> int:
    async with SqliteEventLog() as log:
        session_id = await resolve(log, prefix)
        run = RecordedRun(session_id, RunFacts({}), lambda _: None)
        told, after = 0, -1
        while page := await log.read(session_id, after, _PAGE):
            for recorded in page:
                if isinstance(recorded.event, CaSessionStarted):
                    run = RecordedRun(session_id, RunFacts({}), lambda _: None)
                pipeline.offer(Step(0, partial(_tell, run, recorded), vital=True))
                told += 1
            after = page[-1].id
            await pipeline.settle(30)
        return told


def _tell(run: RecordedRun, recorded: Recorded, at: int) -> list[TelemetryEvent]:
    del at
    return run.read(recorded)


def _failing(pipeline: Pipeline) -> str:
    sinks = pipeline.stats()["sinks"]
    said = [f"{name}: {state['failing']}" for name, state in sinks.items() if state["failing"]]
    return "; ".join(said) or "it takes longer"


def _size(octets: int) -> str:
    return f"{octets / 1024:.0f} kB" if octets < 1024 * 1024 else f"{octets / 1024 / 1024:.1f} MB"
