"""A desktop for the tests of a file, and Chromium on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from computeragent.computer.x11 import X11Computer

from .chromium_page import ChromiumPage, chromium_on


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desktop(anyio_backend: str) -> AsyncIterator[X11Computer]:
    async with await X11Computer.start() as computer:
        yield computer


@pytest.fixture(scope="module")
async def chromium(desktop: X11Computer) -> AsyncIterator[ChromiumPage]:
    async with chromium_on(desktop) as page:
        yield page


@pytest.fixture
async def page(chromium: ChromiumPage) -> ChromiumPage:
    await chromium.fresh()
    return chromium
