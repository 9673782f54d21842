"""Inspect's own conformance suite, on both providers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import anyio
import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox import self_check
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from tests.swe.sandboxes.conftest import KINDS, PROVIDERS

from computeragent.swe.sandboxes import SandboxConfig
from computeragent.swe.sandboxes.supervised import SupervisedSandbox

Sandbox = tuple[str, SupervisedSandbox]

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


@pytest.fixture(scope="module", params=PROVIDERS)
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPUTERAGENT_HOME", str(tmp_path_factory.mktemp("home")))
        sandbox = await KINDS[request.param].start(SandboxConfig())
    yield request.param, sandbox
    await sandbox.close()


@pytest.fixture
async def sandbox_env(
    request: pytest.FixtureRequest, shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> SandboxEnvironment:
    name, sandbox = shared
    if (reason := FAILS[name].get(request.node.originalname)) is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    # The suite gives a provider 5 s to tidy up after a timeout; ours has none left to do.
    monkeypatch.setattr(self_check, "anyio", SimpleNamespace(sleep=lambda _: anyio.sleep(0)))
    return sandbox
