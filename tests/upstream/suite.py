"""Fetches upstream's test suite, rewrites its imports, runs it, and says which tests passed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

# Tests of upstream's packaging scripts, not of what it does.
LEFT_OUT = ("test_changelog.py", "test_build_wheel.py", "test_download_cli.py", "test_update_cli_version.py")
# How a program is named that uses upstream: 60 programs are started, and nothing is told.
QUIET = ("test_client_app.py",)

_REWRITES = (
    (
        re.compile(r"^(\s*)from claude_agent_sdk(\.types|\._errors|\.testing|\._version)? import", re.MULTILINE),
        r"\1from computeragent\2 import",
    ),
    (re.compile(r"^(\s*)import claude_agent_sdk$", re.MULTILINE), r"\1import computeragent as claude_agent_sdk"),
)


def fetch(version: str | None, folder: Path) -> Path:
    """The unpacked source distribution of a version, or of the newest, through the ordinary package client."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    requirement = f"claude-agent-sdk=={version}" if version else "claude-agent-sdk"
    command += ["--no-binary", "claude-agent-sdk", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (archive,) = folder.glob("claude_agent_sdk-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def rewrite(tests: Path) -> int:
    """Turn the imports of public modules into ours, in place; returns how many."""
    count = 0
    for path in tests.rglob("*.py"):
        text = path.read_text("utf-8")
        for pattern, replacement in _REWRITES:
            text, changed = pattern.subn(replacement, text)
            count += changed
        path.write_text(text, "utf-8")
    return count


_LISTENER = """
import json
import os

import computeragent


class Listener:
    kinds = {}

    async def emit(self, event):
        self.kinds[event.kind] = self.kinds.get(event.kind, 0) + 1

    async def flush(self, timeout=5.0):
        pass

    async def aclose(self):
        pass


def pytest_configure(config):
    computeragent.configure(sinks=[Listener()])


def pytest_unconfigure(config):
    computeragent.get_pipeline().close()
    with open(os.environ["HEARD"], "w") as file:
        json.dump(Listener.kinds, file)
"""


def install_newest(folder: Path) -> Path:
    """The newest upstream, on a path of its own that goes before the installed one."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*command, "--target", str(folder), "claude-agent-sdk"], check=True, capture_output=True, timeout=600
    )
    return folder


def start(
    root: Path,
    report: Path,
    *,
    listen: bool = False,
    upstream: Path | None = None,
    modules: Iterable[str] = (),
    collect: bool = False,
) -> subprocess.Popen[bytes]:
    """Run the suite below `root`; a pytest of its own, with upstream's settings less its source path.

    With `listen`, a telemetry sink hears all that passes, and its counts by kind go to ``<report>.json``; what is quiet
    is left out. `upstream` is where another version of it is installed, `modules` are those that run (default: all).
    With `collect` nothing runs: ``<report>.log`` has how many tests each file has.
    """
    settings = root / "pytest.ini"
    settings.write_text("[pytest]\naddopts = --import-mode=importlib -p anyio -q\n", "utf-8")
    left_out = (*LEFT_OUT, *QUIET) if listen else LEFT_OUT
    ignored = [f"--ignore={root / 'tests' / name}" for name in left_out]
    command = [sys.executable, "-m", "pytest", "-c", str(settings), "--rootdir", str(root), f"--junitxml={report}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMPUTERAGENT_", "PYTEST_"))}
    paths = [str(upstream)] if upstream else []
    if listen:
        (root / "listener.py").write_text(_LISTENER, "utf-8")
        command += ["-p", "listener"]
        paths.append(str(root))
        env["HEARD"] = str(report.with_suffix(".json"))
    if collect:
        command += ["--collect-only", "-q"]
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(paths)
    wanted = [str(root / (module.replace(".", "/") + ".py")) for module in sorted(modules)]
    command += [*ignored, *(wanted or [str(root / "tests")])]
    with report.with_suffix(".log").open("wb") as output:
        return subprocess.Popen(command, cwd=root, env=env, stdout=output, stderr=output)


def passed(report: Path) -> set[str]:
    """The names of the tests that passed."""
    return {f"{case.get('classname')}::{case.get('name')}" for case in _cases(report) if _passed(case)}


def doubtful(report: Path) -> set[str]:
    """The modules with a test that did not pass, such as ``tests.test_query``."""
    names = [case.get("classname") or case.get("name") or "" for case in _cases(report) if not _passed(case)]
    return {".".join(name.split(".")[:2]) for name in names}


def ran(report: Path) -> int:
    """How many tests there were; a module that was skipped as a whole is none."""
    return sum(bool(case.get("classname")) for case in _cases(report))


def collected(report: Path) -> int:
    """How many tests a run with `collect` found."""
    lines = report.with_suffix(".log").read_text("utf-8").splitlines()
    counts = [re.fullmatch(r"\S+\.py: (\d+)", line) for line in lines]
    return sum(int(count[1]) for count in counts if count)


def _cases(report: Path) -> list[ET.Element]:
    return list(ET.parse(report).getroot().iter("testcase"))


def _passed(case: ET.Element) -> bool:
    return not any(child.tag in {"failure", "error", "skipped"} for child in case)
