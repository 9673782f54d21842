"""The rows of `policy rehearse` and `policy suggest`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.arguments import add_server, count, moment

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

FAILURES = ("newly-denied", "newly-allowed", "newly-asked", "no-longer-asked", "changed-input", "fault")


def add_rehearse(actions: Commands) -> None:
    """`computeragent policy rehearse`."""
    rehearse = actions.add_parser(
        "rehearse",
        help="what a policy would say of calls that were made",
        description="Put recorded tool calls to a policy, and show what would be denied, allowed, asked or changed "
        "that was not. Nothing runs and nobody is asked. Exits with 1 where --fail-on says so.",
    )
    rehearse.add_argument(
        "policy", metavar="POLICY", help='a .yaml or .cedar file, or JSON such as {"kind": "opa", "url": …}'
    )
    _add_calls(rehearse)
    rehearse.add_argument(
        "--against", metavar="POLICY", help="compare with what this policy says, not with what was decided"
    )
    rehearse.add_argument(
        "--fail-on",
        action="append",
        default=[],
        choices=FAILURES,
        help="exit with 1 where there are such calls, or where the policy has faults; may be repeated",
    )
    rehearse.add_argument(
        "--limit", type=count, default=10, metavar="N", help="kinds of calls to show of each change (default: 10)"
    )
    rehearse.add_argument("--json", action="store_true", help="all of it as one line of JSON")
    rehearse.set_defaults(handler="policy_rehearsal:rehearse")


def add_suggest(actions: Commands) -> None:
    """`computeragent policy suggest`."""
    suggest = actions.add_parser(
        "suggest",
        help="propose rules from what agents did",
        description="Propose a rules file that allows the recorded calls that were allowed and ran, and little else: "
        "commands as program and subcommand, files as folders, URLs as hosts. Nothing destructive is proposed. The "
        "file is a beginning, to be read and changed.",
    )
    _add_calls(suggest)
    suggest.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: standard output)")
    suggest.set_defaults(handler="policy_rehearsal:suggest")


def _add_calls(parser: argparse.ArgumentParser) -> None:
    """Which calls, and where they are kept."""
    which = parser.add_argument_group("which calls")
    which.add_argument("--since", type=moment, metavar="TIME", help="only since then: 30m, 12h, 7d or a date")
    which.add_argument(
        "--session", action="append", default=[], metavar="ID", help="only of this session, by the beginning of its id"
    )
    which.add_argument("--agent", action="append", default=[], metavar="NAME", help="only of this agent")
    which.add_argument("--tool", action="append", default=[], metavar="NAME", help="only of this tool")
    which.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="calls in a file of a jsonl sink, or an audit file, instead of this machine's sessions",
    )
    which.add_argument("--cwd", metavar="DIR", help="the working folder of calls of which it is not on record")
    add_server(parser.add_argument_group("on a server"))
