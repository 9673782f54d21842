"""`computeragent doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from computeragent.cli.render import terminal
from computeragent.credentials import PROVIDERS
from computeragent.errors import ComputerAgentError
from computeragent.settings import home

Verdict = Literal["ok", "warn", "fail"]
SAFE_BWRAP = (0, 12, 0)
"""The first bubblewrap without CVE-2026-87766 (GHSA-pxhw-h44j-8pfx)."""
_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
_EXTRAS = {
    "server": "starlette",
    "otel": "opentelemetry",
    "pii": "re2",
    "redis": "redis",
    "postgres": "asyncpg",
    "mongo": "pymongo",
}
_LOW_DISK = 1 << 30


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    hint: str | None = None


def doctor(args: argparse.Namespace) -> int:
    """Look at everything; 1 where something that is needed is missing."""
    failed = False
    console = terminal()
    for finding in _all(offline=args.offline):
        failed = failed or finding.verdict == "fail"
        if args.json:
            print(msgspec.json.encode(finding).decode())
            continue
        mark, style = _MARKS[finding.verdict]
        console.print(f"{mark} {finding.name:<12} {finding.found}", style=style if finding.verdict != "ok" else "")
        if finding.hint and finding.verdict != "ok":
            console.print(f"  {'':<12} {finding.hint}", style="dim")
    return int(failed)


def _all(*, offline: bool) -> Iterator[Finding]:
    looks: list[Callable[[], Finding]] = [_python, _extras, _state, _claude, _keys, _bwrap, _namespaces, _seccomp]
    looks += [_limits, _openat2, _docker, _telemetry, *([] if offline else [_egress])]
    for look in looks:
        try:
            yield look()
        except (OSError, subprocess.SubprocessError, ComputerAgentError) as error:
            name = look.__name__.strip("_")
            hint = error.hint if isinstance(error, ComputerAgentError) else None
            yield Finding(name, "fail", str(error), hint)


def _python() -> Finding:
    version = f"computer-agent-py {metadata.version('computer-agent-py')}, Python {sys.version.split()[0]}"
    return Finding("version", "ok", f"{version}, {sys.platform}")


def _extras() -> Finding:
    there = [name for name, module in _EXTRAS.items() if find_spec(module) is not None]
    return Finding("extras", "ok", ", ".join(there) or "none installed")


def _state() -> Finding:
    folder = home()
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Finding("state", "warn", f"{folder} can be read by others", f"chmod 700 {folder}")
    free = shutil.disk_usage(folder).free
    if free < _LOW_DISK:
        return Finding(
            "state", "warn", f"{folder}: {free >> 20} MiB free", "Free some space, or move COMPUTERAGENT_HOME."
        )
    return Finding("state", "ok", f"{folder}, {free >> 30} GiB free")


def _claude() -> Finding:
    from computeragent.engines.claude_process import find_cli

    cli = find_cli()
    said = _said([cli, "--version"])
    return Finding("claude", "ok", f"{said.split()[0] if said else 'unknown version'} at {cli}")


def _keys() -> Finding:
    known = [key.variable for provider in PROVIDERS for key in provider.keys if os.environ.get(key.variable)]
    login = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude") / ".credentials.json"
    if login.is_file():
        known.append("a login of the Claude CLI")
    if not known:
        hint = "Set ANTHROPIC_API_KEY, or run `computeragent demo` without one."
        return Finding("keys", "warn", "no provider key in the environment", hint)
    return Finding("keys", "ok", ", ".join(known))


def _bwrap() -> Finding:
    if sys.platform != "linux":
        return Finding("bubblewrap", "warn", "Linux only", "Use runtime='docker'.")
    found = shutil.which("bwrap")
    if found is None:
        return Finding("bubblewrap", "warn", "not installed", "apt install bubblewrap, for runtime='bwrap'.")
    numbers = re.findall(r"\d+", _said([found, "--version"]))
    version = tuple(int(each) for each in numbers[:3])
    text = ".".join(numbers[:3])
    if version < SAFE_BWRAP:
        return Finding(
            "bubblewrap",
            "warn",
            f"{text} has CVE-2026-87766, fixed in 0.12.0",
            "runtime='bwrap' mounts nothing where it could be used; other users of this bwrap may.",
        )
    return Finding("bubblewrap", "ok", text)


def _namespaces() -> Finding:
    found = shutil.which("bwrap")
    if found is None:
        return Finding("namespaces", "warn", "not tried without bubblewrap")
    command = [found, "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        hint = "Allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone, or AppArmor's profile)."
        return Finding("namespaces", "warn", done.stderr.strip() or "refused", hint)
    return Finding("namespaces", "ok", "user, process, mount and network namespaces")


def _seccomp() -> Finding:
    from computeragent.substrates import seccomp

    if seccomp.available():
        return Finding("seccomp", "ok", f"{len(seccomp.DENIED)} system calls are denied in jails")
    hint = "pip install 'computer-agent-py[bwrap]', and apt install libseccomp2."
    return Finding("seccomp", "warn", "jails have no system call filter", hint)


def _limits() -> Finding:
    from computeragent.substrates import cgroups

    if cgroups.available():
        return Finding("limits", "ok", "control groups limit memory, processes and CPU")
    return Finding(
        "limits",
        "warn",
        "no control groups for this user",
        "Delegate one, e.g. with systemd-run --user -p Delegate=yes.",
    )


def _openat2() -> Finding:
    from computeragent.jail import has_openat2

    if has_openat2():
        return Finding("openat2", "ok", "paths are resolved by the kernel, beneath the workspace")
    return Finding("openat2", "warn", "missing: paths are walked step by step, links refused", "Linux 5.6 has it.")


def _docker() -> Finding:
    if shutil.which("docker") is None:
        return Finding("docker", "ok", "not installed (needed for runtime='docker' alone)")
    said = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    version = said.stdout.strip()
    return Finding(
        "docker", "ok", f"engine {version}" if said.returncode == 0 else "no engine runs (for runtime='docker')"
    )


def _telemetry() -> Finding:
    from computeragent.telemetry.inspection import spool_states

    orphans = [state for state in spool_states(home("spool")) if not state.live and any(state.waiting.values())]
    if orphans:
        waiting = sum(max(state.waiting.values()) for state in orphans)
        hint = "The next process delivers it, or: computeragent telemetry replay"
        return Finding("telemetry", "warn", f"{waiting} events of {len(orphans)} ended processes wait", hint)
    return Finding("telemetry", "ok", "nothing waits for delivery")


def _egress() -> Finding:
    """Whether the providers that there are keys for can be reached; only an address is asked for, no key is sent."""
    chosen = [each for each in PROVIDERS if any(os.environ.get(key.variable) for key in each.keys)] or [PROVIDERS[0]]
    reached: list[str] = []
    for provider in chosen:
        address = os.environ.get(provider.base_url_variable) or provider.base_url
        if not address:
            continue
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            asyncio.run(_connect(host, port, tls=parts.scheme == "https"))
        except (OSError, TimeoutError, ssl.SSLError) as error:
            why = type(error).__name__ if isinstance(error, TimeoutError | socket.gaierror) else str(error)
            hint = "Check the network, proxies and certificates; or ANTHROPIC_BASE_URL for a gateway."
            return Finding("egress", "warn", f"{host}:{port} cannot be reached: {why}", hint)
        reached.append(host)
    return Finding("egress", "ok", ", ".join(reached))


async def _connect(host: str, port: int, *, tls: bool) -> None:
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection(host, port, ssl=tls or None)
        writer.close()


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
