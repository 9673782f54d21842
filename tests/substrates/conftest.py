"""Real jails: every test here runs bubblewrap itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from computeragent.substrates import seccomp
from computeragent.substrates.bwrap import BwrapSubstrate
from computeragent.substrates.mounts import session_mounts

Inside = Callable[..., str]


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        if os.environ.get("CI"):
            pytest.fail("bubblewrap is missing")
        pytest.skip("bubblewrap is not installed")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A workspace and a state folder."""
    made = (tmp_path / "source", tmp_path / "state")
    for each in made:
        each.mkdir()
    return made


@pytest.fixture
def inside(folders: tuple[Path, Path]) -> Inside:
    """`inside(code)`: what Python code prints in a jail that is made like an engine host's."""

    def run(code: str, substrate: BwrapSubstrate | None = None, **env: Any) -> str:
        arguments = (substrate or BwrapSubstrate()).arguments(session_mounts(*folders))
        for name, value in env.items():
            arguments += ["--setenv", name, str(value)]
        descriptor = seccomp.filter_descriptor()
        assert descriptor is not None
        try:
            done = subprocess.run(
                ["bwrap", *arguments, "--seccomp", str(descriptor), sys.executable, "-I", "-c", textwrap.dedent(code)],
                pass_fds=[descriptor],
                env={"PATH": os.environ["PATH"]},  # as for an engine host: the first process in a jail can be looked at
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            os.close(descriptor)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
