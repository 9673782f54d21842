"""An ingest server on loopback for tests: it checks the wire exactly, and can be told to fail in many ways."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/agentos/api/ingest/events"
KINDS = {
    "session_started",
    "turn_started",  # the published package sends it too; servers skip it
    "user_message",
    "assistant_message",
    "system_message",
    "tool_use",
    "tool_result",
    "usage_snapshot",
    "session_ended",
    "policy_decision",
}
_KEYS = ["event_id", "kind", "session_id", "agent_id", "timestamp", "agent_name", "agent_description", "host"]


@dataclass(frozen=True)
class Answer:
    """What to say. `hang` says nothing until the server stops; `lose` takes the events and cuts the connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    delay: float = 0.0
    hang: bool = False
    lose: bool = False


@dataclass(frozen=True)
class Asked:
    """A request: the how-manieth it is (from 1), its headers, its body's size on the wire, and its events."""

    number: int
    headers: dict[str, str]
    size: int
    events: list[dict[str, Any]]

    @property
    def compressed(self) -> bool:
        return self.headers.get("content-encoding") == "gzip"


Behaviour = Callable[[Asked], Answer]


def healthy(asked: Asked) -> Answer:
    return Answer()


def always(status: int, **headers: str) -> Behaviour:
    return lambda _: Answer(status, {name.replace("_", "-"): value for name, value in headers.items()})


def first(count: int, status: int) -> Behaviour:
    """This status to the first requests."""
    return lambda asked: Answer(status) if asked.number <= count else Answer()


def between(start: int, end: int, status: int) -> Behaviour:
    """This status to the requests from `start` to `end`, both counted in."""
    return lambda asked: Answer(status) if start <= asked.number <= end else Answer()


def alternate(status: int, **headers: str) -> Behaviour:
    """This status to every other request, the first one included."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: Answer(status, named) if asked.number % 2 else Answer()


def black_hole(asked: Asked) -> Answer:
    return Answer(hang=True)


def slow(seconds: float) -> Behaviour:
    return lambda _: Answer(delay=seconds)


def largest(octets: int) -> Behaviour:
    """413 to bodies that are larger on the wire."""
    return lambda asked: Answer(413) if asked.size > octets else Answer()


def poisoned(asked: Asked) -> Answer:
    """400 to every request with an event whose payload says ``poison``."""
    return Answer(400) if any(one["payload"].get("poison") for one in asked.events) else Answer()


class Ingest:
    """The server. `taken` is every event of every request answered with 200, in order, repeats included."""

    def __init__(self, behave: Behaviour = healthy, *, token: str | None = None) -> None:
        self.behave = behave
        self.token = token
        self.asked: list[Asked] = []
        self.taken: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._released = threading.Event()
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was taken, without repeats, as the server keeps it."""
        return list({one["event_id"]: one for one in reversed(self.taken)}.values())[::-1]

    @property
    def repeats(self) -> int:
        return len(self.taken) - len(self.events)

    def numbers(self, session: str) -> list[int]:
        """The numbers of a session's events in the order of their first arrival."""
        seen: dict[str, int] = {}
        for one in self.taken:
            if one["session_id"] == session and "number" in one["payload"]:
                seen.setdefault(one["event_id"], one["payload"]["number"])
        return list(seen.values())

    def start(self) -> None:
        """Listen; on the same port as before."""
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections: whoever comes is refused."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._released.set()  # now that nobody hears an answer any more

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *failed: object) -> None:
        self.stop()
        if failed[0] is None:
            assert self.complaints == []

    def answer(self, headers: dict[str, str], path: str, body: bytes) -> Answer:
        events, wrong = self._checked(headers, path, body)
        with self._lock:
            asked = Asked(len(self.asked) + 1, headers, len(body), events)
            self.asked.append(asked)
            if wrong:
                self.complaints.append(wrong)
                return Answer(400)
            said = self.behave(asked)
            if said.status == 200 and not said.hang and said.body is None:
                self.taken.extend(events)
        if said.hang:
            self._released.wait()
        elif said.delay:
            self._released.wait(said.delay)
        if said.body is None and said.status == 200:
            counts = {"ok": True, "ingested": len(events), "skipped": 0}
            return Answer(said.status, said.headers, json.dumps(counts).encode(), lose=said.lose)
        return said

    def _checked(self, headers: dict[str, str], path: str, body: bytes) -> tuple[list[dict[str, Any]], str]:
        if path != PATH:
            return [], f"path {path}"
        if headers.get("content-type") != "application/json":
            return [], f"content-type {headers.get('content-type')}"
        if headers.get("authorization") != (f"Bearer {self.token}" if self.token else None):
            return [], "authorization"
        encoding = headers.get("content-encoding")
        if encoding not in {None, "gzip"}:
            return [], f"content-encoding {encoding}"
        document = json.loads(gzip.decompress(body) if encoding == "gzip" else body)
        if list(document) != ["events"] or not isinstance(document["events"], list):
            return [], f"body {document!r:.200}"
        events: list[dict[str, Any]] = document["events"]
        if len(events) > 500:
            return [], f"{len(events)} events in a request"
        wrong = [f"{complaint}: {event!r:.300}" for event in events if (complaint := _odd(event))]
        return events, "; ".join(wrong)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)


def _odd(event: dict[str, Any]) -> str:
    """What is wrong with an event, if anything."""
    if sorted(event) != sorted([*_KEYS, "payload"]):
        return f"keys {sorted(event)}"
    if not re.fullmatch(r"[0-9a-f]{32}", str(event["event_id"])):
        return "event_id"
    if event["kind"] not in KINDS:
        return "kind"
    for name in ("session_id", "host"):
        if not isinstance(event[name], str) or not event[name]:
            return name
    for name in ("agent_id", "agent_name", "agent_description"):
        if event[name] is not None and not isinstance(event[name], str):
            return name
    if datetime.fromisoformat(event["timestamp"]).utcoffset() != timedelta(0):
        return "timestamp"
    return "" if isinstance(event["payload"], dict) else "payload"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], ingest: Ingest) -> None:
        self.ingest = ingest
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.ingest.opened(self.request)
        super().setup()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.server.ingest.closed(self.request)

    def do_POST(self) -> None:
        ingest = self.server.ingest
        body = self.rfile.read(int(self.headers["content-length"]))
        said = ingest.answer({name.lower(): value for name, value in self.headers.items()}, self.path, body)
        if said.hang or said.lose:
            self.close_connection = True
            return
        text = said.body if said.body is not None else b'{"error":{"code":"TOLD_TO","message":"as told"}}'
        self.send_response(said.status)
        for name, value in {"content-type": "application/json", **said.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Tests need no access log."""


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a state that is bound to come."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.005)
