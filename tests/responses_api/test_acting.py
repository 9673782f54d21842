"""What is asked for really happens: the page in the browser says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from computeragent.p2p import Peer, PeerOptions
from computeragent.responses import create_responses_server
from computeragent.responses.peers import PeerChoice
from loopback import loopback

from .conftest import MODELS, TEXT, Service
from .test_seed import free_port

pytestmark = pytest.mark.anyio


def assert_filled_in(service: Service) -> None:
    page = service.page
    assert page.value == TEXT
    assert any(event["key"] == "a" and event["ctrl"] for event in page.of("keydown"))
    down, up = (page.of(kind)[-1] for kind in ("mousedown", "mouseup"))
    assert (up["x"] - down["x"], up["y"] - down["y"]) == (200, 50)
    assert page.of("scroll")[-1]["y"] == 240


@pytest.mark.parametrize("model", MODELS)
async def test_a_task_is_done_on_the_page_for_every_wire(service: Service, model: str) -> None:
    result = await service.ask("Please fill in the form", model)
    await service.page.until(lambda: service.page.of("scroll") and service.page.of("scroll")[-1]["y"] == 240)
    assert_filled_in(service)
    assert (result["status"], result["output_text"]) == ("completed", "All is filled in.")
    calls = [item["action"]["type"] for item in result["output"] if item["type"] == "computer_call"]
    assert calls == ["screenshot", "click", "type", "keypress", "drag", "scroll"]
    pictures = [item["output"]["image_url"] for item in result["output"] if item["type"] == "computer_call_output"]
    assert len(pictures) == 6
    assert all(picture.startswith("data:image/") for picture in pictures)
    assert result["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_tells_it_as_it_happens(service: Service, model: str) -> None:
    events = await service.stream("Please fill in the form", model)
    await service.page.until(lambda: service.page.of("scroll") and service.page.of("scroll")[-1]["y"] == 240)
    assert_filled_in(service)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == "All is filled in."
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_task_is_done_over_webrtc(service: Service, model: str) -> None:
    options = PeerOptions(port=free_port(), secret="shared")
    app = create_responses_server(peer=PeerChoice(peer_id="desk", options=options, welcome=False))
    async with loopback(app), Peer(options=replace(options, secret=None)) as peer:
        connection = peer.connect("desk", metadata={"secret": "shared"})
        await connection.send(service.body("Please fill in the form", model))
        answer = await anext(aiter(connection))
    assert answer["success"], answer
    await service.page.until(lambda: service.page.of("scroll") and service.page.of("scroll")[-1]["y"] == 240)
    assert_filled_in(service)
    pictures = [item for item in answer["result"]["output"] if item["type"] == "computer_call_output"]
    assert len(pictures) == 6
