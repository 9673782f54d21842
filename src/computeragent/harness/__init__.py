"""The harness: everything around an engine that must not sit in the cell with it."""

from __future__ import annotations

from computeragent.harness.harness import LocalHarness
from computeragent.harness.permissions import PermissionChain, parse_decision
from computeragent.harness.session import LocalSession
from computeragent.harness.workspace import LocalWorkspace

__all__ = ["LocalHarness", "LocalSession", "LocalWorkspace", "PermissionChain", "parse_decision"]
