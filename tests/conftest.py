"""What every test gets: asyncio, a private state folder, and a clean set of registries."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a COMPUTERAGENT_HOME of its own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(home))
    monkeypatch.delenv("COMPUTERAGENT_LOG", raising=False)
    return home
