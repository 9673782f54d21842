"""Upstream's own tests pass on our import path exactly where they pass on upstream's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from suite import fetch, passed, rewrite, start


@pytest.mark.timeout(600)
def test_upstreams_own_suite_passes_as_on_upstream(tmp_path: Path) -> None:
    import claude_agent_sdk

    try:
        theirs = fetch(claude_agent_sdk.__version__, tmp_path / "theirs")
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise AssertionError(error.stderr.decode("utf-8", "replace")) from error
        pytest.skip("the package index cannot be reached")
    ours = tmp_path / "ours"
    shutil.copytree(theirs, ours)
    assert rewrite(ours / "tests") >= 90

    runs = [start(theirs, tmp_path / "theirs.xml"), start(ours, tmp_path / "ours.xml")]
    for run in runs:
        run.wait(timeout=500)

    expected = passed(tmp_path / "theirs.xml")
    assert len(expected) > 1_000
    assert expected - passed(tmp_path / "ours.xml") == set(), (tmp_path / "ours.log").read_text("utf-8")[-3_000:]
