"""How much a sandbox server takes on, and how long sandboxes live. Times are in milliseconds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from computeragent.errors import ValidationError
from computeragent.server.sandboxes.errors import InvalidTtlError

_VARIABLES = {
    "max_sandboxes": "SANDBOX_MAX_CONCURRENT",
    "idle_ttl_ms": "SANDBOX_DEFAULT_IDLE_TTL_MS",
    "ttl_ms": "SANDBOX_DEFAULT_TTL_MS",
    "max_idle_ttl_ms": "SANDBOX_MAX_IDLE_TTL_MS",
    "max_ttl_ms": "SANDBOX_MAX_TTL_MS",
    "reaper_interval_ms": "SANDBOX_REAPER_INTERVAL_MS",
    "boot_deadline_ms": "SANDBOX_BOOT_DEADLINE_MS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """The limits of one server. All are more than zero.

    Args:
        max_runs: Runs of ``POST /run`` at a time.
        max_tasks: Tasks that run at a time; more of them wait.
        max_waiting_tasks: Tasks that wait.
        max_sandboxes: Sandboxes at a time.
        ttl_ms: How long a sandbox lives when its creator does not say.
        idle_ttl_ms: How long it lives unused when its creator does not say.
        max_ttl_ms: The longest life that may be asked for.
        max_idle_ttl_ms: The longest idle life that may be asked for.
        boot_deadline_ms: How long a sandbox waits for its first chat or heartbeat.
        grace_ms: How long a turn under way may go on beyond the end of its sandbox's life.
        reaper_interval_ms: How often sandboxes are looked after.
        approval_timeout: Seconds until a tool call that nobody answered is denied.
        snapshot_files: Files of a workspace that fit into a snapshot.
        snapshot_bytes: Their bytes together.

    """

    max_runs: int = 4
    max_tasks: int = 8
    max_waiting_tasks: int = 100
    max_sandboxes: int = 8
    ttl_ms: float = 1_800_000
    idle_ttl_ms: float = 600_000
    max_ttl_ms: float = 7_200_000
    max_idle_ttl_ms: float = 1_800_000
    boot_deadline_ms: float = 60_000
    grace_ms: float = 30_000
    reaper_interval_ms: float = 5_000
    approval_timeout: float = 600.0
    snapshot_files: int = 100_000
    snapshot_bytes: int = 2 * 1024**3

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (math.isfinite(value) and value > 0):
                raise ValidationError(f"{each.name} is {value!r}", hint="Every limit is a number above zero.")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> SandboxLimits:
        """The limits that ``SANDBOX_MAX_CONCURRENT``, ``SANDBOX_DEFAULT_TTL_MS`` and their kin set; `given` wins."""
        found: dict[str, Any] = {}
        for name, variable in _VARIABLES.items():
            text = environ.get(variable)
            if text:
                if not text.isascii() or not text.isdigit():
                    raise ValidationError(f"{variable} is {text[:40]!r}", hint="Set it to a whole number above zero.")
                found[name] = int(text)
        return cls(**(found | given))

    def lives(self, ttl_ms: float | None, idle_ttl_ms: float | None) -> tuple[float, float]:
        """The life and the idle life that a sandbox gets for what was asked. Raises `InvalidTtlError`."""
        for name, value in (("ttlMs", ttl_ms), ("idleTtlMs", idle_ttl_ms)):
            if value is not None and not value > 0:
                raise InvalidTtlError(f"{name} is {value:g}", hint="Send milliseconds above zero, or leave it out.")
        ttl = min(self.ttl_ms if ttl_ms is None else ttl_ms, self.max_ttl_ms)
        idle = min(self.idle_ttl_ms if idle_ttl_ms is None else idle_ttl_ms, self.max_idle_ttl_ms, ttl)
        return ttl, idle
