"""Programs from a registry: fetched once, held to their hashes, and what goes wrong is told with its remedy."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from computeragent.artifacts import cached_agent_binaries, download_agent_binary, fetch, find, listed, prefetch
from computeragent.artifacts.running import failure
from computeragent.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactUnavailableError,
    PlatformError,
    UnknownCliError,
    UnknownVersionError,
    ValidationError,
)

from .registry import ARM64, TRUE, Registry

X64 = "linux-x64"


def opencode(version: str = "stable", **more):
    return fetch("opencode", version, X64, **more)


def test_a_program_is_fetched_once_and_then_served_without_the_registry(registry: Registry, capsys):
    registry.add_opencode("1.0.1", "1.0.2")
    steps = []
    found = opencode(tell=lambda progress: steps.append(progress.step))
    assert (found.version, found.program.read_bytes()) == ("1.0.2", TRUE.read_bytes())
    assert subprocess.run([found.program], check=False).returncode == 0
    assert steps[0] == "asking"
    assert {"downloading", "unpacking", "done"} <= set(steps)
    asked = registry.asked.total()
    assert opencode("1.0.2", offline=True) == opencode("1.0.2")
    assert registry.asked.total() == asked
    assert [each[:2] for each in cached_agent_binaries("opencode")] == [("opencode", "1.0.2")]
    assert str(found.program) in capsys.readouterr().out


def test_an_older_version_is_what_was_asked_for(registry: Registry):
    registry.add_opencode("1.0.1", "1.0.2")
    download_agent_binary("opencode", "1.0.1", X64)
    assert [each.version for each in listed()] == ["1.0.1"]


def test_a_version_that_does_not_exist_is_told(registry: Registry):
    registry.add_opencode("1.0.1")
    with pytest.raises(UnknownVersionError, match=r"9\.9\.9") as caught:
        opencode("9.9.9")
    assert "Choose a version" in str(caught.value.hint)
    assert listed() == []


@pytest.mark.parametrize("version", ["newest", "", "../../x", "-1", "1.0 --registry", "1/2"])
def test_what_is_no_version_is_refused_before_anybody_is_asked(version: str):
    with pytest.raises(ValidationError):
        opencode(version)


def test_an_unknown_agent_and_an_unknown_platform_are_refused():
    with pytest.raises(UnknownCliError) as caught:
        fetch("claude_cod")
    assert 'Did you mean "claude_code"?' in str(caught.value.hint)
    with pytest.raises(PlatformError, match="win32-x64") as other:
        fetch("opencode", platform="win32-x64")  # type: ignore[arg-type]
    assert "linux-arm64" in str(other.value.hint)
    with pytest.raises(PlatformError, match="node is not made for linux-x64-musl"):
        fetch("node", platform="linux-x64-musl")


def test_a_program_for_another_machine_is_refused(registry: Registry):
    registry.add_opencode("1.0.1", program=ARM64)
    with pytest.raises(PlatformError, match="another machine"):
        opencode()
    assert listed() == []


def test_a_package_that_is_not_what_the_registry_says_is_refused(registry: Registry):
    registry.add_opencode("1.0.1")
    registry.lying = True
    with pytest.raises(ArtifactCorruptError) as caught:
        opencode("1.0.1")
    assert "cache clean" in str(caught.value.hint)
    assert listed() == []


def test_a_cached_file_that_has_changed_is_removed_told_and_fetched_again(registry: Registry, caplog):
    registry.add_opencode("1.0.1")
    found = opencode("1.0.1")
    found.program.write_bytes(b"\x7fELF changed")
    with caplog.at_level(logging.WARNING, "computeragent"):
        again = opencode("1.0.1")
    assert again.program.read_bytes() == TRUE.read_bytes()
    assert "artifact_removed" in caplog.text
    assert "bin/opencode" in caplog.text


def test_offline_a_changed_file_is_removed_and_not_run(registry: Registry):
    registry.add_opencode("1.0.1")
    found = opencode("1.0.1")
    found.program.write_bytes(TRUE.read_bytes()[:-1] + b"!")
    asked = registry.asked.total()
    with pytest.raises(ArtifactUnavailableError, match="offline"):
        opencode("1.0.1", offline=True)
    assert not found.program.exists()
    assert registry.asked.total() == asked


def test_offline_nobody_is_asked_and_words_mean_what_is_cached(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    registry.add_opencode("1.0.9", "1.0.10")
    opencode("1.0.9")
    opencode("1.0.10")
    opencode("1.0.9")
    monkeypatch.setenv("COMPUTERAGENT_OFFLINE", "1")
    monkeypatch.setenv("PATH", os.devnull)  # no client could be started, either
    asked = registry.asked.total()
    assert {opencode(word).version for word in ("auto", "stable", "latest")} == {"1.0.10"}
    with pytest.raises(ArtifactUnavailableError) as caught:
        opencode("1.0.11")
    assert "prefetch" in str(caught.value.hint)
    assert registry.asked.total() == asked


def test_without_a_network_the_error_says_so_and_auto_takes_the_cache(registry: Registry, monkeypatch):
    registry.add_opencode("1.0.1")
    opencode()
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    from computeragent.artifacts.versions import forget_versions

    forget_versions()
    with pytest.raises(ArtifactUnavailableError, match="no registry answers") as caught:
        opencode("latest")
    assert "seed" in str(caught.value.hint)
    assert opencode("auto").version == "1.0.1"


def test_without_npm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ArtifactError, match="npm is needed") as caught:
        opencode()
    assert "apt-get install npm" in str(caught.value.hint)


def test_processes_and_threads_that_want_the_same_share_one_download(registry: Registry, state_folder: Path):
    registry.add_opencode("1.0.1")
    program = f"from computeragent.artifacts import fetch; print(fetch('opencode', '1.0.1', {X64!r}).program)"
    others = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        mine = {each.program for each in pool.map(lambda _: opencode("1.0.1"), range(3))}
    theirs = {Path(other.communicate(timeout=50)[0].strip()) for other in others}
    assert mine == theirs
    assert registry.tarballs == 1
    assert list((state_folder / "cache" / "artifacts" / ".staging").iterdir()) == []


def test_prefetch_goes_on_after_a_failure(registry: Registry):
    registry.add_opencode("1.0.1")
    fetched, failed = prefetch(["copilot", "opencode"], platform=X64)
    assert [each.name for each in fetched] == ["opencode"]
    assert isinstance(failed["copilot"], UnknownVersionError)


def test_auto_and_sandbox_take_what_is_installed(registry: Registry):
    assert find("opencode", "auto", X64, "/usr/bin/opencode") == "/usr/bin/opencode"
    with pytest.raises(ArtifactError, match="not installed in the sandbox"):
        find("opencode", "sandbox", X64, None)
    assert registry.asked.total() == 0
    registry.add_opencode("1.0.1")
    assert find("opencode", "auto", X64, None).version == "1.0.1"  # type: ignore[union-attr]


def test_what_a_client_says_is_passed_on_without_secrets():
    said = "npm error code E401\nnpm error 401 - GET https://me:hunter2@registry.example/x _authToken=abcdef"
    error = failure("x", said, "npm", 1)
    assert "hunter2" not in error.message
    assert "abcdef" not in error.message
    assert "credentials" in str(error.hint)
