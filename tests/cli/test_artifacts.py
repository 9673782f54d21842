"""`computeragent artifacts`: help, listing, seeding, removing, and errors that name the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.registry import TRUE, packed

from .conftest import Cli

NAME = "opencode-linux-x64-baseline"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds"
    folder.mkdir()
    (folder / "opencode.tgz").write_bytes(packed({"bin/opencode": TRUE.read_bytes()}, NAME, "1.2.3"))
    return folder


def test_help_says_what_it_is_for(cli: Cli):
    done = cli("artifacts", "--help")
    assert done.returncode == 0
    for text in ("prefetch", "seed", "npm and pip", "COMPUTERAGENT_OFFLINE", "examples:"):
        assert text in done.stdout


def test_a_seed_is_listed_used_offline_and_removed(cli: Cli, seeds: Path):
    assert "nothing is cached" in cli("artifacts").stderr
    seeded = cli("artifacts", "seed", str(seeds))
    assert seeded.returncode == 0, seeded.stderr
    assert "opencode 1.2.3 linux-x64" in seeded.stdout
    (listed,) = [json.loads(line) for line in cli("artifacts", "ls", "--json").stdout.splitlines()]
    assert (listed["name"], listed["version"], listed["platform"]) == ("opencode", "1.2.3", "linux-x64")
    assert listed["program"] in cli("artifacts", "ls", "opencode").stdout
    offline = cli("artifacts", "prefetch", "opencode", "--platform", "linux-x64", COMPUTERAGENT_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert listed["program"] in offline.stdout
    assert "removed opencode 1.2.3" in cli("artifacts", "rm", "opencode", "1.2.3").stdout
    assert not Path(listed["program"]).exists()


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (("prefetch", "codex"), "UNKNOWN_CLI", 'Did you mean "codex_cli"?'),
        (("prefetch", "codex_cli", "--offline"), "ARTIFACT_UNAVAILABLE", "artifacts seed"),
        (("prefetch", "codex_cli", "--version", "newest"), "VALIDATION", "latest or a version"),
        (("prefetch", "node", "--platform", "linux-x64-musl"), "PLATFORM", "linux-arm64"),
        (("seed", "nowhere"), "ARTIFACT", "folder of packages"),
        (("rm", "pi"), "NOT_FOUND", "artifacts ls"),
    ],
)
def test_what_cannot_be_is_told_with_its_remedy(cli: Cli, words: tuple[str, ...], code: str, remedy: str):
    done = cli("artifacts", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
