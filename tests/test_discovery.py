"""Discovery: where AgentOS is, asked for once, and nothing but a feature that is off when it cannot be had."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from computeragent import discovery

KEY = "cak_" + "5ecret" * 8


class Site(ThreadingHTTPServer):
    """Serves one document and remembers who asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b"{}"
        self.names()
        super().__init__(("127.0.0.1", 0), _Page)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/agentos/api/discovery"

    def names(self, **endpoints: Any) -> None:
        self.body = json.dumps({"endpoints": endpoints}).encode()


class _Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        """Tests need no access log."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    for name in list(os.environ):
        if name.startswith("AGENTOS_") or name == "COMPUTERAGENT_HARNESS_TOKEN":
            monkeypatch.delenv(name)
    discovery.forget()
    with Site() as made:
        monkeypatch.setenv("AGENTOS_DISCOVERY_URL", made.url)
        yield made
        made.shutdown()
    discovery.forget()


def test_the_document_names_the_endpoints_and_is_read_once(site: Site) -> None:
    site.names(ingest="https://h/agentos/api/ingest/events", api="https://h/agentos/api/v1/", otel="https://h/otel//")
    assert not discovery.known()
    for _ in range(3):
        assert discovery.endpoint("ingest") == "https://h/agentos/api/ingest/events"
        assert discovery.endpoint("api") == "https://h/agentos/api/v1"
        assert discovery.endpoint("otel") == "https://h/otel"
    assert discovery.known()
    assert len(site.asked) == 1
    assert site.asked[0]["accept"] == "application/json"


def test_many_threads_that_ask_at_once_make_one_request(site: Site) -> None:
    site.names(api="https://h/v1")
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(discovery.endpoint("api"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == ["https://h/v1"] * 16
    assert len(site.asked) == 1


def test_a_variable_wins_over_the_document_which_is_not_asked_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.names(ingest="https://h/ingest", api="https://h/v1")
    monkeypatch.setenv("AGENTOS_INGEST_URL", " https://mine/ingest/ ")
    assert discovery.configured("ingest")
    assert discovery.endpoint("ingest") == "https://mine/ingest"
    assert site.asked == []
    assert discovery.endpoint("api") == "https://h/v1"


def test_nothing_is_configured_by_default(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "  "):
        if value is None:
            monkeypatch.delenv("AGENTOS_DISCOVERY_URL")
        else:
            monkeypatch.setenv("AGENTOS_DISCOVERY_URL", value)
        assert not discovery.configured("api")
        assert discovery.endpoint("api") is None
        assert not discovery.known()


def test_a_failure_is_remembered_for_a_while_and_then_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.names(api="https://h/v1")
    site.status = 503
    for _ in range(5):
        assert discovery.endpoint("api") is None
    assert len(site.asked) == 1
    assert caplog.text.count("unavailable") == 1
    site.status = 200
    assert discovery.endpoint("api") is None
    later = discovery.time.monotonic() + discovery.RETRY_AFTER + 1
    monkeypatch.setattr(discovery.time, "monotonic", lambda: later)
    assert discovery.endpoint("api") == "https://h/v1"


ODD: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "a text": b'"endpoints"',
    "null": b"null",
    "no endpoints": b"{}",
    "endpoints are a list": b'{"endpoints":["https://h/v1"]}',
    "endpoints are null": b'{"endpoints":null}',
    "deep": b'{"endpoints":' + b"[" * 100_000,
    "no UTF-8": b'{"endpoints":{"api":"\xff"}}',
    "huge": b'{"endpoints":{"api":"https://h/' + b"x" * 2_000_000 + b'"}}',
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_document_is_none(site: Site, name: str) -> None:
    site.body = ODD[name]
    assert discovery.endpoint("api") is None
    assert not discovery.known()


@pytest.mark.parametrize(
    "odd", [5, None, True, "", "ftp://h/x", "h/x", "/v1", "http://", "http://[", "http://h:x/", []]
)
def test_an_odd_endpoint_is_not_there_and_spoils_no_other(site: Site, odd: Any) -> None:
    site.names(api="https://h/v1", ingest=odd)
    assert discovery.endpoint("ingest") is None
    assert discovery.endpoint("api") == "https://h/v1"


@pytest.mark.parametrize("status", [201, 301, 401, 404, 500])
def test_another_status_is_a_failure_and_redirects_are_not_followed(site: Site, status: int) -> None:
    site.names(api="https://h/v1")
    site.status = status
    site.headers = {"location": site.url}
    assert discovery.endpoint("api") is None
    assert len(site.asked) == 1


def test_a_server_that_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    for url in ("http://127.0.0.1:1/x", "nonsense", "http://[/", "file:///etc/passwd", "http://h:port/"):
        monkeypatch.setenv("AGENTOS_DISCOVERY_URL", url)
        assert discovery.endpoint("api") is None


def test_a_document_that_trickles_in_is_given_up(
    monkeypatch: pytest.MonkeyPatch, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.names(api="https://h/v1")
    monkeypatch.setattr(discovery, "TIMEOUT", 5.0)
    seconds = iter(range(0, 10_000, 6))  # every look at the clock is six seconds later
    monkeypatch.setattr(discovery.time, "monotonic", lambda: float(next(seconds)))
    assert discovery.endpoint("api") is None
    assert "takes too long" in caplog.text


# ── The key ──


def test_the_key_has_two_names_and_goes_to_loopback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert discovery.agent_key() is None
    monkeypatch.setenv("AGENTOS_INGEST_TOKEN", "cak_older")
    assert discovery.agent_key() == "cak_older"
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", f"{KEY}\n")
    assert discovery.agent_key() == KEY
    discovery.endpoints()
    assert site.asked[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://example.test/d", True),
        ("http://localhost:9/d", True),
        ("http://[::1]:9/d", True),
        ("http://example.test/d", False),
        ("http://127.0.0.1.example.test/d", False),
        ("http://localhost@example.test/d", False),
    ],
)
def test_the_key_goes_nowhere_in_the_clear(monkeypatch: pytest.MonkeyPatch, site: Site, url: str, sent: bool) -> None:
    headers: list[dict[str, str]] = []

    def stream(method: str, url: str, **options: Any) -> Any:
        headers.append(options["headers"])
        raise OSError("not in a test")

    monkeypatch.setattr(httpx2, "stream", stream)
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", KEY)
    monkeypatch.setenv("AGENTOS_DISCOVERY_URL", url)
    assert discovery.endpoints() == {}
    assert [("authorization" in each) for each in headers] == [sent]


@pytest.mark.parametrize("odd", ["a\nb", "\x00", "\N{SNOWMAN}"])
def test_a_key_that_no_header_can_carry_is_not_quoted(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, odd: str
) -> None:
    monkeypatch.setattr(discovery, "agent_key", lambda: KEY + odd + KEY)
    discovery.endpoints()
    assert "5ecret" not in caplog.text


def test_a_password_in_the_address_is_not_logged(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.status = 500
    monkeypatch.setenv("AGENTOS_DISCOVERY_URL", site.url.replace("://", "://user:pa55@") + "?key=qu3ry")
    assert discovery.endpoints() == {}
    assert "unavailable" in caplog.text
    assert "pa55" not in caplog.text
    assert "qu3ry" not in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@h:8443/a/b/?k=v#f", "https://h:8443/a/b"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("https://h", "https://h"),
        ("http://[", "an invalid URL"),
        ("http://u:p@h:port/", "an invalid URL"),
        ("", "://"),
    ],
)
def test_addresses_in_logs_have_no_credentials(url: str, shown: str) -> None:
    assert discovery.without_credentials(url).rstrip("/") == shown.rstrip("/")


def test_a_fork_while_another_thread_asks_does_not_block_the_child(site: Site) -> None:
    site.names(api="https://h/v1")
    with discovery._lock:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if discovery.endpoint("api") == "https://h/v1" else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
