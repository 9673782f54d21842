"""The computer-use engine: a model, a screen, and a loop that asks before every action."""

from __future__ import annotations

from computeragent.engines.computer_use.engine import ComputerUseEngine

__all__ = ["ComputerUseEngine"]
