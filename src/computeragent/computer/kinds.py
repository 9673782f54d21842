"""Which kind of computer a request gets: one table from os_type and provider_type, and one way to open it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from computeragent.computer.addresses import web_address
from computeragent.computer.asking import PORT, Asked, asked_of
from computeragent.computer.custom import CustomComputer, are_functions
from computeragent.computer.spec import ComputerSpec, OsType, check, check_permitted
from computeragent.computer.types import Computer, HasPages, HasWindows
from computeragent.errors import ComputerError, ComputerUnsupportedError, ValidationError

__all__ = ["TABLE", "ComputerSpec", "Row", "open_computer", "show", "spec_of"]

CLOUD = "https://{name}.containers.cloud.trycua.com:8443"
"""Where cua's cloud says that its containers are."""
_WINDOW = 30.0
"""Seconds that a browser may take to be seen."""
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def spec_of(
    computer_kwargs: Mapping[str, Any] | ComputerSpec | None = None,
    env: Mapping[str, str] | None = None,
    *,
    allow_host: bool = False,
    remote_hosts: Collection[str] | None = None,
) -> ComputerSpec:
    """The computer that a request asks for, in our names or in cua's.

    Args:
        computer_kwargs: What was said (`asking.OPTIONS`); default a new desktop.
        env: Stands in for `name` and `api_key`: CUA_CONTAINER_NAME, CUA_API_KEY.
        allow_host: Whether this machine's own displays and computer-servers may be used. Only for who runs it.
        remote_hosts: Hosts whose computer-servers may be used; None for all but this machine's.

    Raises:
        ComputerUnsupportedError: Nothing here is what was asked for, or it is not allowed; the hint says what to do.
        ValidationError: It makes no sense.

    """
    if isinstance(computer_kwargs, ComputerSpec):
        spec = computer_kwargs
    else:
        asked = asked_of(computer_kwargs or {}, env or {})
        row = next((row for row in TABLE if _fits(row, asked)), None)
        if row is None:
            raise _unknown(asked)
        spec = row.make(asked)
        if spec is None:
            what = f"os_type {asked.os_type!r} and provider_type {asked.provider_type or 'local'!r}"
            raise ComputerUnsupportedError(f"nothing here is a computer of {what}", hint=row.remedy)
    check(spec)
    check_permitted(spec, allow_host=allow_host, remote_hosts=remote_hosts)
    return spec


async def open_computer(computer: ComputerSpec | Computer | Mapping[str, Any]) -> Computer:
    """A computer, started or reached: of a spec, of plain data (as `spec_of` takes it), of functions, or as it is.

    A spec may name a display of this machine, plain data may not.
    Raises what `spec_of` raises, and `ComputerError` when it does not start or answer.
    """
    if are_functions(computer):
        return await CustomComputer.make(cast("Mapping[str, Any]", computer))
    if isinstance(computer, (ComputerSpec, Mapping)):
        spec = computer if isinstance(computer, ComputerSpec) else spec_of(computer)
        check(spec)
        opened = await _OPENERS[spec.kind](spec)
        try:
            await show(opened, spec.page)
        except BaseException:
            await opened.close()
            raise
        return opened
    if isinstance(computer, Computer):
        return computer
    raise ValidationError(
        f"a {type(computer).__name__} is no computer", hint="Give a spec, a mapping of functions, or a Computer."
    )


async def show(computer: Computer, page: str | None) -> None:
    """Open the address that a computer starts with: in itself if it is a browser, else in one that it launches."""
    if page is None:
        return
    if isinstance(computer, HasPages):
        await computer.goto(page)
    elif isinstance(computer, HasWindows):
        await _browse(computer, page)
    else:
        raise ComputerUnsupportedError(f"a computer of kind {computer.kind} opens no `page` at the start")


async def _browse(computer: HasWindows, page: str) -> None:
    """Launch a browser, and wait until it is to be seen."""
    before = {window.id for window in await computer.windows()}
    await computer.launch("chromium", [web_address(page)])  # a flag of Chromium's would run what it says
    try:
        async with asyncio.timeout(_WINDOW):
            while before.issuperset(window.id for window in await computer.windows()):  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ComputerError("the browser shows no window", hint="Is Chromium installed there?") from None
    assert isinstance(computer, Computer)
    await computer.settle()


async def _open_x11(spec: ComputerSpec) -> Computer:
    from computeragent.computer.x11 import X11Computer

    if spec.display is not None:
        return await X11Computer.attach(spec.display)
    return await X11Computer.start(width=spec.width, height=spec.height)


async def _open_browser(spec: ComputerSpec) -> Computer:
    from computeragent.computer.browser import BrowserComputer

    return await BrowserComputer.start(spec.width, spec.height, display=spec.display)


async def _open_remote(spec: ComputerSpec) -> Computer:
    from computeragent.computer.remote import RemoteComputer

    return await RemoteComputer.connect(
        spec.url or "", api_key=spec.api_key, name=spec.name, os_type=spec.os_type, timeout=spec.timeout
    )


