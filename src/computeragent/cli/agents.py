"""`computeragent agent` and `computeragent version`: what an agent is, and what this installation is."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import tempfile
from pathlib import Path

from computeragent import __version__, plugins
from computeragent.cli.render import terminal
from computeragent.cli.run import git_tokens
from computeragent.engines.claude_process import find_cli
from computeragent.identity.loading import default_loader
from computeragent.identity.sources import fetch, parse_source
from computeragent.wire.identity import IdentitySource, LocalSource


def validate(args: argparse.Namespace) -> int:
    """Load an agent's definition and say what it is."""
    source = parse_source(Path(args.source) if Path(args.source).is_dir() else args.source)
    with tempfile.TemporaryDirectory(prefix="computeragent-") as scratch:
        state = Path(scratch, "state")
        state.mkdir()
        return asyncio.run(_validate(source, args.engine, state))


def version(args: argparse.Namespace) -> int:
    """Print versions."""
    del args
    from importlib.metadata import version as installed

    print(f"computer-agent-py {__version__}")
    print(f"claude-agent-sdk  {installed('claude-agent-sdk')}")
    cli = subprocess.run([find_cli(), "--version"], capture_output=True, text=True, check=False)
    print(f"claude CLI        {cli.stdout.strip() or 'does not start'}")
    return 0


async def _validate(source: IdentitySource, engine: str, state: Path) -> int:
    console = terminal()
    trusted = isinstance(source, LocalSource)
    fetched = await fetch(source, into=state.with_name("source"), in_place=trusted, envs=git_tokens())
    name = default_loader(fetched.path)
    manifest = await plugins.resolve_identity_loader(name).load(
        source=source, target_engine=engine, workspace_path=fetched.path, state_dir=state, trusted=trusted
    )
    console.print(f"{manifest.name} {manifest.version} (loader {name}) is valid", style="green")
    for option, value in sorted(manifest.options.items()):
        text = " ".join(str(value).split())
        console.print(f"  {option}: {text[:100]}{'…' if len(text) > 100 else ''}")
    for note in manifest.notes:
        console.print(f"  note: {note}", style="yellow")
    return 0
