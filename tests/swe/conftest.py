"""What evaluations leave behind is cleared away before the next test."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def _tidy() -> Generator[None]:
    yield
    _clear()


@pytest.fixture(scope="module", autouse=True)
def _tidy_module() -> Generator[None]:
    yield
    _clear()


def _clear() -> None:
    """Inspect leaves streams open, which would be complained of in somebody else's test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