_OPENERS: dict[str, Callable[[ComputerSpec], Awaitable[Computer]]] = {
    "x11": _open_x11,
    "browser": _open_browser,
    "remote": _open_remote,
}


# ── What a request gets: each is a spec, or None where the row's remedy is needed ──


def _browser(asked: Asked) -> ComputerSpec:
    width, height = asked.size
    headless = asked.headless and asked.x_display is None
    return ComputerSpec(
        kind="browser", width=width, height=height, display=asked.x_display, headless=headless, page=asked.page
    )


def _x11(asked: Asked) -> ComputerSpec:
    width, height = asked.size
    return ComputerSpec(kind="x11", width=width, height=height, display=asked.x_display, page=asked.page)


def _remote(asked: Asked) -> ComputerSpec | None:
    return None if asked.address is None else _served_at(asked, asked.address)


def _host(asked: Asked) -> ComputerSpec:
    return _served_at(asked, asked.address or f"http://127.0.0.1:{asked.api_port or PORT}")


def _cloud(asked: Asked) -> ComputerSpec | None:
    if asked.address is not None:
        return _served_at(asked, asked.address)
    if not asked.name or not asked.api_key:
        return None
    if not _LABEL.fullmatch(asked.name):
        raise ValidationError(f"{asked.name[:80]!r} is no container's name", hint="Letters, digits and dashes.")
    return _served_at(asked, CLOUD.format(name=asked.name))


def _served_at(asked: Asked, address: str) -> ComputerSpec:
    return ComputerSpec(
        kind="remote",
        url=address.rstrip("/"),
        api_key=asked.api_key,
        name=asked.name,
        os_type=cast("OsType", asked.os_type),
        page=asked.page,
        timeout=30.0 if asked.timeout is None else asked.timeout,
    )


# ── The table ──


@dataclass(frozen=True, slots=True)
class Row:
    """What is asked for, what serves it, and what to do where that needs more than was said. `*` is anything."""

    os_type: str
    provider_type: str
    served: str
    remedy: str
    make: Callable[[Asked], ComputerSpec | None]


_SERVER = "Start a cua computer-server in it, and give its address in `api_host` and `api_port`."
_CLOUD = (
    "Give `name` and `api_key` (or CUA_CONTAINER_NAME and CUA_API_KEY in `env`), or the address in `api_host`; "
    'a computer of this machine is "provider_type": "local".'
)
_THERE = "`remote`: what is at `api_host`"

TABLE: tuple[Row, ...] = (
    Row("browser", "*", "`browser`", "", _browser),
    Row("*", "browser", "`browser`: headless, or on the X display in `display`", "", _browser),
    Row("*", "cloud", "`remote`: the container `name` of cua's cloud, or what is at `api_host`", _CLOUD, _cloud),
    Row("*", "cloudv2", "as `cloud`", _CLOUD, _cloud),
    Row("*", "host", "`remote`: the computer-server of this machine, where that is allowed", "", _host),
    Row("*", "remote", _THERE, "Give the computer-server's address in `api_host` and `api_port`.", _remote),
    Row("linux", "x11", "`x11`: a new desktop, or the X display in `display`, where that is allowed", "", _x11),
    Row("linux", "local", "as `x11`", "", _x11),
    Row("linux", "", "as `x11`", "", _x11),
    Row("*", "docker", _THERE, f"Containers are not started here. {_SERVER}", _remote),
    Row("*", "lume", _THERE, f"Virtual machines are not started here. {_SERVER}", _remote),
    Row("*", "lumier", _THERE, f"Virtual machines are not started here. {_SERVER}", _remote),
    Row("*", "winsandbox", _THERE, f"Windows Sandbox is not started here. {_SERVER}", _remote),
    Row("windows", "local", _THERE, f"Desktops of this machine are Linux. {_SERVER}", _remote),
    Row("windows", "", _THERE, f"Desktops of this machine are Linux. {_SERVER}", _remote),
    Row("macos", "local", _THERE, f"Desktops of this machine are Linux. {_SERVER}", _remote),
    Row("macos", "", _THERE, f"Desktops of this machine are Linux. {_SERVER}", _remote),
)
"""The first row that fits is what a request gets."""


def _fits(row: Row, asked: Asked) -> bool:
    return row.os_type in {"*", asked.os_type} and row.provider_type in {"*", asked.provider_type}


def _unknown(asked: Asked) -> ComputerUnsupportedError:
    systems = sorted({row.os_type for row in TABLE} - {"*"})
    providers = sorted({row.provider_type for row in TABLE} - {"*", ""})
    if asked.os_type not in systems:
        return _no_such("os_type", asked.os_type, systems)
    if asked.provider_type not in providers:
        return _no_such("provider_type", asked.provider_type, providers)
    return ComputerUnsupportedError(
        f"there is no {asked.provider_type} of {asked.os_type}", hint='"provider_type": "local" is a Linux desktop.'
    )


def _no_such(option: str, value: str, known: list[str]) -> ComputerUnsupportedError:
    close: list[str] = get_close_matches(value, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return ComputerUnsupportedError(f"there is no {option} {value[:80]!r}", hint=f"{hint}One of {', '.join(known)}.")
