"""The cache keeps the five versions used last; seeds are held to their hashes; odd packages find no way out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from computeragent.artifacts import cache, fetch, listed, platform_of, remove, seed
from computeragent.artifacts.unpacking import unpack_npm, verify_integrity
from computeragent.artifacts.versions import Memo, version_key
from computeragent.errors import ArtifactCorruptError, ArtifactError, ComputerAgentError, PlatformError, ValidationError

from .registry import TRUE, packed

X64 = "linux-x64"
NAME = "opencode-linux-x64-baseline"


def write_package(folder: Path, version: str, **more) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}-{version}.tgz"
    path.write_bytes(packed({"bin/opencode": TRUE.read_bytes()}, NAME, version, **more))
    return path


def test_packages_in_a_folder_become_programs_without_a_network(tmp_path: Path):
    write_package(tmp_path / "seeds", "1.2.3")
    assert [(each.name, each.version, each.platform) for each in seed(tmp_path / "seeds")] == [
        ("opencode", "1.2.3", X64)
    ]
    assert fetch("opencode", "stable", X64, offline=True).version == "1.2.3"


def test_five_versions_stay_and_they_are_the_ones_used_last(tmp_path: Path):
    for number in range(5):
        shutil.rmtree(tmp_path / "seeds", ignore_errors=True)
        write_package(tmp_path / "seeds", f"1.0.{number}")
        seed(tmp_path / "seeds")
    fetch("opencode", "1.0.0", X64, offline=True)  # the oldest is used again
    shutil.rmtree(tmp_path / "seeds")
    write_package(tmp_path / "seeds", "1.0.5")
    seed(tmp_path / "seeds")
    assert [each.version for each in listed("opencode")] == ["1.0.5", "1.0.0", "1.0.4", "1.0.3", "1.0.2"]


def test_a_cache_of_another_machine_is_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_folder: Path):
    write_package(tmp_path / "seeds", "1.2.3")
    seed(tmp_path / "seeds")
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "other"))
    assert listed() == []
    (taken,) = seed(state_folder / "cache" / "artifacts")
    assert taken.program.read_bytes() == TRUE.read_bytes()
    assert taken.folder.is_relative_to(tmp_path / "other")


def test_a_damaged_seed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_folder: Path):
    path = write_package(tmp_path / "seeds", "1.2.3")
    seed(tmp_path / "seeds")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactCorruptError):
        seed(tmp_path / "seeds")
    listed()[0].program.write_bytes(b"changed")
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "other"))
    with pytest.raises(ArtifactCorruptError, match="has changed"):
        seed(state_folder)
    with pytest.raises(ArtifactError, match="is no folder"):
        seed(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="nothing in"):
        seed(tmp_path / "empty")


def test_a_listing_that_leads_out_is_refused(tmp_path: Path):
    import json

    folder = tmp_path / "seeds" / "x"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    digest = cache.file_hash(tmp_path / "secret")
    for name, path in (("opencode", "../../secret"), ("../../up", "fine")):
        (folder / "fine").write_text("mine")
        listing = {"schema": 1, "name": name, "version": "1", "platform": X64, "program": path}
        (folder / cache.LISTING).write_text(json.dumps(listing | {"files": {path: [digest, 4]}}))
        with pytest.raises(ComputerAgentError):
            seed(tmp_path / "seeds")
    assert listed() == []


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "odd",
    [
        member("package/../../escape"),
        member("/etc/escape"),
        member("package/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("package/hard", tarfile.LNKTYPE, "package/bin/opencode"),
        member("package/device", tarfile.CHRTYPE),
        member("package/pipe", tarfile.FIFOTYPE),
        member("package/back\\..\\slash"),
    ],
    ids=lambda info: info.name,
)
def test_a_package_with_a_way_out_is_refused(tmp_path: Path, odd: tarfile.TarInfo):
    write_package(tmp_path / "seeds", "6.6.6", odd=(odd,))
    with pytest.raises(ArtifactCorruptError, match="not safe to unpack"):
        seed(tmp_path / "seeds")
    assert listed() == []
    assert not list(tmp_path.rglob("escape"))


@pytest.mark.parametrize("content", [b"", b"no archive", packed({})[:-40]])
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(ArtifactCorruptError):
        unpack_npm(tmp_path / "x.tgz", tmp_path / "out", "x")


def test_a_hash_that_differs_is_missing_or_is_weak_does_not_pass(tmp_path: Path):
    import base64
    import hashlib

    path = tmp_path / "file"
    path.write_bytes(b"content")
    good = "sha512-" + base64.b64encode(hashlib.sha512(b"content").digest()).decode()
    weak = "sha1-" + base64.b64encode(hashlib.sha1(b"content").digest()).decode()
    verify_integrity(path, f"{weak} {good}", "x")
    for integrity in ("", weak):
        with pytest.raises(ArtifactCorruptError, match="strong"):
            verify_integrity(path, integrity, "x")
    with pytest.raises(ArtifactCorruptError, match="differs"):
        verify_integrity(path, good[:-8] + "AAAAAA==", "x")
    assert not path.exists()


def test_removing_takes_the_version_that_is_named(tmp_path: Path):
    write_package(tmp_path / "seeds", "1.0.0")
    write_package(tmp_path / "seeds", "1.0.1")
    seed(tmp_path / "seeds")
    assert [each.version for each in remove("opencode", "1.0.0")] == ["1.0.0"]
    assert [each.version for each in listed()] == ["1.0.1"]
    assert remove("opencode", "1.0.0") == []


def test_those_who_wait_share_a_failure_and_the_next_tries_again():
    memo, calls, begun, gate = Memo(), [], threading.Event(), threading.Event()

    def work() -> str:
        calls.append(1)
        begun.set()
        gate.wait(10)
        if len(calls) == 1:
            raise ArtifactError("no")
        return "yes"

    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(memo.once, "key", work)]
        begun.wait(10)
        asked += [pool.submit(memo.once, "key", work) for _ in range(4)]
        while len(memo._made["key"]._condition._waiters) < 4:
            time.sleep(0.01)  # until all four wait
        gate.set()
        failures = [each.exception() for each in asked]
    assert len(calls) == 1
    assert {id(each) for each in failures} == {id(failures[0])}
    assert isinstance(failures[0], ArtifactError)
    assert memo.once("key", work) == "yes"


def test_versions_are_in_the_order_of_their_numbers():
    versions = ["1.10.0", "1.9.0", "2.0.0-beta.1", "2.0.0", "1.9.0-rc"]
    assert sorted(versions, key=version_key) == ["1.9.0-rc", "1.9.0", "1.10.0", "2.0.0-beta.1", "2.0.0"]


@pytest.mark.parametrize(
    ("system", "machine", "musl", "wanted"),
    [
        ("Linux", "x86_64", False, "linux-x64"),
        ("Linux\n", "aarch64\n", False, "linux-arm64"),
        ("Linux", "x86_64", True, "linux-x64-musl"),
        ("Linux", "arm64", True, "linux-arm64-musl"),
    ],
)
def test_a_platform_is_told_from_uname(system: str, machine: str, musl: bool, wanted: str):
    assert platform_of(system, machine, musl=musl) == wanted


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64"), ("", "")])
def test_a_platform_that_no_agent_runs_on_is_refused(system: str, machine: str):
    with pytest.raises(PlatformError):
        platform_of(system, machine, musl=False)


READER = """
from computeragent.artifacts import fetch
from computeragent.errors import ComputerAgentError
for name, version in (("opencode", "stable"), ("opencode", "9.9.9"), ("codex_cli", "stable")):
    try:
        print(fetch(name, version, "linux-x64").version)
    except ComputerAgentError as error:
        print(error)
"""


def test_a_cache_of_ones_own_that_can_only_be_read_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTERAGENT_ARTIFACTS", str(tmp_path / "shared"))
    write_package(tmp_path / "seeds", "1.2.3")
    assert seed(tmp_path / "seeds")[0].folder.is_relative_to(tmp_path / "shared")
    bound = ("bwrap", "--dev-bind", "/", "/", "--ro-bind", str(tmp_path / "shared"), str(tmp_path / "shared"))
    done = subprocess.run(
        [*bound, sys.executable, "-c", READER], capture_output=True, text=True, check=False, timeout=100
    )
    found, missing, other = done.stdout.splitlines()
    assert found == "1.2.3"
    assert missing == "opencode 9.9.9 (linux-x64) is not in the cache, and the cache can only be read"
    assert other == "codex_cli is not in the cache, and the cache can only be read"
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COMPUTERAGENT_ARTIFACTS", str(tmp_path / "file" / "cache"))
    write_package(tmp_path / "seeds", "1.2.3")
    for use in (listed, lambda: seed(tmp_path / "seeds")):
        with pytest.raises(ValidationError, match="cannot be made: Not a directory") as failure:
            use()
        assert "COMPUTERAGENT_ARTIFACTS" in str(failure.value.hint)
