"""The rows of `run` and `chat`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.arguments import POLICY, add_server, amount, count
from computeragent.cli.audit_arguments import AUDIT_LOG

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_RUN_EXAMPLES = """\
examples:
  computeragent run ./my-agent -m "Summarise the README"
  computeragent run --source github.com/org/agent?ref=v1.2 -m - --json < question.txt
  computeragent run . -m "Go on" --session-id support-42 --session-store postgres
  computeragent run . -m "Try it" --runtime bwrap --env GITHUB_TOKEN
  computeragent run github.com/org/agent -m "Hello" --harness-url https://agents.example:7700

exit status: 0 the turn is complete, 1 it failed, 2 wrong usage, 130 interrupted
"""
_CHAT_EXAMPLES = """\
examples:
  computeragent chat . --model claude-sonnet-4-5
  computeragent chat github.com/org/agent --session-id support-42
  computeragent chat --agent-id triage --harness-url https://agents.example:8787 --harness-kind server
"""


def add_run(commands: Commands) -> None:
    """`computeragent run`."""
    run = commands.add_parser(
        "run",
        help="one turn with an agent: stream the answer, ask before tools run",
        description="Run one turn with an agent and stream what it does. Tool calls that change something\n"
        "are asked at the terminal; without a terminal they are denied unless --yes is given.",
        epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("-m", "--message", help="what to say; '-' or nothing reads standard input")
    run.add_argument("--json", "--raw", action="store_true", help="print each event as one line of JSON")
    _add_agent(run)
    run.set_defaults(handler="run:run")


def add_chat(commands: Commands) -> None:
    """`computeragent chat`."""
    chat = commands.add_parser(
        "chat",
        help="talk with an agent, turn by turn",
        description="Talk with an agent. Ctrl-C ends the turn, Ctrl-D (or /exit) the conversation;\n"
        "the session can be resumed with --session-id.",
        epilog=_CHAT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_agent(chat)
    chat.set_defaults(handler="chat:chat")


def _add_agent(parser: argparse.ArgumentParser) -> None:
    agent = parser.add_argument_group("the agent")
    agent.add_argument(
        "source",
        nargs="?",
        help="a directory, a git URL, github.com/org/repo[?ref=…], or inline:{JSON}; default . unless there is an "
        "agent id",
    )
    agent.add_argument("-s", "--source", dest="source_flag", metavar="SOURCE", help="the same as a flag")
    agent.add_argument(
        "--agent-id",
        metavar="ID",
        help="its id at AgentOS; without a source the agent that is registered under it runs "
        "(default: COMPUTERAGENT_AGENT_ID)",
    )
    agent.add_argument("--engine", "--harness", default=None, help="how it thinks (default: claude-agent-sdk)")
    agent.add_argument(
        "--identity-loader",
        "--loader",
        dest="loader",
        metavar="LOADER",
        help="who reads its definition: gap, passthrough (default: by what the source holds)",
    )
    agent.add_argument("--model", help="override the agent's model")
    agent.add_argument("--temperature", type=float, help="override the agent's temperature, where the engine has one")
    agent.add_argument("--base-url", metavar="URL", help="an Anthropic-compatible endpoint")
    agent.add_argument(
        "--env", action="append", default=[], metavar="NAME[=VALUE]", help="an environment variable for the engine"
    )
    agent.add_argument("--option", action="append", default=[], metavar="NAME=JSON", help="an option of the engine")
    agent.add_argument(
        "--attach",
        action="append",
        default=[],
        metavar="FILE",
        help="put a file into the working directory; may be repeated",
    )
    memory = parser.add_argument_group("what it remembers")
    memory.add_argument("--session-id", metavar="ID", help="resume this session, or start it under this id")
    memory.add_argument(
        "--session-store",
        metavar="STORE",
        help="where it is kept: memory, file, sqlite (default), postgres or mongo; with options as KIND={JSON}, or a "
        "URL such as postgres://… or mongodb://…; on a server (default: the server's memory) a name alone",
    )
    limits = parser.add_argument_group("what it may do")
    limits.add_argument("-y", "--yes", action="store_true", help="allow every tool call")
    limits.add_argument("--policy", metavar="POLICY", help=POLICY)
    limits.add_argument("--audit-log", metavar="FILE", help=AUDIT_LOG)
    limits.add_argument("--permission-mode", metavar="MODE", help="the engine's own mode; every call is still asked")
    limits.add_argument("--max-turns", type=count, metavar="N", help="model calls per turn at most")
    limits.add_argument("--budget", type=amount, metavar="USD", help="end the run when it has cost more")
    place = parser.add_argument_group("where it runs")
    place.add_argument(
        "--runtime",
        help="local, local-process, bwrap, … (default: local); beats COMPUTERAGENT_HARNESS_URL; of a sandbox server: "
        "one that it has",
    )
    add_server(place)
    place.add_argument(
        "--harness-kind",
        choices=("auto", "protocol", "server"),
        help="what is there: a harness server (protocol), a sandbox server (server), or ask it "
        "(auto; default: COMPUTERAGENT_HARNESS_KIND, then auto)",
    )
    parser.add_argument("--debug", action="store_true", help="log everything to stderr")
