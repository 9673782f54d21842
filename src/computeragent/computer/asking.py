"""What a request says of its computer, in our names or in cua's ``computer_kwargs``, with types and names checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from computeragent.computer.spec import HEIGHT, WIDTH
from computeragent.errors import ComputerUnsupportedError, UnknownOptionError, ValidationError

PORT = 8000
"""Where a cua computer-server listens unless told otherwise."""

OPTIONS: dict[str, str] = {
    "kind": "our name for `provider_type`: x11, browser or remote",
    "os_type": "linux (default), windows, macos; browser",
    "provider_type": "see the table; default local",
    "name": "the container's name, for a computer-server that asks for it",
    "api_key": "the key of the computer-server; default CUA_API_KEY of `env`",
    "display": '"1024x768", {"width", "height"}, or an X display such as ":1"',
    "width": "pixels, default 1280",
    "height": "pixels, default 800",
    "headless": "of a browser, default true",
    "page": "the address that is open at the start",
    "url": "the address of a computer-server, whole",
    "api_host": "its host; `host` is the same",
    "api_port": "its port, default 8000",
    "api_base_url": "the same as `url`",
    "use_host_computer_server": "the same as `provider_type: host`",
    "timeout": "seconds that a computer-server may take to answer, default 30",
}
"""What a request may say of its computer."""
IGNORED = (
    *("memory", "cpu", "image", "storage", "ephemeral", "verbosity", "telemetry_enabled", "noVNC_port"),
    *("provider_port", "port", "experiments", "run_opts"),
)
"""Options of cua that size or watch machines which are not started here: taken, and without effect."""
REFUSED = {
    "shared_directories": "Folders are not shared with computers; write files with their file functions.",
    "backend": "Computers are driven natively; leave `backend` out.",
    "vnc_host": "VNC is not spoken; give a computer-server's address in `api_host`.",
    "vnc_port": "VNC is not spoken; give a computer-server's address in `api_host`.",
    "vnc_password": "VNC is not spoken; give a computer-server's address in `api_host`.",
    "api_headers": "A computer-server is given `api_key` and `name`, and no other headers.",
}
"""Options of cua that cannot be honoured, and what to do instead."""
_SAME = {"host": "api_host", "api_base_url": "url"}
_SYSTEMS = {"mac": "macos", "darwin": "macos", "ubuntu": "linux"}


class Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a request says, with its types checked."""

    kind: str | None = None
    os_type: str = "linux"
    provider_type: str = ""
    name: str | None = None
    api_key: str | None = None
    display: str | dict[str, int] | None = None
    width: int | None = None
    height: int | None = None
    headless: bool = True
    page: str | None = None
    url: str | None = None
    api_host: str | None = None
    api_port: int | None = None
    use_host_computer_server: bool = False
    timeout: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        width, height = self.width, self.height
        if isinstance(self.display, dict):
            width, height = self.display.get("width"), self.display.get("height")
        elif self.display and ":" not in self.display:
            found = re.fullmatch(r"(\d{2,5})[xX*](\d{2,5})", self.display.strip())
            if found is None:
                raise ValidationError(f"{self.display!r} is no display", hint='Such as "1280x800" or ":1".')
            width, height = int(found[1]), int(found[2])
        return width or WIDTH, height or HEIGHT

    @property
    def x_display(self) -> str | None:
        """An X display that is named."""
        return self.display if isinstance(self.display, str) and ":" in self.display else None

    @property
    def address(self) -> str | None:
        """The address of a computer-server, if one is given."""
        if self.url:
            return self.url
        if not self.api_host:
            return None
        host = f"[{self.api_host}]" if ":" in self.api_host and not self.api_host.startswith("[") else self.api_host
        return host if "://" in host else f"http://{host}:{self.api_port or PORT}"


def asked_of(given: Mapping[str, Any], env: Mapping[str, str]) -> Asked:
    """What is said, in our names. Raises `UnknownOptionError`, `ValidationError` and `ComputerUnsupportedError`."""
    known = {*OPTIONS, *_SAME}
    said: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in IGNORED:
            continue
        if name in REFUSED:
            if name == "backend" and value == "native":
                continue
            raise ComputerUnsupportedError(f"`{name}` of a computer is not supported", hint=REFUSED[name])
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise UnknownOptionError(
                f"a computer has no option {str(name)[:80]!r}", hint=f"{hint}Options: {', '.join(OPTIONS)}."
            )
        said[_SAME.get(name, name)] = value
    try:
        asked = msgspec.convert(said, Asked)
    except msgspec.ValidationError as error:
        raise ValidationError(f"the computer is not described well: {error}", hint="See its options.") from None
    asked.os_type, asked.provider_type = asked.os_type.lower(), (asked.kind or asked.provider_type).lower()
    asked.os_type = _SYSTEMS.get(asked.os_type, asked.os_type)
    if asked.use_host_computer_server:
        asked.provider_type = "host"
    if not asked.provider_type and asked.address:
        asked.provider_type = "remote"
    asked.name = asked.name or env.get("CUA_CONTAINER_NAME")
    asked.api_key = asked.api_key or env.get("CUA_API_KEY")
    return asked
