"""The command line: one table of commands, and how failures are told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from computeragent.cli.agent_arguments import add_chat, add_run
from computeragent.cli.approval_arguments import add_approvals
from computeragent.cli.arguments import POLICY, count, port
from computeragent.cli.artifact_arguments import add_artifacts
from computeragent.cli.audit_arguments import AUDIT_LOG, add_audit
from computeragent.cli.computer_arguments import add_computer
from computeragent.cli.eval_arguments import add_eval
from computeragent.cli.policy_arguments import add_policy
from computeragent.cli.responses_arguments import add_responses
from computeragent.cli.session_arguments import add_sessions
from computeragent.errors import ComputerAgentError

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent demo
  computeragent run ./my-agent -m "Summarise the README"
  computeragent run github.com/org/agent?ref=v1.2 -m "Why did the build fail?" --json
  computeragent chat . --model claude-sonnet-4-5
  computeragent sessions ls
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.handler is None:
        parser.print_help()
        return 0
    module, _, function = args.handler.partition(":")
    _quiet_log()
    try:
        status = int(getattr(import_module(f"computeragent.cli.{module}"), function)(args) or 0)
        sys.stdout.flush()
        return status  # noqa: TRY300 - a reader that has gone is noticed by the flush
    except ComputerAgentError as error:
        report(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has gone; what Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("COMPUTERAGENT_LOG") == "debug" or getattr(args, "debug", False):
            raise
        hint = "This should not happen. COMPUTERAGENT_LOG=debug shows where it did."
        report(ComputerAgentError(f"{type(error).__name__}: {error}", hint=hint))
        return 1


def report(error: ComputerAgentError) -> None:
    """One line of error and one of hint, on stderr."""
    from computeragent.approval import printable

    print(f"error[{error.code}]: {printable(' '.join(error.message.split()))}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(' '.join(error.hint.split()))}", file=sys.stderr)


def _quiet_log() -> None:
    """Without COMPUTERAGENT_LOG or --debug there is no log: what a person must know, the command says itself."""
    import logging

    for name in ("computeragent", "claude_agent_sdk"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="computeragent",
        description="Run agents, watch them, and come back to them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_run(commands)
    add_chat(commands)
    _add_demo(commands)
    _add_simulate(commands)
    add_sessions(commands)
    add_policy(commands)
    add_approvals(commands)
    add_audit(commands)
    add_computer(commands)
    add_artifacts(commands)
    add_eval(commands)
    _add_agent(commands)
    _add_telemetry(commands)
    _add_doctor(commands)
    _add_serve(commands)
    add_responses(commands)
    _add_torture(commands)
    version = commands.add_parser("version", help="print versions of this package, the SDK and the Claude CLI")
    version.set_defaults(handler="agents:version")
    return parser


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="watch a real agent work: tools, permission, memory",
        description="A real Claude Code agent reads a small repository, asks before it writes, answers, and is "
        "resumed in a second process. Uses ANTHROPIC_API_KEY where it is set, else the built-in model simulator.",
    )
    demo.add_argument("--dir", metavar="DIR", help="where to put the demo's repository (default: a temporary folder)")
    demo.add_argument("--simulate", action="store_true", help="use the model simulator even if a key is set")
    demo.add_argument("--ask", action="store_true", help="answer the permission requests yourself")
    demo.set_defaults(handler="demo:demo")


def _add_simulate(commands: Commands) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="serve a scripted model that speaks the providers' wire formats",
        description="Serve the model simulator: Anthropic Messages, Bedrock, OpenAI Chat Completions and Responses, "
        "Gemini, from one script.",
    )
    simulate.add_argument("script", nargs="?", help="a YAML script; without one every message is echoed")
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    simulate.add_argument("--port", type=port, default=8399, help="port; 0 picks a free one (default: 8399)")
    simulate.add_argument("--require-key", metavar="KEY", help="refuse requests without this API key")
    simulate.add_argument("--check", action="store_true", help="only check the script")
    simulate.set_defaults(handler="simulate:simulate")


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="serve agents over HTTP and server-sent events",
        description="Serve the harness protocol or, with --kind sandboxes, runs, tasks and warm sandboxes. Callers "
        "need the token that is printed (or of COMPUTERAGENT_SERVER_TOKEN). Agents run in this machine's account, "
        "unless their runtime isolates them.",
    )
    serve.add_argument(
        "--kind", choices=("harness", "sandboxes"), default="harness", help="what to serve (default: harness)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=port, help="port (default: 7700, of sandboxes 8787)")
    serve.add_argument("--engine", action="append", default=[], help="offer this engine only; may be repeated")
    serve.add_argument(
        "--event-log",
        metavar="LOG",
        default="sqlite",
        help="where events are kept: memory, sqlite (the default), or redis://… that several servers share",
    )
    serve.add_argument(
        "--advertise", metavar="URL", help="where the other servers on a redis log reach this one (default: its own)"
    )
    serve.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="serve this host name too")
    serve.add_argument(
        "--introspect",
        metavar="URL",
        default=os.environ.get("AGENTOS_INTROSPECTION_URL") or None,
        help="let in whom this service vouches for as well; the secret for it is in AGENTOS_INTROSPECTION_SECRET "
        "(or the file that AGENTOS_INTROSPECTION_SECRET_FILE names)",
    )
    serve.add_argument(
        "--runtime",
        action="append",
        default=[],
        help="where agents run, such as bwrap (default: local); of sandboxes: offer this one, may be repeated",
    )
    serve.add_argument("--pool", type=int, default=0, metavar="N", help="keep N places of the runtime ready")
    serve.add_argument(
        "--max-sessions", type=count, metavar="N", help="sessions under way at a time (default: 10000); more get 429"
    )
    serve.add_argument("--policy", metavar="POLICY", help=POLICY)
    serve.add_argument("--audit-log", metavar="FILE", help=AUDIT_LOG)
    serve.add_argument("--no-auth", action="store_true", help="let everybody in; for loopback alone")
    sandboxes = serve.add_argument_group("with --kind sandboxes")
    sandboxes.add_argument(
        "--forward-env", action="append", default=[], metavar="NAME", help="give agents this variable of the server's"
    )
    sandboxes.add_argument(
        "--source-root", action="append", default=[], metavar="DIR", help="take local agents from below here only"
    )
    sandboxes.add_argument("--task-store", choices=("sqlite", "memory"), default="sqlite", help="where tasks are kept")
    serve.set_defaults(handler="serve:serve")


def _add_torture(commands: Commands) -> None:
    torture = commands.add_parser(
        "torture",
        help="hold a harness server's event streams to what they promise",
        description="Cut the connections to a harness server inside every event of a run, read it slowly, resume it "
        "from ids that cannot be, and check that nothing is lost, doubled or changed. Needs its scripted engine; the "
        "sessions that it makes are deleted again. Exits with 1 where a promise is broken.",
    )
    torture.add_argument("url", help="where the server is, such as http://127.0.0.1:7700")
    torture.add_argument(
        "--token", help="a token of it (default: COMPUTERAGENT_HARNESS_TOKEN, then this machine's own)"
    )
    torture.add_argument("--events", type=count, default=500, metavar="N", help="events of the run (default: 500)")
    torture.add_argument("--seeds", type=count, default=20, metavar="N", help="cuts at each event (default: 20)")
    torture.add_argument("--quick", action="store_true", help="a few hundred cuts, and no waiting for heartbeats")
    torture.add_argument("--json", action="store_true", help="the report as one line of JSON")
    torture.set_defaults(handler="torture:torture")


def _add_telemetry(commands: Commands) -> None:
    telemetry = commands.add_parser(
        "telemetry",
        help="see what telemetry sends, what waits, and send it again",
        description="What agents on this machine tell: redacted events, kept in spools under COMPUTERAGENT_HOME until "
        "their destinations have them.",
    )
    telemetry.set_defaults(handler="telemetry:stats", json=False)
    actions = telemetry.add_subparsers(metavar="ACTION")
    stats = actions.add_parser("stats", help="which spools there are, and what waits in them for whom (the default)")
    stats.add_argument("--json", action="store_true", help="one line of JSON per spool")
    stats.set_defaults(handler="telemetry:stats")
    tail = actions.add_parser("tail", help="the events of the last minute, and those that come in")
    tail.add_argument("--no-follow", action="store_true", help="stop after the events that there are")
    tail.add_argument("--session", metavar="ID", help="only those of this session")
    tail.add_argument("--kind", action="append", default=[], help="only those of this kind; may be repeated")
    tail.add_argument("--json", action="store_true", help="each event as one line of JSON, as it is sent")
    tail.set_defaults(handler="telemetry:tail")
    replay = actions.add_parser(
        "replay",
        help="send what dead processes left behind, or a recorded session",
        description="Without a session: send what waits in the spools of processes that are gone. With one: tell a "
        "session of `computeragent sessions` to the destinations that the environment names (see `configure`). Events "
        "keep their ids, so receivers that know them already drop them.",
    )
    replay.add_argument("session_id", nargs="?", help="a recorded session, or the beginning of its id")
    replay.add_argument("--to", metavar="FILE", help="write the events to this file as lines of JSON instead")
    replay.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to try (default: 30)")
    replay.set_defaults(handler="telemetry:replay")


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check this machine: the CLI, keys, jails, limits, network",
        description="Look at what agents need of this machine, and say what to do about what is missing. Exits with 1 "
        "where something that is needed is.",
    )
    doctor.add_argument("--json", action="store_true", help="one line of JSON per finding")
    doctor.add_argument("--offline", action="store_true", help="do not connect to the model's provider")
    doctor.set_defaults(handler="doctor:doctor")


def _add_agent(commands: Commands) -> None:
    agent = commands.add_parser("agent", help="check agent definitions")
    agent.set_defaults(handler=None)
    actions = agent.add_subparsers(metavar="ACTION", required=True)
    validate = actions.add_parser("validate", help="check an agent.yaml and say what the agent is")
    validate.add_argument("source", nargs="?", default=".", help="a directory or git URL (default: .)")
    validate.add_argument("--engine", default="claude-agent-sdk", help="the engine to read it for")
    validate.set_defaults(handler="agents:validate")


if __name__ == "__main__":
    raise SystemExit(main())
