"""`AgentOSHttpSink`: events to the ingest endpoint of an AgentOS server (``POST …/ingest/events``)."""

from __future__ import annotations

import gzip
import os
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from computeragent import discovery
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.telemetry.bounds import truncate
from computeragent.telemetry.event import TelemetryEvent, decode, encode
from computeragent.telemetry.protocols import BatchLimits, RetryLater
from computeragent.telemetry.sinks.replies import Reply
from computeragent.telemetry.spool import Spooled
from computeragent.wire.encoding import to_json

if TYPE_CHECKING:
    import httpx2

DEFAULT_FLUSH_THRESHOLD = 500
DEFAULT_MAX_BUFFER_BYTES = 4_000_000
GZIP_FROM = 1_024
NOT_ALLOWED_PAUSE = 60.0
_SHORTEST = 1_000
_UNKNOWN_TO_INGEST = b'"kind":"response_first_token"'
_log = Logger("agentos")
_of_the_parent: list[httpx2.Client | None] = []


class AgentOSHttpSink:
    """Posts events in batches, from the spool, until the server has taken them.

    Args:
        url: The ingest URL. Default: ``AGENTOS_INGEST_URL``, else what discovery names.
        token: The ``cak_`` key. Default: ``COMPUTERAGENT_HARNESS_TOKEN``.
        source: Kept for the published signature; the server knows the source by itself.
        host: What the events name as their host; default: this one's name.
        flush_threshold: How many events a request carries at most (500 is what the server takes).
        max_buffer_bytes: How large its body may be, before compression.
        client: An `httpx2.Client` to use instead of one of its own.
        timeout: Seconds that a request may take.

    Each event keeps its ``event_id``, by which the server drops what it has. Where the server refuses a batch for good
    (400, 422), the event to blame is found, dropped, counted in `refused` and logged; a body that is too large is
    split. Everything else is tried again.

    """

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        source: str = "library",
        host: str | None = None,
        flush_threshold: int = DEFAULT_FLUSH_THRESHOLD,
        max_buffer_bytes: int = DEFAULT_MAX_BUFFER_BYTES,
        client: httpx2.Client | None = None,
        timeout: float = 10.0,
    ) -> None:
        del source
        if url is not None and not _is_http(url):
            raise ValidationError(
                "the ingest URL must be http(s)", hint="Such as https://host/agentos/api/ingest/events."
            )
        if url is None and not discovery.configured("ingest"):
            raise ValidationError(
                "no ingest URL is configured", hint="Pass url=, or set AGENTOS_INGEST_URL or AGENTOS_DISCOVERY_URL."
            )
        self.limits = BatchLimits(events=max(1, flush_threshold), bytes=max(_SHORTEST, max_buffer_bytes))
        self.refused = 0
        self._url = url
        self._token = (token or "").strip() or None
        self._ending = b',"host":' + to_json(host or socket.gethostname()) + b"}"
        self._timeout = timeout
        self._given = client
        self._client: httpx2.Client | None = client
        self._pid = os.getpid()
        self._compress: bool | None = None  # None: not known yet whether the server can read it
        self._off = False
        self._settled: set[bytes] = set()  # of a batch that was taken in part: what need not be sent again
        # fixed at birth: the spools know this sink by it
        where = url or discovery.override("ingest") or discovery.document_url() or ""
        self._destination = f"agentos {discovery.without_credentials(where)}"

    def __repr__(self) -> str:
        return f"AgentOSHttpSink({self.destination})"

    @property
    def destination(self) -> str:
        """Where it sends to, without credentials: the ingest URL, or the discovery document's."""
        return self._destination

    # ── Fed from a spool ──

    def open(self) -> None:
        """Make the client, without connecting."""
        self._connected()

    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None:
        """Post a batch; blocks. Raises `RetryLater`, or what the connection raised, to be called again."""
        lines = [self._fitting(event.data) for event in batch if _UNKNOWN_TO_INGEST not in event.data[:200]]
        if lines and not self._off:
            self._post(self._resolved(), [line for line in lines if line not in self._settled])
        self._settled.clear()
        return None

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None and self._given is None:
            self._client.close()
        self._client = self._given

    # ── Fed directly ──

    async def emit(self, event: TelemetryEvent) -> None:
        """Post one event now. Raises when it could not be delivered."""
        from anyio import to_thread

        await to_thread.run_sync(self.deliver, [Spooled("", 0, time.time(), encode(event))])

    async def flush(self, timeout: float = 5.0) -> None:
        """Nothing to do: nothing is kept here."""
        del timeout

    async def aclose(self) -> None:
        """Close the connections."""
        self.close()

    # ── The wire ──

    def _resolved(self) -> str:
        url = self._url or discovery.endpoint("ingest")
        if url is not None:
            return url
        if discovery.known():
            self._off = True
            _log.warn("no_ingest", hint="the discovery document names no ingest endpoint; nothing is sent")
            return ""
        raise RetryLater("the AgentOS discovery document cannot be had", after=discovery.RETRY_AFTER)

    def _post(self, url: str, lines: list[bytes]) -> None:
        if not url or not lines:
            return
        reply = self._send(url, lines)
        if reply.compressed and (reply.status == 415 or (self._compress is None and reply.status in {400, 422})):
            self._compress = False  # some say "bad request" to what they cannot unpack
            reply = self._send(url, lines)
            self._compress = None if reply.status in {400, 422} else False
        elif reply.compressed and reply.status < 300:
            self._compress = True
        place = discovery.without_credentials(url)
        if reply.status < 300:
            if reply.page:
                hint = "check the ingest URL"
                raise RetryLater(f"a web page instead of an answer from {place}: {hint}", after=NOT_ALLOWED_PAUSE)
            self._settled.update(lines)
        elif reply.status in {400, 413, 422}:
            self._isolate(url, lines, reply)
        elif reply.status in {401, 403, 404}:
            hint = "check the ingest URL" if reply.status == 404 else "check COMPUTERAGENT_HARNESS_TOKEN and its role"
            raise RetryLater(f"HTTP {reply.status} from {place}: {hint}", after=NOT_ALLOWED_PAUSE)
        else:
            raise RetryLater(f"HTTP {reply.status} from {place}", after=reply.after)

    def _isolate(self, url: str, lines: list[bytes], reply: Reply) -> None:
        """Send halves of what was refused, down to the one that is to blame."""
        if len(lines) > 1:
            half = len(lines) // 2
            self._post(url, lines[:half])
            self._post(url, lines[half:])
            return
        (line,) = lines
        smaller = self._with_host(_shortened(self._without_host(line), len(line) // 2))
        if reply.status == 413 and len(smaller) < len(line):
            self._post(url, [smaller])
            self._settled.add(line)
            return
        # Is it this event, or is it everything? Then once more: the server may just have come to its senses.
        if self._send(url, []).status >= 300:
            place = discovery.without_credentials(url)
            raise RetryLater(f"HTTP {reply.status} to everything from {place}", after=NOT_ALLOWED_PAUSE)
        again = self._send(url, lines)
        if again.status in {400, 413, 422}:
            self.refused += 1
            _log.error(
                "event_refused", status=again.status, reason=again.text[:200], **_named(self._without_host(line))
            )
        elif again.status >= 300:
            raise RetryLater(f"HTTP {again.status} from {discovery.without_credentials(url)}", after=again.after)
        self._settled.add(line)

    def _send(self, url: str, lines: list[bytes]) -> Reply:
        body = b'{"events":[' + b",".join(lines) + b"]}"
        headers = {"content-type": "application/json", "user-agent": _user_agent(), "accept-encoding": "identity"}
        token = self._token or discovery.agent_key()
        if token:
            if not (token.isascii() and token.isprintable()):  # the client would quote it in its error
                raise RetryLater("the key has characters that no header can carry", after=NOT_ALLOWED_PAUSE)
            headers["authorization"] = f"Bearer {token}"
        compressed = self._compress is not False and len(body) >= GZIP_FROM
        if compressed:
            body = gzip.compress(body, compresslevel=3)
            headers["content-encoding"] = "gzip"
        until = time.monotonic() + self._timeout
        connected = self._connected()
        with discovery.unlogged(), connected.stream("POST", url, content=body, headers=headers) as response:
            return Reply.read(response, until, compressed=compressed, secret=token)

    def _connected(self) -> httpx2.Client:
        if self._pid != os.getpid() and self._given is None:
            # connections that were open when this process was forked are the parent's to use, and to close
            _of_the_parent.append(self._client)
            self._client = None
        if self._client is None:
            import httpx2

            self._pid = os.getpid()
            self._client = httpx2.Client(timeout=self._timeout, follow_redirects=False)
        return self._client

    def _fitting(self, line: bytes) -> bytes:
        """An event as it goes into a body: with the host, and no larger than a body may be."""
        room = self.limits.bytes - len(self._ending) - 64
        return self._with_host(_shortened(line, room) if len(line) > room else line)

    def _with_host(self, line: bytes) -> bytes:
        return line[:-1] + self._ending

    def _without_host(self, line: bytes) -> bytes:
        return line[: -len(self._ending)] + b"}"


def auto_sink() -> AgentOSHttpSink | None:
    """The sink that the environment asks for, or None."""
    return AgentOSHttpSink() if discovery.configured("ingest") else None


def _shortened(line: bytes, room: int) -> bytes:
    """An event with its texts cut until it fits, or until they are short; what is none stays as it is."""
    event = _event_of(line)
    if event is None:
        return line
    longest = 32_000
    while longest >= _SHORTEST:
        event.payload = truncate(event.payload, longest)
        line = encode(event)
        if len(line) <= room:
            break
        longest //= 2
    return line


def _named(line: bytes) -> dict[str, str]:
    """Which event a line is, for the log."""
    event = _event_of(line)
    return {"kind": event.kind, "event_id": event.event_id} if event is not None else {"kind": "damaged"}


def _event_of(line: bytes) -> TelemetryEvent | None:
    """The event of a line; None for what a damaged file has in the place of one."""
    try:
        return decode(line)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _user_agent() -> str:
    return f"computer-agent-py/{metadata.version('computer-agent-py')}"
