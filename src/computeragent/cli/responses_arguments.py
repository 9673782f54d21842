"""The arguments of `computeragent responses`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from computeragent.cli.arguments import POLICY, count, port
from computeragent.cli.audit_arguments import AUDIT_LOG

if TYPE_CHECKING:
    from computeragent.cli.arguments import Commands

_EXAMPLES = """\
examples:
  computeragent responses serve
  computeragent responses serve --kind browser --size 1280x800
  computeragent responses serve --mode both --no-auth
  curl localhost:8000/responses -H "Authorization: Bearer $TOKEN" \\
    -d '{"model": "anthropic/claude-sonnet-4-5", "input": "What is on the screen?"}'
"""


def add_responses(commands: Commands) -> None:
    """`computeragent responses …`."""
    responses = commands.add_parser(
        "responses",
        help="have things done on a computer by one request: /responses over HTTP and WebRTC",
        description="The computer-use proxy: an instruction comes in, an agent acts on a desktop or a browser, and "
        "what it said and did goes out.",
    )
    kinds = responses.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve = kinds.add_parser(
        "serve",
        help="serve /responses",
        description="Serve POST /responses. Callers need the token that is printed (or of "
        "COMPUTERAGENT_RESPONSES_TOKEN). Model keys are those of this process's environment, unless a request "
        "brings its own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=port, default=8000, help="port; 0 picks a free one (default: 8000)")
    serve.add_argument(
        "--mode", choices=("http", "p2p", "both"), default="http", help="over HTTP, WebRTC, or both (default: http)"
    )
    serve.add_argument("--no-auth", action="store_true", help="let everybody in; for loopback alone")
    serve.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name that requests may be for; '*' for any; may be repeated",
    )
    serve.add_argument("--scripts", metavar="DIR", help="offer the models scripted/FILE of this folder")
    _add_computer(serve)
    _add_peer(serve)
    serve.add_argument("--policy", metavar="POLICY", help=POLICY)
    serve.add_argument("--audit-log", metavar="FILE", help=AUDIT_LOG)
    serve.add_argument("--max-live", type=count, metavar="N", help="responses under way at a time (default: 64)")
    serve.set_defaults(handler="responses:serve")


def _add_computer(serve: argparse.ArgumentParser) -> None:
    computer = serve.add_argument_group("the computer, where a request does not say")
    computer.add_argument("--kind", choices=("x11", "browser"), help="a desktop or a browser (default: x11)")
    computer.add_argument("--size", metavar="WxH", help="its size in pixels (default: 1280x800)")
    computer.add_argument("--max-computers", type=count, metavar="N", help="computers at a time (default: 4)")
    computer.add_argument(
        "--allow-attach", action="store_true", help="let requests drive a display or computer-server of this machine"
    )
    computer.add_argument(
        "--remote-host",
        action="append",
        default=[],
        metavar="HOST",
        help="let requests use computer-servers of this host alone, may be repeated (default: any but this machine's)",
    )
    computer.add_argument(
        "--trajectories", metavar="DIR", help="where save_trajectory keeps them (default: in the state folder)"
    )


def _add_peer(serve: argparse.ArgumentParser) -> None:
    peer = serve.add_argument_group("WebRTC")
    peer.add_argument("--peer-id", default="computer-agent-proxy", help="the peer's id (default: computer-agent-proxy)")
    peer.add_argument(
        "--signaling-host",
        metavar="HOST",
        help="the PeerJS server through which peers find each other (default: one of our own)",
    )
    peer.add_argument(
        "--signaling-port", type=port, metavar="PORT", help="its port (default: 9000; of another server 80 or 443)"
    )
    peer.add_argument("--signaling-secure", action="store_true", help="reach it over TLS")
    peer.add_argument("--lan", action="store_true", help="let peers on other machines reach this one")
    peer.add_argument("--no-welcome", action="store_true", help="send no welcome message to who connects")
