"""Servers: the harness over HTTP and server-sent events. Start with `create_harness_server`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from computeragent.server.app import ComputerAgentServer, create_harness_server
from computeragent.server.auth import Principal, bearer

if TYPE_CHECKING:
    from computeragent.server.introspection import introspect

__all__ = ["ComputerAgentServer", "Principal", "bearer", "create_harness_server", "introspect"]


def __getattr__(name: str) -> Any:
    if name != "introspect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from computeragent.server.introspection import introspect  # it brings an HTTP client along

    return introspect
