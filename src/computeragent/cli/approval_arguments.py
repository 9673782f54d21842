"""The rows of `approvals`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, cast

from computeragent.cli.arguments import add_server

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent approvals ls --watch
  computeragent approvals allow call_0198f3
  computeragent approvals allow call_0198f3 --input '{"command": "ls -l"}'
  computeragent approvals deny call_0198f3 --reason "not on a Friday"

exit status: 0 done, 1 it failed or somebody else was first, 2 wrong usage
"""


def add_approvals(commands: Commands) -> None:
    """`computeragent approvals`."""
    approvals = commands.add_parser(
        "approvals",
        help="list and answer the tool calls that wait for a person",
        description="The tool calls of your sessions on a harness server that wait for an answer. Without\n"
        "--harness-url the server is this machine's own, http://127.0.0.1:7700.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    approvals.set_defaults(
        handler="approvals:ls", json=False, watch=False, harness_url=None, harness_token=None, harness_token_file=None
    )
    actions = approvals.add_subparsers(metavar="ACTION")
    ls = actions.add_parser("ls", help="what waits, oldest first (the default)")
    ls.add_argument("--json", action="store_true", help="one line of JSON per call")
    ls.add_argument("--watch", action="store_true", help="go on with the calls that come, until Ctrl-C")
    add_server(ls)
    ls.set_defaults(handler="approvals:ls")
    allow = actions.add_parser("allow", help="let a call run")
    _add_call(allow)
    allow.add_argument("--input", type=_object, metavar="JSON", help="run it with this input in place of its own")
    allow.set_defaults(handler="approvals:allow")
    deny = actions.add_parser("deny", help="keep a call from running")
    _add_call(deny)
    deny.add_argument("--reason", metavar="TEXT", help="why; the agent is told")
    deny.set_defaults(handler="approvals:deny")


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("call_id", metavar="CALL_ID", help="its id, or the beginning of it")
    parser.add_argument("--session", metavar="ID", help="its session, where several have a call of that id")
    add_server(parser)


def _object(text: str) -> dict[str, Any]:
    import msgspec  # --help does without

    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return cast("dict[str, Any]", value)
