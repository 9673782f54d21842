"""What our sandboxes offer beyond Inspect's interface, and how they are configured."""

from __future__ import annotations

import os
import socket
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

from inspect_ai.util import SandboxEnvironment
from pydantic import BaseModel, ConfigDict

from computeragent.errors import ValidationError
from computeragent.substrates.cgroups import Limits


class SandboxBind(BaseModel, frozen=True):
    """A folder of the host to show. `target` is where, by default the same place."""

    model_config = ConfigDict(extra="forbid")

    source: str
    target: str | None = None
    writable: bool = False


class SandboxConfig(BaseModel, frozen=True):
    """The configuration of a sandbox: ``SandboxEnvironmentSpec("bwrap", SandboxConfig(...))``.

    Args:
        network: ``"none"`` (the default): a loopback of its own and nothing else. ``"host"``: the host's network, its
            loopback included.
        bind: Folders of the host to show: a path, read-only at the same place, or a `SandboxBind`.
        memory: Bytes that all processes may use together, files in memory included; None for no limit.
        pids: Processes and threads; None for no limit. The default holds where this user can make control groups.
        hide: Further folders and files to show empty. For ``namespace``, which shows the machine; its homes, temporary
            folders and the folder that the evaluation is run from are hidden anyway, but for what `bind` shows.

    """

    model_config = ConfigDict(extra="forbid")

    network: Literal["none", "host"] = "none"
    bind: tuple[str | SandboxBind, ...] = ()
    memory: int | None = None
    pids: int | None = 4096
    hide: tuple[str, ...] = ()

    def binds(self) -> list[dict[str, Any] | str]:
        """The folders, as `computeragent.substrates` takes them."""
        return [each if isinstance(each, str) else each.model_dump() for each in self.bind]

    def limits(self) -> Limits:
        """The limits to set: those asked for, and the default one where it can be."""
        wanted = "pids" in self.model_fields_set or os.geteuid() == 0
        return Limits(memory=self.memory, pids=self.pids if wanted else None)


def read_config(given: object) -> SandboxConfig:
    """What a task says of its sandbox: nothing, a `SandboxConfig`, or the path of a YAML file with its fields.

    Raises `ValidationError` for anything else.
    """
    if given is None or isinstance(given, SandboxConfig):
        return given or SandboxConfig()
    hint = "Give a computeragent.swe.SandboxConfig, or a YAML file with its fields."
    if not isinstance(given, str) or not given.endswith((".yaml", ".yml")):
        raise ValidationError(f"this sandbox cannot be configured by {given!r}", hint=hint)
    import yaml

    try:
        return SandboxConfig.model_validate(yaml.safe_load(Path(given).read_text("utf-8")) or {})
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValidationError(f"this sandbox cannot be configured by {given!r}: {error}", hint=hint) from error


class OwnSandbox(SandboxEnvironment):
    """A sandbox of ours: its commands start at once, and it hands listeners out.

    Inspect wraps sandboxes; `own` (or ``sandbox.as_type(OwnSandbox)``) gets at what is inside.
    """

    home: str
    """The private home inside, writable."""
    cwd: str
    """The sample's working directory inside."""

    @abstractmethod
    async def listener(self, port: int = 0) -> socket.socket:
        """A listening TCP socket on 127.0.0.1 in the sandbox's network, for the host to serve.

        Args:
            port: The port; 0 for any that is free.

        Raises `OSError` for a port that is taken, `SandboxUnavailableError` for a sandbox that has ended.

        """
        ...


def unwrapped(sandbox: SandboxEnvironment) -> SandboxEnvironment:
    """The provider's own object, without the events that Inspect records of each of its calls."""
    return sandbox.as_type(SandboxEnvironment)


def is_local(sandbox: SandboxEnvironment) -> bool:
    """Whether it is Inspect's `local`: this machine, with no border at all."""
    return type(unwrapped(sandbox)).__name__ == "LocalSandboxEnvironment"


def own(sandbox: SandboxEnvironment) -> OwnSandbox | None:
    """What is inside Inspect's wrapper, when it is a sandbox of ours."""
    try:
        return sandbox.as_type(OwnSandbox)
    except TypeError:
        return None
