"""Requests to the computer-use proxy.

computeragent responses serve --mode both --no-auth &
python examples/responses.py          # the tests of a proxy: health, a question, a picture, a stream
python examples/responses.py curl     # the same as curl commands
python examples/responses.py p2p      # the same question over WebRTC
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import httpx2

from computeragent.p2p import Peer, PeerOptions

URL = os.environ.get("RESPONSES_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("RESPONSES_TOKEN", "")
MODEL = os.environ.get("RESPONSES_MODEL", "anthropic/claude-sonnet-4-5")
PICTURE = "https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/Gfp-wisconsin-madison-the-nature-boardwalk.jpg/640px-Gfp-wisconsin-madison-the-nature-boardwalk.jpg"

QUESTION = {"model": MODEL, "input": "Tell me a three sentence bedtime story about a unicorn."}
LOOK = {
    "model": MODEL,
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is in this image?"},
                {"type": "input_image", "image_url": PICTURE},
            ],
        }
    ],
}


async def over_http() -> None:
    headers = {"authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    async with httpx2.AsyncClient(base_url=URL, headers=headers, timeout=300) as client:
        print("health:", (await client.get("/health")).json())
        for request in (QUESTION, LOOK):
            answer = (await client.post("/responses", json=request)).json()
            print("answer:", answer["result"]["output_text"] if answer["success"] else answer["error"])
        async with client.stream("POST", "/responses", json={**QUESTION, "stream": True}) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    print("stream:", line.removeprefix("event: "))


async def over_webrtc() -> None:
    options = PeerOptions(
        host=os.environ.get("SIGNALING_HOST", "localhost"), port=int(os.environ.get("SIGNALING_PORT", "9000"))
    )
    async with Peer(options=options) as peer:
        connection = peer.connect("computer-agent-proxy", metadata={"secret": TOKEN} if TOKEN else None)
        await connection.send(json.dumps(QUESTION))
        async for message in connection:
            told = json.loads(message)
            print("peer:", told)
            if told.get("type") != "welcome":
                break


def as_curl() -> None:
    header = f" -H 'Authorization: Bearer {TOKEN}'" if TOKEN else ""
    print(f"curl {URL}/health")
    for request in (QUESTION, LOOK, {**QUESTION, "stream": True}):
        print(f"curl -N {URL}/responses{header} -H 'Content-Type: application/json' -d '{json.dumps(request)}'")


if __name__ == "__main__":
    how = sys.argv[1] if len(sys.argv) > 1 else "http"
    if how == "curl":
        as_curl()
    else:
        asyncio.run(over_webrtc() if how == "p2p" else over_http())
