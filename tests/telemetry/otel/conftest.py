"""No variable of the caller's environment reaches these tests, and each has a collector of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .collector import Collector, serving

_OURS = (
    "OTEL_",
    "AGENTOS_",
    "COMPUTERAGENT_OTEL",
    "COMPUTERAGENT_CAPTURE",
    "COMPUTERAGENT_MAX",
    "COMPUTERAGENT_HARNESS",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(_OURS) or name in {
            "TRACEPARENT",
            "http_proxy",
            "HTTP_PROXY",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
        }:
            monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def endpoint(collector: Collector) -> Iterator[str]:
    with serving(collector) as url:
        yield url
