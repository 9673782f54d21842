"""Sessions that nobody uses any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .conftest import folders, serving

pytestmark = pytest.mark.anyio


async def test_a_session_whose_client_has_vanished_is_ended_and_freed(tmp_path: Path, state_folder: Path) -> None:
    async with serving(tmp_path, session_ttl=0.3) as server:
        idle = await server.open([{"text": "x"}])
        assert folders(state_folder, idle)
        busy = await server.open([{"text": "x"}, {"delay": 1.5}, {"text": "late"}])
        await server.say(busy, "go")
        while (await server.client.get("/v1/sessions")).json()["sessions"][-1]["sessionId"] == idle:
            await asyncio.sleep(0.05)
        assert (await server.client.get(f"/v1/sessions/{idle}")).status_code == 404
        assert not folders(state_folder, idle)
        found = await server.events(busy, lambda event: "late" in str(event))
        assert "late" in str(found[-1])


async def test_a_session_that_somebody_watches_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, session_ttl=0.2) as server:
        session = await server.open([{"text": "x"}])
        watching = asyncio.create_task(server.events(session, lambda event: event["kind"] == "ca_turn_started"))
        await asyncio.sleep(0.8)
        await server.say(session, "still there?")
        assert (await watching)[-1]["kind"] == "ca_turn_started"
