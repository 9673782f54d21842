"""The model bridge: a command line agent calls a provider's API, and a model of Inspect answers.

It listens where the agent can reach it, speaks the four model wires, and serves tools of the host over MCP.
"""

from computeragent.swe.bridge.opening import agent_bridge
from computeragent.swe.bridge.record import Bridge

__all__ = ["Bridge", "agent_bridge"]
