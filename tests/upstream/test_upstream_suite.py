"""Upstream's own tests pass on our import path exactly where they pass on upstream's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from suite import QUIET, collected, doubtful, fetch, install_newest, passed, ran, rewrite, start

# Where somebody listens, a streamed prompt goes to upstream through a generator of ours that yields the same messages.
WATCHED = ("test_connect_with_async_iterable[asyncio]", "test_connect_with_async_iterable[trio]")


@pytest.mark.timeout(600)
def test_upstreams_own_suite_passes_as_on_upstream(tmp_path: Path) -> None:
    import claude_agent_sdk

    compare(tmp_path, fetched(claude_agent_sdk.__version__, tmp_path), upstream=None, told=False)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_upstreams_own_suite_passes_where_somebody_listens(tmp_path: Path) -> None:
    import claude_agent_sdk

    compare(tmp_path, fetched(claude_agent_sdk.__version__, tmp_path), upstream=None)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_newest_upstreams_suite_passes_as_on_it(tmp_path: Path) -> None:
    theirs = fetched(None, tmp_path)
    compare(tmp_path, theirs, upstream=install_newest(tmp_path / "newest"))


def fetched(version: str | None, tmp_path: Path) -> Path:
    """Upstream's sources; without the package index there is nothing to test outside of CI."""
    try:
        return fetch(version, tmp_path / "theirs")
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise AssertionError(error.stderr.decode("utf-8", "replace")) from error
        pytest.skip("the package index cannot be reached")


def compare(tmp_path: Path, theirs: Path, *, upstream: Path | None, told: bool = True) -> None:
    """Run the suite on ours, if `told` on ours with a listener, and on upstream: the same tests pass."""
    ours, heard_by = tmp_path / "ours", tmp_path / "told"
    shutil.copytree(theirs, ours)
    assert rewrite(ours / "tests") >= 90
    shutil.copytree(ours, heard_by)

    runs = [
        start(ours, tmp_path / "ours.xml", upstream=upstream),
        start(theirs, tmp_path / "there.xml", collect=True, upstream=upstream),
    ]
    if told:
        runs.append(start(heard_by, tmp_path / "told.xml", listen=True, upstream=upstream))
    for run in runs:
        run.wait(timeout=500)
    assert collected(tmp_path / "there.xml") == ran(tmp_path / "ours.xml") > 1_000
    # Upstream needs to run only what did not pass on ours.
    modules = doubtful(tmp_path / "ours.xml") | (doubtful(tmp_path / "told.xml") if told else set[str]())
    quiet = tuple(f"tests.{name.removesuffix('.py')}" for name in QUIET)
    if modules:
        start(theirs, tmp_path / "theirs.xml", upstream=upstream, modules=modules).wait(timeout=500)
    expected = passed(tmp_path / "theirs.xml") if modules else set[str]()
    for name, excepted in (("ours", 0), ("told", len(WATCHED)))[: 2 if told else 1]:
        failed = expected - passed(tmp_path / f"{name}.xml")
        failed -= {case for case in failed if name == "told" and case.startswith(quiet)}
        log = (tmp_path / f"{name}.log").read_text("utf-8")[-3_000:]
        assert len(failed) == excepted, log
        assert all(any(test in case for test in WATCHED) for case in failed), log
    if not told:
        return
    heard = json.loads((tmp_path / "told.json").read_text())
    assert heard["session_started"] >= heard["session_ended"] > 100
    assert heard["assistant_message"] > 20
