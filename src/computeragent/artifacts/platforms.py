"""Which platform a machine is."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import get_args

from computeragent.clis import SandboxPlatform
from computeragent.errors import PlatformError

PLATFORMS: tuple[SandboxPlatform, ...] = get_args(SandboxPlatform)
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def platform_of(system: str, machine: str, *, musl: bool) -> SandboxPlatform:
    """The platform, from what `uname -s` and `uname -m` say. Raises `PlatformError` for what no agent runs on."""
    name = f"linux-{_MACHINES.get(machine.strip().lower(), machine)}{'-musl' if musl else ''}"
    if system.strip() != "Linux":
        raise PlatformError(f"agents run on Linux, not on {system.strip() or 'an unknown system'}", hint=_hint())
    return checked(name)


def checked(name: str) -> SandboxPlatform:
    """A platform by its name. Raises `PlatformError`."""
    for known in PLATFORMS:
        if name == known:
            return known
    raise PlatformError(f"{name!r} is not a platform that agents run on", hint=_hint())


def host_platform() -> SandboxPlatform:
    """The platform of this machine. Raises `PlatformError`."""
    system = "Linux" if sys.platform == "linux" else platform.system()
    return platform_of(system, platform.machine(), musl=any(Path("/lib").glob("ld-musl-*")))


def _hint() -> str:
    return f"Name the sandbox's platform: {', '.join(PLATFORMS)}."


def npm_words(name: SandboxPlatform) -> tuple[str, ...]:
    """A platform in the words of npm's flags."""
    _, cpu, *libc = name.split("-")
    return ("--os=linux", f"--cpu={cpu}", f"--libc={'musl' if libc else 'glibc'}")


def wheel_tags(name: SandboxPlatform) -> tuple[str, ...]:
    """A platform in the words of Python wheels: the tags that it takes."""
    _, cpu, *libc = name.split("-")
    machine = {"x64": "x86_64", "arm64": "aarch64"}[cpu]
    if libc:
        return tuple(f"musllinux_1_{minor}_{machine}" for minor in (2, 1))
    old = tuple(f"manylinux{word}_{machine}" for word in ("2014",))
    return (*(f"manylinux_2_{minor}_{machine}" for minor in (31, 28, 27, 26, 24, 17, 12, 5)), *old)
