"""Real servers of both kinds on real sockets, and a stand-in of the control plane."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from computeragent import discovery
from computeragent.server import bearer, create_harness_server
from computeragent.server.sandboxes import create_sandbox_server
from control_plane_standin import KEY, ControlPlane
from loopback import loopback

TOKEN = "a-token-of-the-tests"
SOURCE = {"type": "inline", "manifest": {"name": "tester", "version": "1.0.0"}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AGENTOS_", "COMPUTERAGENT_HARNESS", "COMPUTERAGENT_AGENT", "API_AUTH")):
            monkeypatch.delenv(name)
    discovery.forget()


@pytest.fixture
async def harness_server() -> AsyncIterator[str]:
    async with loopback(create_harness_server(auth=bearer([TOKEN]))) as url:
        yield url


@pytest.fixture
async def sandbox_server() -> AsyncIterator[str]:
    async with loopback(create_sandbox_server(auth=bearer([TOKEN]), runtimes=["local"])) as url:
        yield url


@pytest.fixture
async def plane(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ControlPlane, str]]:
    """The stand-in, configured as a user would: by its discovery document and a key."""
    made = ControlPlane()
    async with loopback(made.app()) as url:
        monkeypatch.setenv("AGENTOS_DISCOVERY_URL", f"{url}/agentos/api/discovery")
        monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", KEY)
        yield made, url
    discovery.forget()


def scripted(*turns: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    """Arguments of an agent whose engine plays a script."""
    options = {"script": list(turns)} if turns else {}
    return {"source": SOURCE, "engine": "scripted", "options": options} | given
