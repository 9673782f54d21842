"""`ComputerSpec`: a computer as data, and who may ask for which."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from computeragent.computer.addresses import web_address
from computeragent.errors import ComputerActionError, ComputerUnsupportedError, ValidationError

Kind = Literal["x11", "browser", "remote"]
OsType = Literal["linux", "windows", "macos"]

WIDTH, HEIGHT = 1280, 800
_SMALLEST, _LARGEST = 200, 7_680
_LONGEST = 600.0


class ComputerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A computer as data.

    Attributes:
        kind: ``x11``: a desktop; ``browser``: a page in Chromium; ``remote``: what a cua computer-server drives.
        width: Pixels of the screen; of a remote or attached one, what it has.
        height: Likewise.
        display: An X display of this machine: the desktop to attach to, or where a browser is shown.
        headless: Whether a browser shows no window. One that does needs `display`.
        url: Where a computer-server is.
        api_key: Its key.
        name: The name of its container, where it asks for one.
        os_type: What runs there.
        page: The address that is open when the computer is leased.
        timeout: Seconds that a remote computer may take to answer.

    """

    kind: Kind = "x11"
    width: int = WIDTH
    height: int = HEIGHT
    display: str | None = None
    headless: bool = True
    url: str | None = None
    api_key: str | None = None
    name: str | None = None
    os_type: OsType = "linux"
    page: str | None = None
    timeout: float = 30.0

    def __repr__(self) -> str:
        shown = {name: "***" if name == "api_key" else value for name, value in msgspec.to_builtins(self).items()}
        return f"ComputerSpec({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def place(self) -> str | None:
        """What there is only one of: the attached display or the machine. None where a new computer is started."""
        if self.kind == "remote":
            return self.url
        return f"display {self.display}" if self.kind == "x11" and self.display else None


def check(spec: ComputerSpec) -> None:
    """Raise `ValidationError` for a spec that makes no sense."""
    if not all(_SMALLEST <= each <= _LARGEST for each in (spec.width, spec.height)):
        raise ValidationError(
            f"a screen of {spec.width}x{spec.height} cannot be had",
            hint=f"Each side is {_SMALLEST} to {_LARGEST} pixels.",
        )
    if spec.page is not None:
        try:
            web_address(spec.page)
        except ComputerActionError as error:
            raise ValidationError(f"the computer's page: {error.message}", hint=error.hint) from None
    if spec.kind == "browser" and not spec.headless and spec.display is None:
        raise ValidationError("a browser that is seen needs a display", hint='Such as "display": ":1".')
    if spec.kind == "remote":
        _host_of(spec.url or "")
        if not 0 < spec.timeout <= _LONGEST:
            raise ValidationError(
                "the timeout of a computer is no time", hint=f"More than 0 and at most {_LONGEST:g} seconds."
            )


def check_permitted(spec: ComputerSpec, *, allow_host: bool, remote_hosts: Collection[str] | None) -> None:
    """Raise `ComputerUnsupportedError` for a computer that may not be used (`kinds.spec_of` says what the two are)."""
    if spec.kind != "remote":
        if spec.display is not None and not allow_host:
            raise ComputerUnsupportedError(
                "the displays of this machine may not be used from here",
                hint="Leave `display` out for a computer of its own; whoever runs this server may allow it.",
            )
        return
    host = _host_of(spec.url or "")
    if remote_hosts is not None and host not in {each.lower() for each in remote_hosts}:
        raise ComputerUnsupportedError(
            f"computers at {host!r} may not be used from here", hint="Whoever runs this server may allow that host."
        )
    if remote_hosts is None and not allow_host and _is_here(host):
        raise ComputerUnsupportedError(
            "computer-servers of this machine may not be used from here",
            hint="Whoever runs this server may allow it.",
        )


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.hostname:
        raise ValidationError("the address of the computer-server is none", hint="Such as http://10.0.0.5:8000.")
    if parts.username or parts.password:
        raise ValidationError("the address of the computer-server has a password", hint="Give `api_key`.")
    return parts.hostname.lower()


def _is_here(host: str) -> bool:
    """Whether a host is this machine, or an address that only machines beside it are meant to reach."""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1, 0x7f000001: as the system reads them
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified
