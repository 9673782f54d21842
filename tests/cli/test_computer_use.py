"""`computeragent run --engine computer-use`: a model, its options, a computer, from the command line."""

from __future__ import annotations

import json

from .conftest import Cli

SCRIPT = """
rules:
  - match: look
    turns:
      - computer: {action: screenshot}
      - computer: {action: click, x: 5, y: 6}
      - I have looked.
"""
COMPUTER = json.dumps({"kind": "x11", "width": 640, "height": 480})
RUN = (
    "run",
    "--engine",
    "computer-use",
    "--model",
    "scripted/script.yaml",
    "--option",
    f"computer={COMPUTER}",
    "-m",
    "look",
)


def test_a_task_is_done_on_a_computer_and_told(cli: Cli) -> None:
    (cli.work / "script.yaml").write_text(SCRIPT)
    done = cli(*RUN, "--yes", "--option", "max_steps=5")
    assert done.returncode == 0, done
    assert '● computer  {"action":"click","x":5,"y":6}' in done.stdout
    assert done.stdout.count("✓ The screen is 640x480 pixels.") == 2
    assert "I have looked." in done.stdout
    assert "is closed" not in done.stderr  # nothing of the computer outlives the command


def test_without_a_person_it_looks_and_does_not_act(cli: Cli) -> None:
    (cli.work / "script.yaml").write_text(SCRIPT)
    done = cli(*RUN)
    assert "✓ The screen is 640x480 pixels." in done.stdout
    assert "✗ This was not done: nobody is at the terminal" in done.stdout


def test_an_option_that_there_is_not_is_told(cli: Cli) -> None:
    error, hint = cli.fails(*RUN, "--option", "max_step=5")
    assert error == "error[UNKNOWN_OPTION]: engine computer-use has no option 'max_step'"
    assert "max_steps" in hint
