"""Questions to a policy service: one small JSON answer over a kept connection, or a fault that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.lowlevel import current_token

from computeragent.discovery import unlogged, without_credentials
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.policy.breaker import Breaker
from computeragent.policy.types import FailMode, PolicyResult, denied_by_fault

LARGEST = 1024 * 1024
"""Bytes that an answer may have."""

_AWAY = frozenset({408, 429, 502, 503, 504})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_log = Logger("policy")


class PolicyFaultError(Exception):
    """A policy service did not give an answer. `away` says that it is not there, rather than set up wrongly."""

    def __init__(self, code: str, reason: str, *, away: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.away = away

    def denial(self, engine: str, fail_mode: FailMode) -> PolicyResult:
        """The result that this fault is."""
        return denied_by_fault(engine, self.code, self.reason, fail_mode=fail_mode if self.away else "deny")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    data: bytes


class PolicyService:
    """The HTTP side of an engine.

    Connections are kept, for each event loop its own. Redirects are not followed, and neither headers nor bodies are
    ever logged. `client` may be an `AsyncClient` of httpx2, or of httpx; whoever gives it closes it.
    """

    def __init__(
        self,
        base: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        client: Any = None,
        socket: str | None = None,
        largest: int = LARGEST,
        breaker: Breaker | None = None,
    ) -> None:
        self.base = checked_base(base)
        self.place = socket or without_credentials(base)
        self.breaker = breaker or Breaker()
        self._timeout = checked_timeout(timeout)
        self._headers = checked_headers(headers or {})
        self._given = client
        self._socket = socket
        self._largest = largest
        self._clients: dict[object, Any] = {}

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Send a request and read the whole answer, within the timeout. Raises `PolicyFaultError`."""
        wait, began = self.breaker.start(lease=self._timeout)
        if wait:
            reason = f"{self.place} failed {self.breaker.failures} times in a row and is asked again in {wait:.1f} s"
            raise PolicyFaultError("POLICY_UNAVAILABLE", reason, away=True)
        try:
            reply = await self._ask_twice(method, self.base + path, body)
        except PolicyFaultError as fault:
            if fault.away:
                self.breaker.failed(began)
            raise
        if reply.status in _AWAY:
            self.breaker.failed(began)
        else:
            self.breaker.succeeded()
        return reply

    def refusal(self, status: int, hint: str = "") -> PolicyFaultError:
        """The fault that a status which is no answer stands for."""
        said = f"{self.place} answered HTTP {status}"
        if 300 <= status < 400:
            return PolicyFaultError("POLICY_UNAVAILABLE", f"{said}: redirects are not followed, so give the final URL")
        if status in {401, 403, 407}:
            return PolicyFaultError("POLICY_UNAVAILABLE", f"{said}: check the credentials that it is asked with")
        if status == 500:
            return PolicyFaultError("POLICY_ERROR", f"{said}: the policy failed there; its log says why")
        return PolicyFaultError("POLICY_UNAVAILABLE", said + (f": {hint}" if hint else ""), away=status in _AWAY)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        mine = self._clients.pop(_this_loop(), None)
        self._clients.clear()
        if mine is not None:
            await mine.aclose()

    async def _ask_twice(self, method: str, url: str, body: bytes | None) -> Reply:
        """A kept connection may end just as it is used again: then the question is asked on a new one."""
        try:
            with anyio.fail_after(self._timeout):
                try:
                    return await self._exchange(method, url, body)
                except Exception as error:
                    if not _was_dropped(error):
                        raise
                    return await self._exchange(method, url, body)
        except PolicyFaultError:
            raise
        except Exception as error:  # noqa: BLE001 - clients are given from outside: whatever they raise is a fault
            raise self._fault(error) from None

    async def _exchange(self, method: str, url: str, body: bytes | None) -> Reply:
        client = self._client()
        with unlogged():
            async with client.stream(
                method, url, content=body, headers=self._headers, follow_redirects=False, timeout=None
            ) as response:
                data = bytearray()
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) > self._largest:
                        reason = f"the answer of {self.place} has more than {self._largest} bytes"
                        raise PolicyFaultError("POLICY_MALFORMED", reason)
                return Reply(response.status_code, bytes(data))

    def _fault(self, error: Exception) -> PolicyFaultError:
        kinds = {kind.__name__ for kind in type(error).__mro__}  # of httpx2, or of httpx
        if kinds & {"TimeoutError", "TimeoutException"}:
            reason = f"{self.place} did not answer within {self._timeout:g} s"
            return PolicyFaultError("POLICY_TIMEOUT", reason, away=True)
        if "RemoteProtocolError" in kinds and not _was_dropped(error):
            return PolicyFaultError("POLICY_MALFORMED", f"what {self.place} sent is no whole HTTP answer")
        if kinds & {"TransportError", "OSError"}:
            reason = f"{self.place} cannot be reached: {type(error).__name__}"
            return PolicyFaultError("POLICY_UNAVAILABLE", reason, away=True)
        _log.error("request_failed", place=self.place, error=type(error).__name__)
        return PolicyFaultError("POLICY_ERROR", f"{self.place} could not be asked: {type(error).__name__}")

    def _client(self) -> Any:
        """The client of this event loop: connections cannot move from one to another."""
        if self._given is not None:
            return self._given
        loop = _this_loop()
        client = self._clients.get(loop)
        if client is None:
            for other in list(self._clients):  # loops that have ended leave connections behind
                is_closed: Any = getattr(other, "is_closed", None)
                if is_closed is None or is_closed():
                    self._clients.pop(other, None)
            client = self._clients[loop] = self._new_client()
        return client

    def _new_client(self) -> Any:
        import httpx2

        parts = urlsplit(self.base)
        nearby = self._socket is not None or parts.hostname in _LOOPBACK
        transport = httpx2.AsyncHTTPTransport(uds=self._socket) if self._socket is not None else None
        return httpx2.AsyncClient(
            transport=transport,
            verify=not (nearby and parts.scheme == "http"),  # to load certificates takes long
            trust_env=not nearby,  # a proxy cannot reach this machine for us
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60.0),
        )


