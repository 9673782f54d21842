"""The example, as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "inspect_eval.py"


def test_the_example_runs_offline_and_its_policy_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done
    assert "the check is not yours to change" in done.stdout
    assert "check_passes: C (denied: ['Bash'])" in done.stdout
