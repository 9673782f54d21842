"""The rows of `computer`."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING

from computeragent.cli.arguments import amount, count, port

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

VIEW_PORT, REPLAY_PORT, WIRE_PORT = 7780, 7790, 8000

_VIEW_EXAMPLES = """\
examples:
  computeragent computer view --display :5
  computeragent computer view --take-over --page https://example.org
  computeragent computer view --kind browser --size 1024x768 --take-over
  computeragent computer view --url http://10.0.0.5:8000
"""
_REPLAY_EXAMPLES = """\
examples:
  computeragent computer replay ./trajectories
  computeragent computer replay ./trajectories/2026-11-21_claude_101500_3fa2 --export run.html
"""
_MCP_EXAMPLES = """\
examples:
  claude mcp add desktop -- computeragent computer mcp
  computeragent computer mcp --kind browser --model anthropic/claude-sonnet-4-5
  CUA_MODEL_NAME=openai/computer-use-preview CUA_MAX_IMAGES=3 computeragent computer mcp --display :1 --allow-shell
"""


_SERVE_EXAMPLES = """\
examples:
  computeragent computer serve --kind browser
  computeragent computer serve --host 0.0.0.0 --allowed-host desk.example
"""


def add_computer(commands: Commands) -> None:
    """`computeragent computer`."""
    computer = commands.add_parser(
        "computer",
        help="watch a computer, take it over, replay what an agent did on it, or offer it over MCP",
        description="A computer that agents act on: a desktop of its own on this machine, a browser, or a remote one.",
    )
    computer.set_defaults(handler=None)
    actions = computer.add_subparsers(metavar="ACTION", required=True)
    _add_view(actions)
    _add_replay(actions)
    _add_mcp(actions)
    _add_serve(actions)


def _add_view(actions: Commands) -> None:
    view = actions.add_parser(
        "view",
        help="its screen as a web page, live",
        description="Serve a computer's screen as a web page: one that is started for it, a display of this machine,\n"
        "or a remote one. Open the address that is printed; the token in it becomes a cookie.",
        epilog=_VIEW_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_which(view)
    shown = view.add_argument_group("the view")
    shown.add_argument("--take-over", action="store_true", help="let viewers use the pointer and the keyboard")
    shown.add_argument("--fps", type=amount, default=12.0, metavar="N", help="frames per second at most (default: 12)")
    _add_where(shown, VIEW_PORT)
    view.set_defaults(handler="computer:view")


def _add_replay(actions: Commands) -> None:
    replay = actions.add_parser(
        "replay",
        help="step through what an agent did on a computer",
        description="Serve a page that steps through the screenshots of a trajectory with the actions drawn on them,\n"
        "or write it into one file. Trajectories are what the option trajectory_dir of computer use writes.",
        epilog=_REPLAY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("dir", metavar="DIR", help="a trajectory, or a folder of them")
    replay.add_argument("--export", metavar="FILE", help="write one trajectory into this file, which needs no server")
    _add_where(replay, REPLAY_PORT)
    replay.set_defaults(handler="computer:replay")


def _add_mcp(actions: Commands) -> None:
    mcp = actions.add_parser(
        "mcp",
        help="the computer as tools of an MCP client, on standard input and output",
        description="Speak the Model Context Protocol on standard input and output: tools to look, click, type and\n"
        "so on, and run_task, which has a computer-use agent do a task. The computer is started at the first call\n"
        "and let go when it is idle, and at the end.",
        epilog=_MCP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_which(mcp)
    task = mcp.add_argument_group("run_task")
    task.add_argument(
        "--model",
        metavar="MODEL",
        default=os.environ.get("CUA_MODEL_NAME") or None,
        help="who does tasks, such as anthropic/claude-sonnet-4-5 (default: CUA_MODEL_NAME; without one there is "
        "no run_task)",
    )
    task.add_argument(
        "--max-images",
        type=count,
        metavar="N",
        default=os.environ.get("CUA_MAX_IMAGES") or None,
        help="screenshots that the model is shown again (default: CUA_MAX_IMAGES, then 3)",
    )
    task.add_argument("--max-steps", type=count, default=100, metavar="N", help="model calls per task (default: 100)")
    task.add_argument(
        "--deadline", type=amount, default=900.0, metavar="S", help="seconds that a task may take (default: 900)"
    )
    bounds = mcp.add_argument_group("bounds")
    bounds.add_argument("--allow-shell", action="store_true", help="offer run_command, programs and files as well")
    bounds.add_argument(
        "--max-calls", type=count, default=10_000, metavar="N", help="tool calls of one session (default: 10000)"
    )
    bounds.add_argument(
        "--idle", type=amount, default=900.0, metavar="S", help="let the computer go after so long (default: 900)"
    )
    mcp.set_defaults(handler="computer:mcp")


def _add_serve(actions: Commands) -> None:
    serve = actions.add_parser(
        "serve",
        help="the computer behind the wire of a cua computer-server",
        description="Serve a computer to programs elsewhere: to computeragent (--url) and to cua's clients.\n"
        "Whoever has the token does anything on it, in its shell too.",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_which(serve)
    _add_listening(serve.add_argument_group("the server"), WIRE_PORT)
    serve.set_defaults(handler="computer:serve", no_auth=False)


def _add_which(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("which computer")
    which.add_argument(
        "--kind",
        choices=("x11", "browser", "remote"),
        help="a desktop, a page in Chromium, or a cua computer-server (default: x11; with --url remote)",
    )
    which.add_argument("--display", metavar=":N", help="attach to this X display; of a browser: show it there")
    which.add_argument("--size", type=size, metavar="WxH", help="pixels of a new screen (default: 1280x800)")
    which.add_argument("--page", metavar="URL", help="open this address in it")
    which.add_argument("--url", metavar="URL", help="where a computer-server is; its key is in CUA_API_KEY")


def _add_where(parser: argparse._ActionsContainer, default: int) -> None:  # pyright: ignore[reportPrivateUsage]
    _add_listening(parser, default)
    parser.add_argument("--no-auth", action="store_true", help="let everybody in; for loopback alone")


def _add_listening(parser: argparse._ActionsContainer, default: int) -> None:  # pyright: ignore[reportPrivateUsage]
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=default, help=f"port; 0 picks a free one (default: {default})")
    parser.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="serve this host name too")


def size(text: str) -> tuple[int, int]:
    """A size such as ``1280x800``."""
    found = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"must be such as 1280x800, not {text!r}")
    return int(found[1]), int(found[2])
