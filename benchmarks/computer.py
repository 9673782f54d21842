"""A desktop's actions beside those of the tools that people use, on the same display, in turn, in the same run.

Clicks go to a page in Chromium; each is timed as the call itself, and from the call's beginning to the page's event.
Pictures are PNG files' bytes of that same page, while it changes. pyautogui and pynput are installed into a folder of
this run's own; what cannot be had is left out, and said so.

    benchmarks/computer.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ["COMPUTERAGENT_HOME"] = tempfile.mkdtemp(prefix="computer-")

from computeragent.computer.x11 import X11Computer

PAGE = b"""<!doctype html><title>bench</title><body style="margin:0;height:100vh;font:15px serif;
background:linear-gradient(45deg,#fed,#8cf,#dfd)"><h1 id="n">0</h1><div id="t"></div><script>
t.innerHTML = "<p>" + "The quick brown fox jumps over the lazy dog. ".repeat(60);
let count = 0;
addEventListener("mousedown", () => { fetch("/seen", {method: "POST", keepalive: true}); n.textContent = ++count; });
</script>"""
GOALS = {"click, the call": ("xdotool", 20.0), "picture to PNG": ("scrot", 2.0)}
WORKER = """
import sys, time
what = sys.argv[1]
if what == "pyautogui":
    import pyautogui
    pyautogui.PAUSE = 0
    pyautogui.FAILSAFE = False
    def click(x, y): pyautogui.click(x, y)
else:
    from pynput.mouse import Button, Controller
    mouse = Controller()
    def click(x, y):
        mouse.position = (x, y)
        mouse.click(Button.left)
print("ready", flush=True)
for line in sys.stdin:
    x, y = map(int, line.split())
    began = time.perf_counter()
    click(x, y)
    print(time.perf_counter() - began, flush=True)
"""


class Oracle:
    """Serves the page, and notes when it says that it was clicked."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.news = threading.Event()
        oracle = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(PAGE)

            def do_POST(self) -> None:
                oracle.seen.append(time.perf_counter())
                oracle.news.set()
                self.answer(b"")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    async def told(self) -> float:
        """When the page said so; waits for it."""
        if not await asyncio.to_thread(self.news.wait, 5.0):
            raise SystemExit("a click did not reach the page")
        return self.seen[-1]


def peers() -> Path | None:
    """A folder with pyautogui and pynput, installed for this run; None when they cannot be had."""
    folder = Path(os.environ["COMPUTERAGENT_HOME"], "peers")
    made = subprocess.run([sys.executable, "-m", "venv", folder], check=False, capture_output=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "pyautogui", "pynput"]
    done = made.returncode == 0 and subprocess.run(pip, check=False, capture_output=True, text=True).returncode == 0
    return folder if done else None


async def main(rounds: int) -> None:
    oracle = Oracle()
    async with AsyncExitStack() as stack:
        computer = await stack.enter_async_context(await X11Computer.start())
        env = {"PATH": os.environ["PATH"], "DISPLAY": computer.display, "HOME": str(computer.home)}
        await computer.launch("chromium", [oracle.url])
        while not any("bench" in window.title for window in await computer.windows()):
            await asyncio.sleep(0.1)
        await computer.settle(10)

        async def ours(x: int, y: int) -> float:
            began = time.perf_counter()
            await computer.click(x, y)
            return time.perf_counter() - began

        async def program(*command: str) -> float:
            began = time.perf_counter()
            subprocess.run(command, env=env, check=True, capture_output=True)
            return time.perf_counter() - began

        def xdotool(x: int, y: int) -> Awaitable[float]:
            return program("xdotool", "mousemove", str(x), str(y), "click", "1")

        clicks: dict[str, Callable[[int, int], Awaitable[float]]] = {"computeragent": ours, "xdotool": xdotool}
        folder = await asyncio.to_thread(peers)
        for name in ("pyautogui", "pynput"):
            worker = await started(folder, name, env, stack)
            if worker is not None:
                clicks[name] = worker
        await click_latency(oracle, clicks, rounds)
        await picture_latency(computer, program, rounds)


async def started(
    folder: Path | None, name: str, env: dict[str, str], stack: AsyncExitStack
) -> Callable[[int, int], Awaitable[float]] | None:
    """A process that has the library loaded already, and tells how long each click took it."""
    if folder is None:
        print(f"{name} cannot be installed here")
        return None
    (Path(env["HOME"]) / ".Xauthority").touch()
    process = await asyncio.create_subprocess_exec(
        folder / "bin/python", "-c", WORKER, name,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    stack.push_async_callback(process.wait)
    stack.callback(stdin.close)
    while (line := await stdout.readline()) != b"ready\n":  # Xlib has warnings to tell first
        if not line:
            print(f"{name} does not start")
            return None

    async def click(x: int, y: int) -> float:
        stdin.write(f"{x} {y}\n".encode())
        return float(await stdout.readline())

    return click


async def click_latency(oracle: Oracle, clicks: dict[str, Callable[[int, int], Awaitable[float]]], rounds: int) -> None:
    calls: dict[str, list[float]] = {name: [] for name in clicks}
    events: dict[str, list[float]] = {name: [] for name in clicks}
    for number in range(rounds + 2):
        for place, (name, click) in enumerate(clicks.items()):
            oracle.news.clear()
            began = time.perf_counter()
            took = await click(300 + 40 * place, 400 + number % 50)
            seen = await oracle.told() - began
            if number > 1:  # the first rounds warm up
                calls[name].append(took)
                events[name].append(seen)
            await asyncio.sleep(0.1)
    table("click, the call", calls)
    table("click to the page's event, told by HTTP", events)


async def picture_latency(computer: X11Computer, program: Callable[..., Awaitable[float]], rounds: int) -> None:
    target = str(computer.home / "shot.png")

    async def ours() -> float:
        began = time.perf_counter()
        await computer.screenshot()
        return time.perf_counter() - began

    cases: dict[str, Callable[[], Awaitable[float]]] = {
        "computeragent": ours,
        "scrot": lambda: program("scrot", "-o", target),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, take in cases.items():
            await computer.click(500, 400 + number % 50)  # so that the page is another
            await computer.settle()
            took = await take()
            if number:
                times[name].append(took)
    table("picture to PNG", times)


def table(what: str, found: dict[str, list[float]]) -> None:
    base = statistics.median(found["computeragent"])
    print(f"{what}: ms, median and p90 of {len(found['computeragent'])}")
    for name, times in found.items():
        median, p90 = statistics.median(times), sorted(times)[len(times) * 9 // 10]
        peer, goal = GOALS.get(what, ("", 0.0))
        said = f"   (goal {goal:g}x)" if name == peer else ""
        print(f"  {name:15}{median * 1000:8.2f}{p90 * 1000:8.2f}{median / base:8.1f}x{said}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    asyncio.run(main(20 if parser.parse_args().quick else 60))
