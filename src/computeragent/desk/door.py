"""Who gets in: a bearer token, or for browsers a cookie that the token buys; foreign hosts and pages stay outside.

`Gate` looks at requests; here are the cookie and the WebSockets, which a page opens without a header of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from computeragent.desk.pages import render
from computeragent.errors import ComputerAgentError, ForbiddenHostError, UnauthorizedError
from computeragent.server.auth import ANONYMOUS, Gate, bearer, host_name
from computeragent.server.errors import respond

_PURPOSE = b"computeragent desk cookie"
_YEAR = 365 * 24 * 3600


class Door:
    """ASGI middleware. Without a `token` everybody on an allowed host gets in: for loopback alone.

    A page's address with ``?token=…`` sets a cookie (HttpOnly, SameSite=Strict) and leads to the address without it.
    A WebSocket needs the same, and where its request names an origin, that must be this very server.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Iterable[str], public: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        authenticate = None if token is None else bearer([token])
        self._gate = Gate(self._inside, authenticate=authenticate, hosts=self._hosts, public=public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await _deny(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # ── Requests ──

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        is_page = "text/html" in headers.get("accept", "") and scope["method"] in {"GET", "HEAD"}
        if self._token is not None:
            if self._has_cookie(headers):
                scope["computeragent.principal"] = ANONYMOUS
            elif self._has_query(scope):
                scope["computeragent.principal"] = ANONYMOUS
                scope["computeragent.came_in"] = is_page
            elif is_page:
                send = _asking(send)
        await self._gate(scope, receive, send)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.pop("computeragent.came_in", False):
            await self._app(scope, receive, send)
            return
        query = [(name, value) for name, value in _query(scope) if name != "token"]
        where = scope["path"] + (f"?{urlencode(query)}" if query else "")
        cookie = f"{_cookie_name(Headers(scope=scope))}={self._cookie()}; Path=/; HttpOnly; SameSite=Strict"
        cookie += f"; Max-Age={_YEAR}" + ("; Secure" if scope["scheme"] == "https" else "")
        headers = {"location": _local(where), "set-cookie": cookie, "cache-control": "no-store"}
        await Response(status_code=303, headers=headers)(scope, receive, send)

    # ── WebSockets ──

    def _refusal(self, scope: Scope) -> ComputerAgentError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts and host_name(host.encode("latin-1")) not in self._hosts:
            return ForbiddenHostError("this host name is not served here", hint="Use --allowed-host to allow it.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return ForbiddenHostError("pages of this origin may not look here", hint="Open the page of this server.")
        if self._token is None or self._has_cookie(headers) or self._has_query(scope) or self._has_header(headers):
            return None
        return UnauthorizedError("authentication required", hint="Open the address that the command printed.")

    # ── What they bring ──

    def _cookie(self) -> str:
        """What the cookie holds: it opens this door, and is of no use as the token."""
        return hmac.new((self._token or "").encode(), _PURPOSE, hashlib.sha256).hexdigest()

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers))
        except CookieError:
            return False
        return found is not None and _same(found.value, self._cookie())

    def _has_query(self, scope: Scope) -> bool:
        return any(name == "token" and _same(value, self._token or "") for name, value in _query(scope))

    def _has_header(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _same(value.strip(), self._token or "")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _local(path: str) -> str:
    """A path that cannot lead to another host, whatever it begins with."""
    return "/" + path.lstrip("/\\")


def _cookie_name(headers: Headers) -> str:
    """One per port: browsers share the cookies of a host among all of its ports."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"computeragent_desk_{port}" if port.isdigit() else "computeragent_desk"


def _asking(send: Send) -> Send:
    """Where the gate says who are you, a person gets a page that asks for the token."""
    asks = False

    async def sending(message: Message) -> None:
        nonlocal asks
        if message["type"] == "http.response.start" and message["status"] == 401:
            asks = True
            body = render("enter.html")
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            headers += [(b"cache-control", b"no-store"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif not asks:
            await send(message)

    return sending


async def _deny(error: ComputerAgentError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket: with its reason where the server can say one."""
    await receive()  # websocket.connect
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await respond(error)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})
