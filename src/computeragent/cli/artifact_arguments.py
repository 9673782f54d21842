"""The rows of `artifacts`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from computeragent.clis import CLIS, SandboxPlatform

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent artifacts prefetch
  computeragent artifacts prefetch claude_code codex_cli --version latest
  computeragent artifacts prefetch codex_cli_acp --platform linux-arm64
  computeragent artifacts seed ./packages
  computeragent artifacts rm gemini_cli 0.61.0
"""


def add_artifacts(commands: Commands) -> None:
    """`computeragent artifacts`."""
    artifacts = commands.add_parser(
        "artifacts",
        help="have the programs of command line agents here, for machines without a network too",
        description="Programs of command line agents (Claude Code, Codex, Gemini CLI, …), as packages through npm and "
        "pip as these are configured on this machine. They are held to the registry's hashes, run no script when they "
        "are unpacked, and are kept in COMPUTERAGENT_ARTIFACTS (default: cache/artifacts in COMPUTERAGENT_HOME): of "
        "each the five versions that were used last. "
        "With COMPUTERAGENT_OFFLINE=1 no network is touched.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    artifacts.set_defaults(handler="artifacts:ls", name=None, json=False)
    actions = artifacts.add_subparsers(metavar="ACTION")
    _add_ls(actions)
    _add_prefetch(actions)
    seed = actions.add_parser(
        "seed",
        help="take programs from a folder; no network is touched",
        description="Take programs from a folder: packages of a platform as `npm pack` writes them (such as "
        "@anthropic-ai/claude-code-linux-x64), or folders of another machine's cache, which are held to their hashes. "
        "JavaScript and Python agents come from another machine's cache only.",
    )
    seed.add_argument("dir", help="the folder")
    seed.set_defaults(handler="artifacts:seed")
    rm = actions.add_parser("rm", help="remove a program from the cache")
    rm.add_argument("name", help="the agent, such as claude_code")
    rm.add_argument("version", nargs="?", help="this version only (default: all)")
    rm.set_defaults(handler="artifacts:rm")


def _add_ls(actions: Commands) -> None:
    ls = actions.add_parser("ls", help="what is in the cache, the one used last first (the default)")
    ls.add_argument("name", nargs="?", help="of this agent only")
    ls.add_argument("--json", action="store_true", help="one line of JSON per program")
    ls.set_defaults(handler="artifacts:ls")


def _add_prefetch(actions: Commands) -> None:
    prefetch = actions.add_parser(
        "prefetch",
        help="fetch programs ahead",
        description="Fetch programs, so that later runs need no network. Exits with 1 where one could not be had; the "
        "others are fetched all the same. All of them are some 2 GB.",
    )
    prefetch.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"agents (default: all): {', '.join(CLIS)}; also codex_cli_acp, claude_code_acp, node",
    )
    prefetch.add_argument(
        "--version",
        default="stable",
        metavar="V",
        help="stable, latest or a number such as 1.2.3 (default: stable)",
    )
    prefetch.add_argument(
        "--platform", choices=get_args(SandboxPlatform), help="for this platform (default: this machine's)"
    )
    prefetch.add_argument("--offline", action="store_true", help="only check what the cache has")
    prefetch.set_defaults(handler="artifacts:prefetch")
