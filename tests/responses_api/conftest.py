"""A real `/responses` server on a real socket, the model simulator behind it, and a page that tells what happens."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from computeragent.responses import create_responses_server
from computeragent.responses.resolving import Offered
from computeragent.responses.service import Responses
from computeragent.testing.models import ModelSimulator, parse_script
from computeragent.wire.sse import SseDecoder
from loopback import loopback

from .oracle import BUTTON, FIELD, PAD, Oracle, oracle

Json = dict[str, Any]
MODELS = {
    "anthropic": "anthropic/claude-sonnet-4-5",
    "openai": "openai/computer-use-preview",
    "chat": "openrouter/some/vision-model",
}
TEXT = "Grüße 漢字 😀"
WAITS = "      - computer: {action: wait, seconds: 0.01}\n" * 200
SCRIPT = f"""
rules:
  - match: fill in
    turns:
      - computer: {{action: screenshot}}
      - computer: {{action: click, x: {FIELD[0]}, y: {FIELD[1]}}}
      - computer: {{action: type, text: "{TEXT}"}}
      - computer: {{action: keypress, keys: [ctrl, a]}}
      - computer: {{action: drag, path: [[{PAD[0]}, {PAD[1]}], [{PAD[0] + 200}, {PAD[1] + 50}]]}}
      - computer: {{action: scroll, x: {PAD[0]}, y: {PAD[1]}, dy: 240}}
      - All is filled in.
  - match: press
    turns:
      - text: I press it.
        computer: {{action: click, x: {BUTTON[0]}, y: {BUTTON[1]}}}
      - Pressed.
  - match: for ever
    turns:
{WAITS}  - match: slowly
    turns:
      - computer: {{action: wait, seconds: 30}}
      - Done.
  - match: unicorn
    turns: [There was a unicorn. It was fast. It slept.]
  - match: what is in this image
    turns: [A boardwalk.]
  - match: remember
    turns: [I will.]
"""


class Service:
    """A server, its model, and its page."""

    def __init__(self, client: httpx2.AsyncClient, simulator: ModelSimulator, page: Oracle, folder: Path) -> None:
        self.client, self.simulator, self.page, self.folder = client, simulator, page, folder
        self.responses: Responses | None = None

    @property
    def live(self) -> int:
        """Responses that are under way."""
        assert self.responses is not None
        return len(self.responses.live)

    @property
    def env(self) -> Json:
        """The keys and addresses of a request: those of the simulator."""
        url = self.simulator.url
        return {
            "ANTHROPIC_API_KEY": "key-of-anthropic",
            "ANTHROPIC_BASE_URL": url,
            "OPENAI_API_KEY": "key-of-openai",
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENROUTER_API_KEY": "key-of-openrouter",
            "OPENROUTER_BASE_URL": f"{url}/v1",
        }

    def body(self, text: Any, model: str = "anthropic", **fields: Any) -> Json:
        """A request for the page in a browser."""
        asked: Json = {"model": MODELS.get(model, model), "input": text, "env": self.env}
        asked["agent_kwargs"] = {"only_n_most_recent_images": 50}  # a script counts the answers that it sees
        asked["computer_kwargs"] = {"provider_type": "browser", "display": "800x600", "page": self.page.url}
        return asked | fields

    async def ask(self, text: Any, model: str = "anthropic", **fields: Any) -> Json:
        """Have something done; the response object."""
        answer = await self.client.post("/responses", json=self.body(text, model, **fields))
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["success"], told
        return told["result"]

    async def stream(self, text: Any, model: str = "anthropic", **fields: Any) -> list[Json]:
        """Have something done, and read it as it goes: the events."""
        return await self.read("POST", "/responses", json=self.body(text, model, stream=True, **fields))

    async def read(self, method: str, path: str, **given: Any) -> list[Json]:
        """The events of a stream, to its end."""
        found: list[Json] = []
        decoder = SseDecoder()
        async with self.client.stream(method, path, **given) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for chunk in answer.aiter_bytes():
                for frame in decoder.feed(chunk):
                    event = httpx2.Response(200, text=frame.data).json()
                    assert (event["type"], str(event["sequence_number"])) == (frame.event, frame.id)
                    found.append(event)
        return found


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    offered = Offered(trajectories=tmp_path / "trajectories", scripts=tmp_path)
    app = create_responses_server(offered=offered)
    async with (
        oracle() as page,
        ModelSimulator(parse_script(textwrap.dedent(SCRIPT))) as simulator,
        loopback(app) as url,
        httpx2.AsyncClient(base_url=url, timeout=50) as client,
    ):
        made = Service(client, simulator, page, tmp_path)
        made.responses = app.state.responses
        yield made
