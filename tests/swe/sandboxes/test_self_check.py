"""Inspect's own conformance suite, on both providers."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox import self_check
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from tests.swe.sandboxes.conftest import PROVIDERS, Start

pytestmark = pytest.mark.anyio

FAILS = {
    "bwrap": {"test_exec_as_user": "a jail has one user"},
    "namespace": dict.fromkeys(
        [
            "test_read_file_not_allowed",
            "test_write_text_file_without_permissions",
            "test_write_binary_file_without_permissions",
        ],
        "its user is root, whom permissions do not bind; in Inspect's `local`, run by root, it is the same",
    ),
}


@pytest.fixture(params=PROVIDERS)
async def sandbox_env(
    request: pytest.FixtureRequest, start: Start, monkeypatch: pytest.MonkeyPatch
) -> SandboxEnvironment:
    if (reason := FAILS[request.param].get(request.node.originalname)) is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    # The suite gives a provider 5 s to tidy up after a timeout; ours has none left to do.
    monkeypatch.setattr(self_check, "anyio", SimpleNamespace(sleep=lambda _: anyio.sleep(0)))
    return await start(request.param)
