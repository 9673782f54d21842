"""A task of six model calls on a page in a browser: waiting for the screen, beside waiting for the clock.

The agent is the same, and so are the model (the simulator), the browser and the page; only what comes between an action
and its screenshot differs: until the screen stands still, 0.5 s as in cua's agent, 2 s as in Anthropic's demo.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time

from computeragent import ComputerAgent
from computeragent.computer.pool import default_pool
from computeragent.testing.models import ModelSimulator, parse_script

PAGE = "data:text/html,<input autofocus style='width:300px;height:60px'><div style='height:3000px'></div>"
SCRIPT = """
rules:
  - match: look
    turns: [{computer: {action: screenshot}}, I see it.]
  - match: fill in
    turns:
      - computer: {action: screenshot}
      - computer: {action: click, x: 100, y: 30}
      - computer: {action: type, text: hello}
      - computer: {action: keypress, keys: [ctrl, a]}
      - computer: {action: scroll, x: 100, y: 300, dy: 240}
      - Done.
"""
WAITS: dict[str, float | None] = {"until the screen stands still": None, "0.5 s": 0.5, "2 s": 2.0}


async def main(rounds: int) -> None:
    """Run the task so many times in each way, in turn."""
    found: dict[str, list[float]] = {name: [] for name in WAITS}
    async with ModelSimulator(parse_script(SCRIPT)) as model:
        for number in range(rounds + 1):
            for name, delay in WAITS.items():
                seconds = await task(model, delay)
                if number:  # the first round warms up
                    found[name].append(seconds)
    await default_pool().aclose()
    ours = statistics.median(found["until the screen stands still"])
    print(f"\na task of six model calls, five actions ({rounds} rounds, median)")
    for name, times in found.items():
        median = statistics.median(times)
        print(f"  {name:32} {median:7.2f} s   {median / ours:5.1f}×")


async def task(model: ModelSimulator, delay: float | None) -> float:
    """The seconds from the instruction to the answer."""
    options = {
        "computer": {"kind": "browser", "width": 1024, "height": 768, "page": PAGE},
        "screenshot_delay": delay,
    }
    envs = {"ANTHROPIC_API_KEY": "simulated", "ANTHROPIC_BASE_URL": model.url}
    with tempfile.TemporaryDirectory() as folder:
        async with ComputerAgent(
            source=folder, engine="computer-use", model="anthropic/claude-sonnet-4-5", options=options, envs=envs
        ) as agent:
            await agent.chat("Please look")  # so that the browser is there
            began = time.perf_counter()
            result = await agent.chat("Please fill in the form")
            assert result.text == "Done."
            return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of ten")
    asyncio.run(main(3 if parser.parse_args().quick else 10))
