"""Sandboxes for Inspect that need no daemon and no image."""

from computeragent.swe.sandboxes.bwrap import BwrapSandbox
from computeragent.swe.sandboxes.namespace import NamespaceSandbox
from computeragent.swe.sandboxes.types import OwnSandbox, SandboxBind, SandboxConfig, own

__all__ = ["BwrapSandbox", "NamespaceSandbox", "OwnSandbox", "SandboxBind", "SandboxConfig", "own"]
