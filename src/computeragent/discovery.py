"""Where AgentOS is: a variable for each endpoint, else the discovery document, fetched once.

The document is public and names absolute URLs: ``{"endpoints": {"ingest": …, "api": …, "otel": …}}``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from computeragent.logs import Logger

Endpoint = Literal["ingest", "api", "otel"]

TIMEOUT = 5.0
RETRY_AFTER = 60.0
"""Seconds that a failure is remembered, so that an outage does not cost every caller the timeout."""
_LARGEST = 1_000_000
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_log = Logger("discovery")
_lock = threading.Lock()
_found: dict[str, dict[str, str]] = {}
_failed_at: dict[str, float] = {}
_not_logged: ContextVar[bool] = ContextVar("computeragent_request_not_logged", default=False)


def agent_key() -> str | None:
    """The ``cak_`` key for every AgentOS endpoint: ``COMPUTERAGENT_HARNESS_TOKEN``, or the older name of it."""
    for name in ("COMPUTERAGENT_HARNESS_TOKEN", "AGENTOS_INGEST_TOKEN"):
        if key := os.environ.get(name, "").strip():
            return key
    return None


def document_url() -> str | None:
    """The address of the discovery document, where one is configured."""
    return os.environ.get("AGENTOS_DISCOVERY_URL", "").strip() or None


def override(name: Endpoint) -> str | None:
    """The variable of an endpoint, such as ``AGENTOS_INGEST_URL``, which wins over the document."""
    return os.environ.get(_variable(name), "").strip().rstrip("/") or None


def configured(name: Endpoint) -> bool:
    """Whether an endpoint may be known: looks at the environment alone."""
    return bool(override(name) or document_url())


def endpoint(name: Endpoint) -> str | None:
    """The URL of an endpoint, without a trailing slash; None when it is not configured, not named or not to be had.

    May block for `TIMEOUT` seconds. What was found stays for the life of the process.
    """
    return override(name) or endpoints().get(name)


def endpoints() -> dict[str, str]:
    """What the discovery document names; empty while there is none."""
    url = document_url()
    if url is None:
        return {}
    with _lock:
        if url in _found:
            return _found[url]
        if time.monotonic() - _failed_at.get(url, -RETRY_AFTER) < RETRY_AFTER:
            return {}
        try:
            _found[url] = _fetch(url)
        except Exception as error:  # noqa: BLE001 - an endpoint that cannot be found is a feature that is off
            _failed_at[url] = time.monotonic()
            hint = "check AGENTOS_DISCOVERY_URL; it is tried again in a minute"
            reason = str(error).replace(agent_key() or "\0", "***")  # clients quote headers that they do not like
            _log.warn("unavailable", error=f"{type(error).__name__}: {reason}", hint=hint)
            return {}
        return _found[url]


def known() -> bool:
    """Whether the discovery document was read, so that an endpoint that it does not name is not there."""
    return (document_url() or "") in _found


def forget() -> None:
    """Ask anew next time."""
    with _lock:
        _found.clear()
        _failed_at.clear()


def without_credentials(url: str) -> str:
    """A URL fit for logs: no user, password, query or fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an invalid URL"
    place = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}{f':{port}' if port else ''}{parts.path}".rstrip("/")


@contextmanager
def unlogged() -> Generator[None]:
    """Requests made in here are not logged by the HTTP client: it writes addresses down with all that they carry."""
    logging.getLogger("httpx2").addFilter(_ours_left_out)
    token = _not_logged.set(True)
    try:
        yield
    finally:
        _not_logged.reset(token)


def _ours_left_out(_: logging.LogRecord) -> bool:
    return not _not_logged.get()


def _variable(name: Endpoint) -> str:
    return f"AGENTOS_{name.upper()}_URL"


def _fetch(url: str) -> dict[str, str]:
    import httpx2

    headers = {"accept": "application/json"}
    key = agent_key()
    parts = urlsplit(url)
    if key and key.isascii() and key.isprintable() and (parts.scheme == "https" or parts.hostname in _LOOPBACK):
        headers["authorization"] = f"Bearer {key}"
    until = time.monotonic() + TIMEOUT
    with unlogged(), httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        if response.status_code != 200:
            raise ValueError(f"HTTP {response.status_code} from {without_credentials(url)}")
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _LARGEST:
                raise ValueError(f"the document at {without_credentials(url)} is too large")
            if time.monotonic() > until:
                raise TimeoutError(f"the document at {without_credentials(url)} takes too long")
    from computeragent.wire.encoding import from_json

    document = from_json(body)
    named: Any = cast("Mapping[str, Any]", document).get("endpoints") if isinstance(document, Mapping) else None
    if not isinstance(named, Mapping):
        raise TypeError(f"the document at {without_credentials(url)} has no object `endpoints`")
    return {
        str(name): value.rstrip("/")
        for name, value in cast("Mapping[str, Any]", named).items()
        if isinstance(value, str) and _is_http(value)
    }


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _start_afresh() -> None:
    """In a forked child: a thread that held the lock while it fetched is not there any more to let it go."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)
