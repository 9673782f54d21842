"""Command line coding agents as agents of Inspect: with no Docker, no key and no network needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from computeragent.artifacts import (
    AgentBinaries,
    AgentBinary,
    CodexWebSearch,
    SandboxPlatform,
    cached_agent_binaries,
    download_agent_binary,
    download_wheels_tarball,
)
from computeragent.errors import MissingExtraError

if find_spec("inspect_ai") is None:
    raise MissingExtraError("computeragent.swe needs the [swe] extra", hint="pip install 'computer-agent-py[swe]'")

if TYPE_CHECKING:
    from computeragent.swe.sessions import ComputerAgentRun, computeragent_agent

_PLACES = {
    "ComputerAgentRun": "sessions",
    "computeragent_agent": "sessions",
}
"""Each name and its place below this package: it is imported when the name is used."""

__all__ = ["ComputerAgentRun", "computeragent_agent"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
