"""The rows of `audit`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from computeragent.cli.arguments import moment

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

AUDIT_LOG = "append every decision about a tool call to this hash-chained file (default: COMPUTERAGENT_AUDIT_LOG)"
"""The help of ``--audit-log``."""

_EXAMPLES = """\
examples:
  computeragent run ./my-agent -m "Tidy up" --audit-log audit.jsonl
  computeragent audit verify audit.jsonl
  computeragent audit show audit.jsonl --decision deny --since 7d
"""


def add_audit(commands: Commands) -> None:
    """`computeragent audit`."""
    audit = commands.add_parser(
        "audit",
        help="check and read audit files",
        description="Audit files hold every decision about a tool call, each row bound to the one before.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.set_defaults(handler=None)
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser(
        "verify",
        help="check that nothing in a file was changed, added or taken away",
        description="Check every row's hash and place, the signatures, and that the file goes as far as its signed "
        "head says. Exits with 1, and names the first bad row, where something is wrong.",
    )
    verify.add_argument("file", metavar="FILE", help="an audit file; its head, FILE.head, is beside it")
    verify.add_argument("--key", metavar="KEYFILE", help="the key that signed it (default: this machine's own)")
    verify.add_argument(
        "--expect",
        type=_expectation,
        metavar="SEQ:HASH",
        help="a row that must be there, as an earlier verify printed it: finds an older file that was put back",
    )
    verify.add_argument("--json", action="store_true", help="one line of JSON")
    verify.set_defaults(handler="audit:verify")
    show = actions.add_parser("show", help="print a file's rows", description="Print rows as they are, unchecked.")
    show.add_argument("file", metavar="FILE", help="an audit file")
    show.add_argument("--tool", action="append", default=[], metavar="NAME", help="only calls of this tool")
    show.add_argument(
        "--decision", action="append", default=[], choices=("allow", "deny", "modify"), help="only these decisions"
    )
    show.add_argument("--session", metavar="ID", help="only this session, by the beginning of its id")
    show.add_argument("--since", type=moment, metavar="TIME", help="only rows since then: 30m, 12h, 7d or a date")
    show.add_argument("--json", action="store_true", help="each row as one line of JSON, as it is in the file")
    show.set_defaults(handler="audit:show")


def _expectation(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{8,64})", text)
    if found is None:
        raise argparse.ArgumentTypeError("must be the number of a row and its hash, such as 120:1f0c…")
    return int(found[1]), found[2]
