"""`computeragent demo`: a real Claude Code agent at work on a small repository, then resumed by a second process."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from computeragent.agent import ComputerAgent
from computeragent.approval import describe, tty_approval
from computeragent.cli import sessions
from computeragent.cli.render import terminal
from computeragent.cli.run import show_turn
from computeragent.dialects.model import ToolCall
from computeragent.eventlog import SqliteEventLog
from computeragent.ids import new_id
from computeragent.protocol_types import PermissionRequest, ToolCallback
from computeragent.testing.models import ModelSimulator, Reply, Rule, Script, ToolUse, Turn
from computeragent.wire.requests import PermissionDecision

ASK = "Read this repository, then write SUMMARY.md: what it is and what is wrong with it."
FOLLOW_UP = "Which file did you write, and what did it say?"

_FILES = {
    "README.md": "# orders\n\nAdds up the orders of a shop. `python -m orders` prints the total.\n",
    "orders.py": 'ORDERS = [("tea", 2, 3.50), ("jam", 1, 4.20)]\n\n\ndef total():\n'
    "    return sum(price for _, _, price in ORDERS)  # one of each\n",
}
_SUMMARY = (
    "# Summary\n\norders adds up the orders of a shop.\n\n"
    "Wrong: `total()` ignores the quantities; it should sum `count * price`.\n"
)


def demo(args: argparse.Namespace) -> int:
    """The command."""
    console = terminal()
    folder = Path(args.dir or tempfile.mkdtemp(prefix="computeragent-demo-")).resolve()
    repository = folder / "orders"
    repository.mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (repository / name).write_text(text, "utf-8")
    os.environ.setdefault("COMPUTERAGENT_HOME", str(folder / "state"))
    return asyncio.run(_demo(args, console, repository))


async def _demo(args: argparse.Namespace, console: Console, repository: Path) -> int:
    session_id = new_id("session")
    async with _model(args, console, repository) as envs:
        _heading(console, "1. An agent reads a repository, and asks before it writes", ASK)
        async with (
            SqliteEventLog() as log,
            ComputerAgent(
                source=repository,
                session_id=session_id,
                session_store="sqlite",
                envs=envs,
                on_tool_call=_approve(console, ask=args.ask),
                event_log=log,
            ) as agent,
        ):
            status = await show_turn(agent.chat(ASK), console)
            written = await agent.fetch_artifact_text("SUMMARY.md")
        if status or written is None:
            console.print("the agent did not write SUMMARY.md", style="red")
            return status or 1
        _heading(console, "2. The file that it wrote", f"cat {repository / 'SUMMARY.md'}")
        console.print(Text(written.rstrip()))

        _heading(console, "3. The session is recorded", "computeragent sessions ls")
        sys.stdout.flush()
        await asyncio.to_thread(sessions.ls, argparse.Namespace(limit=5, json=False, harness_url=""))

        command = ["run", str(repository), "--session-id", session_id, "--yes", "-m", FOLLOW_UP]
        for name in envs:
            command += ["--env", name]  # by name: a key has no place on a command line
        shown = f'computeragent run {repository} --session-id {session_id} -m "{FOLLOW_UP}"'
        _heading(console, "4. A second process resumes it: the agent remembers", shown)
        sys.stdout.flush()
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "computeragent", *command], env=os.environ | envs, check=False
        )
    console.print(f"\nEverything is in {repository.parent}; look around, or remove it.", style="dim")
    return done.returncode


@asynccontextmanager
async def _model(args: argparse.Namespace, console: Console, repository: Path) -> AsyncGenerator[dict[str, str]]:
    """The environment of the model that plays: the provider's where there is a key, else the simulator's."""
    if not args.simulate and any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")):
        console.print("Model: your provider's, by the key in the environment. This costs a few cents.", style="yellow")
        yield {}
        return
    console.print(
        "Model: the built-in simulator, since no ANTHROPIC_API_KEY is set. "
        "The agent, its tools, its permissions and its memory are real.",
        style="yellow",
    )
    async with ModelSimulator(_script(repository)) as simulator:
        yield simulator.claude_environment(repository.parent / "claude")


def _script(repository: Path) -> Script:
    steps = (
        Reply(
            text="I'll look at what is there first.",
            tools=(ToolUse(name="Read", input={"file_path": str(repository / "README.md")}),),
            chunk_delay=0.03,
        ),
        Reply(tools=(ToolUse(name="Read", input={"file_path": str(repository / "orders.py")}),), delay=0.3),
        Reply(
            text="The total ignores how many of each were ordered. I'll write that down.",
            tools=(ToolUse(name="Write", input={"file_path": str(repository / "SUMMARY.md"), "content": _SUMMARY}),),
            chunk_delay=0.03,
        ),
        Reply(
            text="Done. `SUMMARY.md` says what the repository is, and that `total()` ignores the quantities.",
            chunk_delay=0.03,
        ),
    )
    return Script(rules=(Rule(match="^Read this repository", turns=steps), Rule(match="^Which file", turns=(_recall,))))


def _recall(turn: Turn) -> Reply:
    """Answer from the conversation alone: what this model was not given again, it does not know."""
    for message in reversed(turn.request.messages):
        for part in message.content:
            if isinstance(part, ToolCall) and part.name == "Write":
                written = Path(str(part.input.get("file_path"))).name
                told = " ".join(str(part.input.get("content")).split())
                return Reply(text=f"I wrote {written}. It said: {told}", chunk_delay=0.03)
    return Reply(text="I do not remember writing a file.")


def _approve(console: Console, *, ask: bool) -> ToolCallback:
    """Ask the person when told to, else answer for them and say so."""
    if ask:
        return tty_approval(risk_gate="medium")

    def answer(request: PermissionRequest) -> PermissionDecision:
        if request.risk != "low":
            line = f"  ? may it {request.tool_name} {describe(request)} ({request.risk} risk)? allowed by the demo"
            console.print(Text(line, style="magenta"), overflow="ellipsis", no_wrap=True)
        return PermissionDecision(decision="allow")

    return answer


def _heading(console: Console, title: str, detail: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Text(f"› {detail}", style="dim"), soft_wrap=True)
