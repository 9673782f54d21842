"""What Inspect imports to know our names: `--solver computeragent/claude_code`, `--sandbox bwrap`."""

from __future__ import annotations

from computeragent.swe.sandboxes import BwrapSandbox as BwrapSandbox
from computeragent.swe.sandboxes import NamespaceSandbox as NamespaceSandbox
