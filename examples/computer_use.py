"""An agent on a computer: a page in Chromium, and a model that fills it in.

python examples/computer_use.py                                   # offline: the model plays a script
python examples/computer_use.py anthropic/claude-sonnet-4-5       # a provider's, with its key in the environment
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import mkdtemp

from computeragent import ComputerAgent
from computeragent.protocol_types import PermissionRequest
from computeragent.wire.events import SdkMessage

SCRIPT = Path(__file__).parent / "scripts/use-a-computer.yaml"
PAGE = (
    "data:text/html,<title>Sign in</title>"
    "<form onsubmit=\"document.body.textContent='Welcome, '%2Bwho.value; return false\">"
    "<input id=who autofocus style='position:absolute;left:20px;top:20px;width:300px;height:60px;font-size:30px'>"
    "</form>"
)


def allow(request: PermissionRequest) -> bool:
    """Every action is asked for first: print it, allow it."""
    print("●", request.input)
    return True


async def main(model: str) -> None:
    """One task."""
    options = {
        "computer": {"kind": "browser", "width": 1024, "height": 640, "page": PAGE},
        "trajectory_dir": mkdtemp(prefix="trajectories-"),
        "max_steps": 20,
    }
    async with ComputerAgent(
        source=mkdtemp(), engine="computer-use", model=model, options=options, on_tool_call=allow
    ) as agent:
        handle = agent.chat("Please sign in as Ada")
        async for event in handle:
            if isinstance(event, SdkMessage) and event.payload.get("type") == "result":
                print("every step is kept in", event.payload["trajectory"])
        print((await handle.result()).text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"scripted/{SCRIPT}"))
