"""`computeragent artifacts`: what is cached, fetching ahead, seeding, removing."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from computeragent import artifacts
from computeragent.artifacts.cache import Artifact
from computeragent.artifacts.fetching import package_of
from computeragent.artifacts.making import ArtifactProgress
from computeragent.cli.main import report
from computeragent.errors import NotFoundError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_MB = 1_000_000


def ls(args: argparse.Namespace) -> int:
    """List the cache."""
    if args.name is not None:
        package_of(args.name)
    found = artifacts.listed(args.name)
    for each in found:
        if args.json:
            print(json.dumps(_described(each)))
        else:
            used = datetime.fromtimestamp(each.used).astimezone().strftime("%Y-%m-%d %H:%M")
            size = f"{each.size / _MB:.0f} MB"
            print(f"{each.name:16} {each.version:14} {each.platform:16} {size:>8}  {used}  {each.program}")
    if not found and not args.json:
        print("nothing is cached; `computeragent artifacts prefetch` fetches all agents", file=sys.stderr)
    return 0


def _described(each: Artifact) -> dict[str, object]:
    return {
        "name": each.name,
        "version": each.version,
        "platform": each.platform,
        "bytes": each.size,
        "used": each.used,
        "program": str(each.program),
    }


def prefetch(args: argparse.Namespace) -> int:
    """Fetch programs ahead."""
    for name in args.names:
        package_of(name)
    with _Bars() as bars:
        fetched, failed = artifacts.prefetch(
            args.names or None, args.version, args.platform, offline=args.offline or None, tell=bars.tell
        )
    for each in fetched:
        print(f"{each.name} {each.version} {each.platform}: {each.program}")
    for error in failed.values():
        report(error)
    return 1 if failed else 0


def seed(args: argparse.Namespace) -> int:
    """Take programs from a folder."""
    with _Bars() as bars:
        taken = artifacts.seed(Path(args.dir), tell=bars.tell)
    for each in taken:
        print(f"{each.name} {each.version} {each.platform}: {each.program}")
    return 0


def rm(args: argparse.Namespace) -> int:
    """Remove a program."""
    gone = artifacts.remove(args.name, args.version)
    if not gone:
        wanted = f"{args.name} {args.version}" if args.version else args.name
        raise NotFoundError(f"{wanted} is not in the cache", hint="See `computeragent artifacts ls`.")
    for each in gone:
        print(f"removed {each.name} {each.version} {each.platform}: {each.size / _MB:.0f} MB")
    return 0


class _Bars:
    """A bar for each program on a terminal; a line for each step elsewhere."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> _Bars:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description:16}"),
                BarColumn(),
                TextColumn("{task.fields[step]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tell(self, told: ArtifactProgress) -> None:
        """Hear of progress."""
        with self._lock:
            new = self._steps.get(told.name) != told.step
            self._steps[told.name] = told.step
            if self._progress is None:
                if new and told.step in {"downloading", "installing"}:
                    print(f"{told.step} {told.name} …", file=sys.stderr, flush=True)
                return
            if told.name not in self._tasks:
                self._tasks[told.name] = self._progress.add_task(told.name, total=None, step=told.step)
            step = f"{told.step} {told.done / _MB:.0f} MB" if told.done else told.step
            total = 1 if told.step == "done" else told.total
            self._progress.update(
                self._tasks[told.name], completed=1 if told.step == "done" else told.done, total=total, step=step
            )
