"""Who may call: bearer tokens, compared in constant time, and the hosts that a browser may have been led to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.errors import ForbiddenHostError, InsufficientPermissionError, UnauthorizedError, ValidationError
from computeragent.server.errors import respond
from computeragent.settings import home

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `id` owns the sessions that it makes.

    `local` is whoever runs the server: it may name folders and databases of this machine. Others may not.
    """

    id: str
    local: bool = False


ANONYMOUS = Principal("anonymous", local=True)
"""The caller of a server without authentication, which is for loopback alone."""


Authenticate = Callable[[str], Awaitable[Principal | None]]
"""Given a bearer token, or ``Basic …`` whole, who it is; None for nobody.

Raises `InsufficientPermissionError` for who may not.
"""


def bearer(tokens: Iterable[str]) -> Authenticate:
    """Static tokens. Each is a principal of its own, named after a digest of it.

    Raises `ValidationError` for one that no header can carry.
    """
    known = [token.encode() for token in tokens if token]
    if not all(token.isascii() and token.decode().isprintable() for token in known):
        raise ValidationError("a token has characters that cannot be sent", hint="Use letters, digits and marks.")
    named = [Principal(f"token-{hashlib.sha256(token).hexdigest()[:12]}", local=True) for token in known]

    async def authenticate(given: str) -> Principal | None:
        octets = given.encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(octets, token) for token in known]  # all of them, whichever matches
        return named[matches.index(True)] if True in matches else None

    return authenticate


def basic(user: str, password: str) -> Authenticate:
    """One user, by HTTP Basic authentication; a principal of that name."""
    expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}".encode()

    async def authenticate(given: str) -> Principal | None:
        is_known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected)
        return Principal(f"user-{user}", local=True) if is_known else None

    return authenticate


def own_token(name: str) -> str:
    """This machine's token for a server, made on first use; a file of mode 0600 under `COMPUTERAGENT_HOME`/keys."""
    path: Path = home("keys") / name
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    token = f"cah_{secrets.token_urlsafe(32)}"
    part = path.with_name(f"{path.name}.{os.getpid()}")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as writer:
        writer.write(f"{token}\n")
    try:
        os.link(part, path)  # whoever is first made it
    except FileExistsError:
        return path.read_text("ascii").strip()
    finally:
        part.unlink()
    return token


class Gate:
    """ASGI middleware: refuses foreign hosts, and callers without a token, except on public paths.

    What a browser sends by itself (nothing, or a user and password that it knows) is refused from pages of other hosts.
    """

    def __init__(
        self, app: ASGIApp, *, authenticate: Authenticate | None, hosts: Iterable[str], public: Iterable[str]
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._hosts = frozenset(host.lower() for host in hosts)
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with its principal, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._hosts and host_name(headers.get(b"host", b"")) not in self._hosts:
            error: Any = ForbiddenHostError("this host name is not served here", hint="Use --allowed-host to allow it.")
            await respond(error)(scope, receive, send)
            return
        if self._hosts and b"origin" in headers and not _is_bearer(headers.get(b"authorization", b"")):
            origin = headers[b"origin"].partition(b"://")[2]  # of `null`, nothing
            if host_name(origin) not in self._hosts:
                error = ForbiddenHostError(
                    "pages of this origin may not ask here", hint="Use --allowed-host, or a token."
                )
                await respond(error)(scope, receive, send)
                return
        is_known = "computeragent.principal" in scope  # another server of ours has vouched for it
        if self._authenticate is not None and not is_known and scope["path"] not in self._public:
            try:
                principal = await self._authenticate(_token(headers.get(b"authorization", b"")))
            except InsufficientPermissionError as refused:
                await respond(refused)(scope, receive, send)
                return
            if principal is None:
                error = UnauthorizedError("authentication required", hint="Send Authorization: Bearer <token>.")
                await respond(error)(scope, receive, send)
                return
            scope["computeragent.principal"] = principal
        await self._app(scope, receive, send)


def host_name(value: bytes) -> str:
    """The name in a Host header, without the port."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.rpartition(":")[0] if ":" in text else text


def _is_bearer(value: bytes) -> bool:
    return value[:7].lower() == b"bearer "


def _token(value: bytes) -> str:
    """A bearer token; of Basic authentication the whole, which no token can be."""
    scheme, _, token = value.decode("latin-1").partition(" ")
    if scheme.lower() == "basic":
        return f"Basic {token.strip()}"
    return token.strip() if scheme.lower() == "bearer" else ""
