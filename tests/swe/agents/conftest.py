"""The programs of agents come from the machine's own cache, which CI fills before; no registry is asked."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from computeragent.artifacts import listed

_HOME = os.environ.get("COMPUTERAGENT_HOME")


@pytest.fixture(scope="session")
def machine_cache() -> Generator[None]:
    """The settings of this machine, offline."""
    with pytest.MonkeyPatch.context() as patch:
        _use(patch)
        yield


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's cache, in one test."""
    _use(monkeypatch)


def _use(patch: pytest.MonkeyPatch) -> None:
    if _HOME is None:
        patch.delenv("COMPUTERAGENT_HOME", raising=False)
    else:
        patch.setenv("COMPUTERAGENT_HOME", _HOME)
    patch.setenv("COMPUTERAGENT_OFFLINE", "1")


def need(*names: str) -> None:
    """Without an agent's program its tests show nothing: in CI that is a failure."""
    missing = [name for name in names if not listed(name)]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not in the cache: {', '.join(missing)} (computeragent artifacts prefetch)")
