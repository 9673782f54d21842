"""Addresses that a computer is sent to: of the web, whoever names them, and never a file or a flag of a program."""

from __future__ import annotations

from urllib.parse import urlsplit

from computeragent.errors import ComputerActionError

_SCHEMES = ("http", "https", "about", "data")


def web_address(url: str) -> str:
    """An address of the web, with its scheme. Files of this machine, and the browser's own pages, are none.

    Raises `ComputerActionError`.
    """
    url = url.strip()
    host = url.partition("/")[0].partition(":")[0]
    if "://" not in url and host not in {"about", "data"}:
        is_other = host.startswith("-") or host.lower() in {"javascript", "file", "view-source"}
        if not host or any(mark in host for mark in " \t") or is_other:
            raise ComputerActionError(f"{url[:80]!r} is no address of the web", hint="Such as https://example.com.")
        url = f"{'http' if host in {'localhost', '127.0.0.1'} else 'https'}://{url}"
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        raise ComputerActionError(
            f"{url[:80]!r} is no address of the web", hint="Such as https://example.com."
        ) from None
    if scheme not in _SCHEMES:
        raise ComputerActionError(
            f"addresses of the kind {scheme!r} are not opened", hint=f"Open {', '.join(_SCHEMES)}."
        )
    return url
