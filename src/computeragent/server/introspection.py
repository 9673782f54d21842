"""`introspect`: bearer tokens that a control plane knows, such as AgentOS's ``cak_`` keys (RFC 7662 in spirit)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2

from computeragent.discovery import unlogged, without_credentials
from computeragent.errors import InsufficientPermissionError, ValidationError
from computeragent.logs import Logger
from computeragent.server.auth import Authenticate, Principal
from computeragent.wire.encoding import from_json

TIMEOUT = 3.0
ACTIVE_FOR = 30.0
"""Seconds that a token is trusted without asking again; so long may a revoked one still work."""
REFUSED_FOR = 5.0
REMEMBERED = 1024
PERMISSION = "agents:run"
_EVERYTHING = "*"
_LARGEST = 64 * 1024
_LONGEST_TOKEN = 4096
_log = Logger("server")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was said of a token: who it is and whether it may run agents, or nobody."""

    principal: Principal | None
    permitted: bool
    until: float  # on the monotonic clock


@dataclass(slots=True)
class _Introspection:
    url: str
    secret: str = field(repr=False)
    permission: str
    verdicts: OrderedDict[bytes, _Verdict] = field(default_factory=OrderedDict[bytes, _Verdict])
    asking: dict[bytes, asyncio.Future[_Verdict]] = field(default_factory=dict[bytes, "asyncio.Future[_Verdict]"])

    async def __call__(self, token: str) -> Principal | None:
        if not token or len(token) > _LONGEST_TOKEN or " " in token:  # a password is nobody else's to see
            return None
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        verdict = self._remembered(key) or await self._asked_once(key, token)
        if verdict.principal is not None and not verdict.permitted:
            raise InsufficientPermissionError(
                f"this key lacks the permission {self.permission}", hint="Give the key a role that has it."
            )
        return verdict.principal

    def _remembered(self, key: bytes) -> _Verdict | None:
        verdict = self.verdicts.get(key)
        if verdict is None or verdict.until <= monotonic():
            return None
        self.verdicts.move_to_end(key)
        return verdict

    async def _asked_once(self, key: bytes, token: str) -> _Verdict:
        """Ask; callers that come meanwhile with the same token wait for the same answer."""
        future = self.asking.get(key)
        if future is None:
            future = self.asking[key] = asyncio.ensure_future(self._ask(token))
            future.add_done_callback(lambda _: self.asking.pop(key, None))
        verdict = await asyncio.shield(future)
        self.verdicts[key] = verdict
        self.verdicts.move_to_end(key)
        while len(self.verdicts) > REMEMBERED:
            self.verdicts.popitem(last=False)
        return verdict

    async def _ask(self, token: str) -> _Verdict:
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self._post(token)
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            place = without_credentials(self.url)
            _log.warn("introspection_failed", url=place, error=type(error).__name__, hint="nobody is let in meanwhile")
            answer = dict[str, Any]()
        return self._verdict(answer)

    async def _post(self, token: str) -> Mapping[str, Any]:
        """The answer, or nothing where there is no proper one. Redirects are not followed: the token stays here."""
        headers = {"authorization": f"Bearer {self.secret}", "accept": "application/json"}
        with unlogged():
            async with (
                httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False, verify=_trusted(self.url)) as client,
                client.stream("POST", self.url, json={"key": token}, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise ValueError(f"HTTP {response.status_code}")
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise ValueError("the answer is too large")
        answer = from_json(body)
        return cast("Mapping[str, Any]", answer) if isinstance(answer, Mapping) else {}

    def _verdict(self, answer: Mapping[str, Any]) -> _Verdict:
        now = monotonic()
        principal, expires = answer.get("principal"), answer.get("exp")
        left = ACTIVE_FOR
        if isinstance(expires, (int, float)) and not isinstance(expires, bool):
            left = min(left, expires - time.time())
        if answer.get("active") is not True or not isinstance(principal, str) or not principal or left <= 0:
            return _Verdict(None, permitted=False, until=now + REFUSED_FOR)
        granted: object = answer.get("permissions")
        held = cast("list[object]", granted) if isinstance(granted, list) else []
        permitted = self.permission in held or _EVERYTHING in held
        return _Verdict(Principal(principal), permitted, until=now + left)


def _trusted(url: str) -> ssl.SSLContext | bool:
    """The certificates to trust, read from disk once; none are needed without TLS."""
    return _certificates() if url.lower().startswith("https:") else False


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def introspect(url: str, secret: str, *, permission: str = PERMISSION) -> Authenticate:
    """Tokens that the service at `url` vouches for: ``POST {"key": token}``, with `secret` as this server's own bearer.

    A token is let in when the answer says ``"active": true``, names a ``principal`` and lists `permission` (or ``*``)
    among its ``permissions``; without the permission it is refused with `InsufficientPermissionError` (403). Answers
    are remembered for `ACTIVE_FOR` seconds, refusals for `REFUSED_FOR`, and never beyond ``exp``. When the service
    cannot be asked within `TIMEOUT` seconds nobody is let in who is not remembered. Raises `ValidationError`.
    """
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_http = False
    if not is_http:
        raise ValidationError("the introspection URL must be http(s)", hint="Such as https://host/keys/introspect.")
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ValidationError(
            "introspection needs a secret of printable ASCII characters", hint="Set AGENTOS_INTROSPECTION_SECRET."
        )
    return _Introspection(url, secret, permission)


def secret_of_environment() -> str:
    """This server's own secret: ``AGENTOS_INTROSPECTION_SECRET``, or the file that ``…_SECRET_FILE`` names."""
    secret = os.environ.get("AGENTOS_INTROSPECTION_SECRET", "").strip()
    path = os.environ.get("AGENTOS_INTROSPECTION_SECRET_FILE", "").strip()
    if secret or not path:
        return secret
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(
            f"the file of AGENTOS_INTROSPECTION_SECRET_FILE cannot be read: {type(error).__name__}",
            hint="Name a file that this account may read and that holds nothing but the secret.",
        ) from error


def any_of(*ways: Authenticate) -> Authenticate:
    """Whoever one of these knows, asked in order."""

    async def authenticate(token: str) -> Principal | None:
        for way in ways:
            principal = await way(token)
            if principal is not None:
                return principal
        return None

    return authenticate
