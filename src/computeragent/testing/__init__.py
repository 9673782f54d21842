"""What users test with: parts of this package that stand in for the outside world. Shipped, documented, stable.

`computeragent.testing.models` is a scripted model server, `computeragent.testing.conformance` holds engines to what
they promise, and `run_session_store_conformance` is upstream's own suite for session stores.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claude_agent_sdk.testing import run_session_store_conformance

    from computeragent.testing.conformance import engine_invariants, run_engine_conformance
    from computeragent.testing.models import ModelSimulator

__all__ = ["ModelSimulator", "engine_invariants", "run_engine_conformance", "run_session_store_conformance"]

_HOMES = {
    "ModelSimulator": "computeragent.testing.models",
    "engine_invariants": "computeragent.testing.conformance",
    "run_engine_conformance": "computeragent.testing.conformance",
    "run_session_store_conformance": "claude_agent_sdk.testing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
