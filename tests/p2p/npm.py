"""Packages of npm that tests meet for real, installed once for a session with the machine's own npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {"peerjs": "1.5.5", "peer": "1.0.2"}


def installed(folder: Path) -> Path:
    """The folder of the modules. Without npm the test is skipped, and fails in CI."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("CI"):
            pytest.fail("npm is missing")
        pytest.skip("npm is missing")
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}), "utf-8")
    program = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
    if done.returncode:
        pytest.fail(f"npm install: {done.stderr[-2000:]}")
    return folder / "node_modules"
