"""The rows of `eval`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.arguments import add_server

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent eval export sess_0198
  computeragent eval export support-42 --out evals/refund --files none
  computeragent eval export support-42 --harness-url https://agents.example:7700
  inspect eval evals/refund/task.py --solver computeragent/claude_code --model mockllm/model
"""


def add_eval(commands: Commands) -> None:
    """`computeragent eval`."""
    parser = commands.add_parser("eval", help="make evaluations of recorded sessions")
    parser.set_defaults(handler=None)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    export = actions.add_parser(
        "export",
        help="a recorded session as a task of Inspect",
        description="Write a session as a folder that `inspect eval` runs: the user's messages are the input, the\n"
        "recorded answer is the target, the files of its folder go along. Secrets and personal data are redacted.\n"
        "What is to be decided by hand, such as the scorer, is marked EDIT in its task.py.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("session_id", help="its id; on this machine the beginning of it will do")
    export.add_argument("--out", metavar="DIR", help="the folder to write, new or empty (default: eval-ID)")
    export.add_argument(
        "--files",
        choices=("auto", "start", "now", "none"),
        default="auto",
        help="the files: as the source's commit had them (start), as they are (now), none of them; auto: start where "
        "there is a commit, else now (default: auto)",
    )
    export.add_argument(
        "--keep-personal-data",
        action="store_true",
        help="redact secrets alone, where a task needs addresses, numbers and the like",
    )
    export.add_argument(
        "--sandbox",
        default="bwrap",
        metavar="NAME",
        help="the sandbox that the task names: bwrap, namespace, local, docker (default: bwrap)",
    )
    export.add_argument(
        "--session-store",
        metavar="STORE",
        help="read Claude Code's transcript from this store, as for `run`, instead of the recorded events",
    )
    add_server(export)
    export.set_defaults(handler="eval_export:export")
