"""What the tests of the sinks share: short pauses, and an environment that names no server."""

from __future__ import annotations

import pytest

from computeragent.telemetry import shipping
from computeragent.telemetry.sinks import agentos as module


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(module, "NOT_ALLOWED_PAUSE", 0.02)
    for name in ("AGENTOS_INGEST_URL", "AGENTOS_DISCOVERY_URL", "COMPUTERAGENT_HARNESS_TOKEN", "AGENTOS_INGEST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
