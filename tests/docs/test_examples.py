"""Every Python block of the README and the docs runs, each as a program of its own, with the simulator as model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeragent.testing.models import ModelSimulator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(BLOCK.findall(page.read_text("utf-8")))
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[ModelSimulator]:
    with ModelSimulator.start_in_thread() as running:
        yield running


@pytest.mark.e2e
@pytest.mark.parametrize("program", EXAMPLES)
def test_example_runs(program: str, simulator: ModelSimulator, tmp_path: Path) -> None:
    agent = tmp_path / "my-agent"
    agent.mkdir()
    env = {**os.environ, **simulator.claude_environment(tmp_path / "claude"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