def checked_fail_mode(engine: str, fail_mode: FailMode) -> FailMode:
    """The fail mode of a service. Says so loudly where it lets calls pass unjudged. Raises `ValidationError`."""
    if known_fail_mode(fail_mode) == "allow":
        _log.warn("fails_open", engine=engine, hint="while the policy engine is away, every tool call is allowed")
    return fail_mode


def known_fail_mode(fail_mode: FailMode) -> FailMode:
    """A fail mode. Raises `ValidationError`."""
    if fail_mode not in ("deny", "allow"):
        raise ValidationError(f"fail_mode cannot be {fail_mode!r}", hint="Use 'deny' or 'allow'.")
    return fail_mode


def checked_base(url: str) -> str:
    """A base URL without a trailing slash. Raises `ValidationError`, which does not repeat the URL's secrets."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):
        good, parts = False, None
    if not good or parts is None or parts.query or parts.fragment:
        raise ValidationError("the policy engine's URL is not an absolute http(s) URL", hint="Such as http://opa:8181.")
    return url.rstrip("/")


def checked_timeout(timeout: float) -> float:
    """A timeout in seconds. Raises `ValidationError`."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise ValidationError("timeout must be a positive number of seconds")
    return float(timeout)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers for every request. Raises `ValidationError`, which does not repeat their values."""
    for name, value in headers.items():
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not name.isascii():
            raise ValidationError(f"the header {name!r} cannot be sent", hint="A header is plain ASCII on one line.")
    return {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity", **headers}


def _was_dropped(error: Exception) -> bool:
    """Whether the connection ended in place of an answer."""
    kind = type(error).__name__
    if kind == "RemoteProtocolError":
        return "disconnected" in str(error)
    return kind in {"ReadError", "WriteError"}


def _this_loop() -> object:
    token = current_token()
    return getattr(token, "native_token", token)
