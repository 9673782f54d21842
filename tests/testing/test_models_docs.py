"""The examples and the documentation of the simulator hold."""

import re
from pathlib import Path

import pytest

from computeragent.testing.models import load_script, parse_script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "simulator.md").read_text()
SCRIPTS = sorted((ROOT / "examples" / "scripts").glob("*.yaml"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_every_example_script_is_valid(path):
    assert load_script(path).rules


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_documented_script_is_valid(text):
    assert parse_script(text).rules


def test_the_documented_program_runs():
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "docs/simulator.md", "exec"), {"__name__": "documented"})


def test_every_key_of_a_turn_is_documented():
    with pytest.raises(Exception, match="unknown key") as caught:
        parse_script("- {match: a, reply: {zzz: 1}}")
    for key in caught.value.hint.removeprefix("Known here: ").rstrip(".").split(", "):
        assert f"`{key}`" in PAGE
