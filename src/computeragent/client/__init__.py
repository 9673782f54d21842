"""Clients: a harness on the other side of a wire, used like the one in this process."""

from __future__ import annotations

from computeragent.client.harness_client import HarnessClient
from computeragent.client.remote import RemoteHarness
from computeragent.client.sandbox import SandboxHarness
from computeragent.client.server_client import ComputerAgentServerClient

__all__ = ["ComputerAgentServerClient", "HarnessClient", "RemoteHarness", "SandboxHarness"]
