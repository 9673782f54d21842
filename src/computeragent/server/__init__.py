"""Servers: the harness over HTTP and server-sent events. Start with `create_harness_server`."""

from __future__ import annotations

from computeragent.server.app import ComputerAgentServer, create_harness_server
from computeragent.server.auth import Principal, bearer
from computeragent.server.introspection import introspect

__all__ = ["ComputerAgentServer", "Principal", "bearer", "create_harness_server", "introspect"]
