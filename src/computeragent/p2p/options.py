"""How a peer reaches its broker, whom it lets in, and from where it can be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from computeragent.errors import ValidationError

Exposure = Literal["loopback", "lan", "all"]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


@dataclass(frozen=True)
class PeerOptions:
    """Settings of a `Peer`; the first five as PeerJS has them. Times are in seconds, sizes in bytes.

    `exposure` says who can reach this peer directly: programs on this machine (``loopback``), of its private networks
    (``lan``), or anybody who gets through (``all``, which `ice_servers` need: URLs, or mappings with ``urls``,
    ``username`` and ``credential``). With a `secret`, only those are let in whose metadata has it as ``secret``.
    A peer that is silent for `dead_after` counts as gone; one that says nothing is asked for a sign of life every
    `heartbeat`.
    `max_message` bounds each message, and what waits to be read of one connection.
    """

    host: str = "localhost"
    port: int = 9000
    path: str = "/"
    key: str = "peerjs"
    secure: bool = False
    ice_servers: Sequence[str | Mapping[str, Any]] = field(default=(), repr=False)
    exposure: Exposure = "loopback"
    secret: str | None = field(default=None, repr=False)
    heartbeat: float = 1.0
    dead_after: float = 6.0
    open_timeout: float = 20.0
    max_message: int = 32 * 1024 * 1024
    max_connections: int = 32

    def __post_init__(self) -> None:
        if self.exposure not in get_args(Exposure):
            raise ValidationError(f"there is no exposure {self.exposure!r}", hint="Use loopback, lan or all.")
        if self.ice_servers and self.exposure != "all":
            raise ValidationError(
                "ICE servers make a peer reachable from outside", hint='Say so with exposure="all", or leave them out.'
            )
        if self.secret is not None and not self.secret:
            raise ValidationError("the secret of a peer is empty", hint="Leave it out, or use a long random one.")
        if not 0 < self.heartbeat < self.dead_after:
            raise ValidationError("heartbeat must be above zero and below dead_after")
        if min(self.open_timeout, self.max_message, self.max_connections) <= 0:
            raise ValidationError("the limits of a peer must be above zero")
        if not 0 < self.port < 65536:
            raise ValidationError(f"{self.port} is not a port")

    @property
    def folder(self) -> str:
        """The broker's path, with a slash at both ends."""
        inner = self.path.strip("/")
        return f"/{inner}/" if inner else "/"
