"""Draw docs/demo.svg: what `make demo` prints, as a picture. Run it when the demo has changed."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
TEMPLATE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        printed = record(folder).replace(folder, "/tmp/demo")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in printed.splitlines():
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
    svg = console.export_svg(title="make demo", code_format=TEMPLATE, unique_id="demo")
    (ROOT / "docs" / "demo.svg").write_text(svg, "utf-8")


def record(folder: str) -> str:
    """The demo's output on a terminal, with its escape codes."""
    parent, child = pty.openpty()
    env = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "HOME": folder}
    env.pop("COMPUTERAGENT_HOME", None)
    command = [sys.executable, "-m", "computeragent", "demo", "--simulate", "--dir", folder]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=child, stderr=child, env=env)
    os.close(child)
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    return re.sub(r"\r", "", b"".join(chunks).decode("utf-8", "replace"))


if __name__ == "__main__":
    main()
