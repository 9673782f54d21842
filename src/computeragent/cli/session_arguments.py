"""The rows of `sessions`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.arguments import add_server, count, event_id

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent sessions ls --limit 5
  computeragent sessions tail sess_0198 --json
  computeragent sessions tail support-42 --harness-url https://agents.example:7700
  computeragent chat . --session-id "$(computeragent sessions fork support-42)"
"""


def add_sessions(commands: Commands) -> None:
    """`computeragent sessions`."""
    sessions = commands.add_parser(
        "sessions",
        help="list, show, follow, fork and delete sessions",
        description="What was recorded on this machine, by `run`, `chat` and `serve`; with --harness-url, what is\n"
        "on a server: the sessions of whoever asks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sessions.set_defaults(
        handler="sessions:ls", limit=20, json=False, harness_url=None, harness_token=None, harness_token_file=None
    )
    actions = sessions.add_subparsers(metavar="ACTION")
    ls = actions.add_parser("ls", help="the sessions used last")
    ls.add_argument("--limit", type=count, default=20, help="how many at most (default: 20)")
    ls.add_argument("--json", action="store_true", help="one line of JSON per session")
    add_server(ls)
    ls.set_defaults(handler="sessions:ls")
    show = actions.add_parser(
        "show",
        help="what happened in a session",
        description="Play a session's events; of a session on a server those of its newest run.",
    )
    _add_id(show)
    show.add_argument("--json", action="store_true", help="the events as lines of JSON")
    add_server(show)
    show.set_defaults(handler="sessions:show")
    tail = actions.add_parser(
        "tail",
        help="follow a session as it goes on",
        description="Print the events of a session's newest run, then those that come, to the end of the run. A server "
        "that is lost is looked for again, and each event is printed once. The exit status is that of the run: 0 "
        "complete, 130 cancelled, 1 anything else.",
    )
    _add_id(tail)
    tail.add_argument("--after", type=event_id, metavar="N", help="begin after this event (default: with the run)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with the session's next runs, until Ctrl-C")
    tail.add_argument(
        "--json", action="store_true", help="each event as one line of JSON, with the `id` that --after takes"
    )
    add_server(tail)
    tail.set_defaults(handler="tail:tail")
    fork = actions.add_parser(
        "fork",
        help="a new session that begins with what another one remembers",
        description="Copy a session of this machine, so that both can go on apart from each other: its transcript and "
        "its sub-agents', its recorded events, and the working folder that it has of its own (a clone). A folder that "
        "was used in place is shared by both. Prints the new id.",
    )
    _add_id(fork)
    fork.add_argument("--id", metavar="NEW", help="the new session's id (default: a generated one)")
    fork.add_argument(
        "--session-store", metavar="STORE", help="where its transcript is, as for `run` (default: sqlite and file)"
    )
    fork.set_defaults(handler="fork:fork")
    rm = actions.add_parser(
        "rm",
        help="delete a session",
        description="Delete a session's events, transcript and workspace. On a server a session that runs is ended, "
        "and what its session store remembers stays.",
    )
    rm.add_argument("session_id", help="its id")
    add_server(rm)
    rm.set_defaults(handler="sessions:rm")


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session_id", help="its id; on this machine the beginning of it will do")
