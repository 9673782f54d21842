"""The names that Inspect users know: agent binaries and wheels, downloaded ahead and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from computeragent.artifacts import cache
from computeragent.artifacts.fetching import fetch, package_of
from computeragent.artifacts.making import download_wheels, tarball
from computeragent.artifacts.platforms import checked
from computeragent.artifacts.running import is_offline, refuse_offline
from computeragent.artifacts.versions import version_key
from computeragent.clis import CLIS, SandboxPlatform
from computeragent.errors import ArtifactCorruptError, ArtifactError

AgentName: TypeAlias = Literal[
    "claude_code",
    "codex_cli",
    "gemini_cli",
    "opencode",
    "mini_swe_agent",
    "kimi_code",
    "qwen_code",
    "pi",
    "copilot",
]


class AgentBinary(NamedTuple):
    """A program of an agent in the cache."""

    agent: AgentName
    version: str
    path: Path


class AgentBinaries(list[AgentBinary]):
    """Programs in the cache, the one used last first; as text, a line for each."""

    def __str__(self) -> str:
        lines = [f"{each.agent:15} {each.version:14} {each.path}" for each in self]
        return "\n".join(lines) or "no agent binaries are cached"


def download_agent_binary(
    binary: AgentName, version: Literal["stable", "latest"] | str, platform: SandboxPlatform
) -> None:
    """Have a program in the cache, so that this version of it needs no network later.

    The cache keeps the five versions of each agent that were used last. Raises what `fetch` raises.
    """
    fetch(binary, version, platform)


def cached_agent_binaries(binary: AgentName | None = None, quiet: bool = False) -> AgentBinaries:
    """The programs in the cache (of one agent, where it is named), printed unless `quiet`.

    Raises `UnknownCliError`.
    """
    if binary is not None:
        package_of(binary)
    names: dict[str, AgentName] = {name: name for name in _agents() if binary in {None, name}}
    found = AgentBinaries(
        AgentBinary(names[each.name], each.version, each.program) for each in cache.listed() if each.name in names
    )
    if not quiet:
        print(found)  # noqa: T201 - that is what it is for
    return found


def _agents() -> tuple[AgentName, ...]:
    from typing import get_args

    return tuple(name for name in get_args(AgentName) if name in CLIS)


def download_wheels_tarball(
    package_name: str, version: str | None, platform: SandboxPlatform, python_version: str
) -> tuple[bytes, str]:
    """All wheels of a Python package and what it needs, as one tar, and the version that it is.

    `version` None means the newest; `python_version` has no dots (`"312"`). The five used last are cached, and a
    version that is named comes from the cache without a network; offline, None means the newest one there.
    Raises `UnknownVersionError`, `ArtifactUnavailableError`, `ArtifactError`, `PlatformError`.
    """
    target = checked(platform)
    for text in filter(None, (package_name, version, python_version)):
        if not cache.valid_version(text):
            raise ArtifactError(f"{text!r} names no package, version or Python", hint="See download_wheels_tarball.")
    name = f"wheels-{package_name.lower().replace('_', '-')}-py{python_version}"
    with cache.locked(name):
        if version is None and is_offline():
            version = max((each.version for each in cache.listed(name)), key=version_key, default=None)
        folder = cache.place(name, version, target) if version is not None else None
        if folder is None or not _usable(folder):
            if is_offline():
                refuse_offline(f"{package_name} {version or ''}".strip())
            folder = _download(name, package_name, version, target, python_version)
        cache.use(folder)
        artifact = cache.read(folder)
        assert artifact is not None
        return artifact.program.read_bytes(), artifact.version


def _usable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        cache.check(folder)
    except ArtifactCorruptError as error:
        cache.remove_corrupt(folder, error)
        return False
    return True


def _download(name: str, package: str, version: str | None, platform: SandboxPlatform, python: str) -> Path:
    with cache.staging() as work:
        wheels = work / "wheels"
        wheels.mkdir()
        download_wheels(package, version, platform, python, wheels)
        wanted = package.lower().replace("-", "_").replace(".", "_")
        found = next((path for path in wheels.iterdir() if path.name.lower().startswith(f"{wanted}-")), None)
        if found is None:
            raise ArtifactError(f"pip fetched no wheel of {package}", hint="Look whether it has one for this Python.")
        exact = found.name.split("-")[1]
        made = work / "made"
        made.mkdir()
        tarball(wheels, made / "wheels.tar")
        cache.write_listing(made, name=name, version=exact, platform=platform, program="wheels.tar")
        return cache.publish(made, name, exact, platform)
