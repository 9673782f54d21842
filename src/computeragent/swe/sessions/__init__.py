"""Agents of ours, with any engine and source, as agents of Inspect. Start with `computeragent_agent`."""

from computeragent.swe.sessions.agent import computeragent_agent
from computeragent.swe.sessions.memory import ComputerAgentRun

__all__ = ["ComputerAgentRun", "computeragent_agent"]
