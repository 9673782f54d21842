"""The rows of `policy`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.rehearsal_arguments import add_rehearse, add_suggest

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent policy lint policy.yaml
  computeragent policy test policy.yaml
  computeragent policy explain policy.yaml --tool Bash --input '{"command": "git push --force"}'
  computeragent policy rehearse policy.yaml --since 7d --fail-on newly-denied
  computeragent policy suggest --since 30d --agent triage -o policy.yaml
"""


def add_policy(commands: Commands) -> None:
    """`computeragent policy`."""
    policy = commands.add_parser(
        "policy",
        help="check, test, explain, rehearse and suggest policies",
        description="What a policy says of tool calls, before any agent runs under it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    policy.set_defaults(handler=None)
    actions = policy.add_subparsers(metavar="ACTION", required=True)
    _add_test(actions)
    _add_lint(actions)
    _add_explain(actions)
    add_rehearse(actions)
    add_suggest(actions)


def _add_test(actions: Commands) -> None:
    test = actions.add_parser(
        "test",
        help="run a policy's unit cases",
        description="Put calls to a policy and compare what it says with what is expected. The cases are in the policy "
        "file, or beside it: of team.cedar in team.cases.yaml. Exits with 1 where one fails.",
    )
    test.add_argument("file", metavar="FILE", help="a .yaml or .cedar policy, or a file of cases that names its policy")
    test.add_argument("--cases", metavar="CASES", help="the file of cases")
    test.add_argument("--json", action="store_true", help="one line of JSON per case")
    test.set_defaults(handler="policy:test")


def _add_lint(actions: Commands) -> None:
    lint = actions.add_parser(
        "lint",
        help="look for mistakes in a policy",
        description="Errors keep a policy from being used; warnings are rules that never decide, that allow too much, "
        "or that name what is not there. Exits with 1 where there are errors.",
    )
    lint.add_argument("file", metavar="FILE", help="a .yaml or .cedar policy")
    lint.add_argument("--strict", action="store_true", help="exit with 1 for warnings as well")
    lint.add_argument("--json", action="store_true", help="one line of JSON per finding")
    lint.set_defaults(handler="policy:lint")


def _add_explain(actions: Commands) -> None:
    explain = actions.add_parser(
        "explain",
        help="show why a policy judges a call as it does",
        description="What a policy says of one call; of rules also the commands of a shell line, their risk, files and "
        "hosts, and which rules match.",
    )
    explain.add_argument("file", metavar="FILE", help="a .yaml or .cedar policy")
    explain.add_argument("--tool", required=True, help="the tool's name, such as Bash")
    explain.add_argument("--input", default="{}", metavar="JSON", help="the tool's input (default: {})")
    explain.add_argument("--principal", default="tester", metavar="ID", help="who asks (default: tester)")
    explain.add_argument(
        "--group", action="append", default=[], metavar="GROUP", help="a group of theirs; may be repeated"
    )
    explain.add_argument("--agent", default="", metavar="NAME", help="the agent's name")
    explain.add_argument("--cwd", metavar="DIR", help="its working folder (default: the current one)")
    explain.add_argument("--json", action="store_true", help="one line of JSON")
    explain.set_defaults(handler="policy:explain")
