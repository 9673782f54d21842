"""A peer in a process of its own: `far_peer.py PORT ID` serves until it is ended, and says `ready` first.

It answers with the length of a request's `input`, and with `size` letters.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from computeragent.p2p import Peer, PeerOptions, serve


async def answer(request: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "length": len(request["input"]), "text": "x" * request.get("size", 0)}


async def main(port: int, peer_id: str) -> None:
    async with Peer(peer_id, PeerOptions(port=port)) as peer:
        print("ready", flush=True)
        await serve(peer, answer)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
