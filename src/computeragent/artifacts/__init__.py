"""Programs of command line agents, as packages through npm and pip as they are configured here; checked, and cached."""

from computeragent.artifacts.binaries import (
    AgentBinaries,
    AgentBinary,
    AgentName,
    cached_agent_binaries,
    download_agent_binary,
    download_wheels_tarball,
)
from computeragent.artifacts.cache import Artifact, listed
from computeragent.artifacts.fetching import fetch, find, packages, prefetch, remove, seed
from computeragent.artifacts.making import ArtifactProgress
from computeragent.artifacts.platforms import PLATFORMS, host_platform, platform_of
from computeragent.clis import CodexWebSearch, SandboxPlatform

__all__ = [
    "PLATFORMS",
    "AgentBinaries",
    "AgentBinary",
    "AgentName",
    "Artifact",
    "ArtifactProgress",
    "CodexWebSearch",
    "SandboxPlatform",
    "cached_agent_binaries",
    "download_agent_binary",
    "download_wheels_tarball",
    "fetch",
    "find",
    "host_platform",
    "listed",
    "packages",
    "platform_of",
    "prefetch",
    "remove",
    "seed",
]
