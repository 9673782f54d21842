"""A view on a real socket, and a real browser to look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from computeragent.computer.browser.program import find_chromium
from computeragent.desk.view import create_view_server
from loopback import loopback

TOKEN = "a-token-of-the-tests"


@asynccontextmanager
async def viewing(open_: Any, **settings: Any) -> AsyncIterator[str]:
    """A view of a computer; its URL."""
    async with loopback(create_view_server(open_, **{"token": TOKEN, "fps": 50.0, **settings})) as url:
        yield url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=find_chromium(None), args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        await started.close()
