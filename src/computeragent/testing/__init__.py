"""What users test with: parts of this package that stand in for the outside world. Shipped, documented, stable.

`computeragent.testing.models` is a scripted model server, `computeragent.testing.conformance` holds engines to what
they promise, `stream_torture` the event streams of a harness server, and `run_session_store_conformance` is upstream's
own suite for session stores.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claude_agent_sdk.testing import run_session_store_conformance

    from computeragent.testing.conformance import engine_invariants, run_engine_conformance
    from computeragent.testing.models import ModelSimulator
    from computeragent.testing.torture import stream_torture
    from computeragent.testing.torture_report import TortureReport

__all__ = [
    "ModelSimulator",
    "TortureReport",
    "engine_invariants",
    "run_engine_conformance",
    "run_session_store_conformance",
    "stream_torture",
]

_HOMES = {
    "ModelSimulator": "computeragent.testing.models",
    "TortureReport": "computeragent.testing.torture_report",
    "engine_invariants": "computeragent.testing.conformance",
    "run_engine_conformance": "computeragent.testing.conformance",
    "run_session_store_conformance": "claude_agent_sdk.testing",
    "stream_torture": "computeragent.testing.torture",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
