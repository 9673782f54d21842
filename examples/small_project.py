"""What the examples share: a small project, and a model: a provider's where a key is set, else the simulator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from computeragent.testing.models import ModelSimulator, parse_script

SCRIPT = """
- match: .
  turns:
    - text: I read what is there first.
      tools: [{name: Read, input: {file_path: WORK/README.md}}]
    - text: Then I clean up.
      tools: [{name: Bash, input: {command: rm -rf build, description: Remove the build folder}}]
    - text: I was not allowed to delete anything, so I leave it at that.
"""


@contextmanager
def project() -> Generator[Path]:
    """A folder with a README and something to clean up."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        (work / "README.md").write_text("# A small project\n")
        (work / "build").mkdir()
        yield work
        print("the build folder is", "still there" if (work / "build").exists() else "gone")


@contextmanager
def model(work: Path) -> Generator[dict[str, str]]:
    """The environment that the agent gets."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        yield {}
        return
    print("(no ANTHROPIC_API_KEY: the model is simulated; the agent, its tools and the policy are real)")
    script = parse_script(SCRIPT.replace("WORK", str(work)))
    with ModelSimulator.start_in_thread(script) as simulator, tempfile.TemporaryDirectory() as config:
        yield simulator.claude_environment(config)
