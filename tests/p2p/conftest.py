"""A broker for each test, and peers at it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from computeragent.p2p import BrokerOptions, PeerOptions, open_broker


@pytest.fixture
async def broker_port() -> AsyncGenerator[int]:
    async with open_broker(port=0, options=BrokerOptions(expire_after=0.3)) as port:
        yield port


class At:
    """Options of peers at a broker."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, **given: Any) -> PeerOptions:
        return PeerOptions(host="localhost", port=self.port, **given)


@pytest.fixture
def at(broker_port: int) -> At:
    return At(broker_port)
