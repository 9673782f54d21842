"""A backend that is not ours: Arize Phoenix, installed for the test alone, shows our traces through its own API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from computeragent.telemetry.shipping import Shipper
from computeragent.telemetry.sinks.otel import OtelSettings, OtelSink
from computeragent.telemetry.spool import Spool

from .stories import everything

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.loads(response.read())


def eventually(ask: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while True:
        try:
            found = ask()
        except OSError:
            found = None
        if found or time.monotonic() > until:
            return found
        time.sleep(0.5)


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Phoenix in a virtual environment of its own, on loopback; its base URL."""
    folder = tmp_path_factory.mktemp("phoenix")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    subprocess.run([str(folder / "venv/bin/pip"), "install", "--quiet", "arize-phoenix"], check=True)
    port = free_port()
    env = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([str(folder / "venv/bin/phoenix"), "serve"], env=env, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        assert eventually(lambda: fetched(f"{base}/v1/projects"), 180), (folder / "log").read_text("utf-8")
        yield base
    finally:
        server.terminate()
        server.wait(30)


def test_its_api_shows_our_traces(phoenix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", phoenix)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "openinference.project.name=computeragent")
    sink = OtelSink()
    sink.bind(OtelSettings(capture_content=True, capture_content_mode="attributes"))
    spool = Spool.create(tmp_path)
    spool.subscribe([sink.destination])
    shipper = Shipper(sink, lambda: [spool])
    told = everything()
    spool.append([event.data for event in told.batch()])
    assert shipper.flush(time.monotonic() + 60)
    shipper.close(time.monotonic() + 60)
    sink.close()
    spool.close()

    def shown() -> list[dict[str, Any]] | None:
        spans = fetched(f"{phoenix}/v1/projects/computeragent/spans?limit=100")["data"]
        return spans if len(spans) >= 14 else None

    spans = eventually(shown, 60)
    assert spans is not None
    by_id = {span["context"]["span_id"]: span for span in spans}
    assert len(by_id) == len(spans) == 14
    roots = [span for span in spans if span["parent_id"] is None]
    assert len({span["context"]["trace_id"] for span in roots}) == 2
    assert {span["name"] for span in roots} == {"invoke_agent reviewer"}
    assert {span["attributes"]["computeragent.usage.cost_usd"] for span in roots} == {0.5, 0.25}
    above = {span["name"]: by_id[span["parent_id"]]["name"] for span in spans if span["parent_id"]}
    assert above["execute_tool Read"] == "execute_tool Task"
    assert above["execute_tool Bash"] == "invoke_agent reviewer"
    kinds = {span["name"].partition(" ")[0]: span["span_kind"] for span in spans}
    assert kinds["invoke_agent"] == "AGENT"
    assert kinds["chat"] == "LLM"
    assert sorted(span["status_code"] for span in roots) == ["ERROR", "UNSET"]
