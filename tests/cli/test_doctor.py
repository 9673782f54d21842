"""`computeragent doctor` on machines that lack this or that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def look(*flags: str, path: str | None = None, **env: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "computeragent", "doctor", "--json", *flags],
        env={**os.environ, "PATH": path or os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {each["name"]: each for each in findings}, done.stdout + done.stderr


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_key_is_named_and_never_shown() -> None:
    status, found, text = look("--offline", ANTHROPIC_API_KEY="sk-ant-canary-1234")
    assert status == 0
    assert "ANTHROPIC_API_KEY" in found["keys"]["found"]
    assert "canary" not in text
    assert "egress" not in found


def test_an_old_bubblewrap_is_warned_of_and_a_new_one_is_not(tmp_path: Path) -> None:
    for version, verdict in (("0.11.9", "warn"), ("0.12.0", "ok"), ("1.0.0", "ok")):
        program(tmp_path / "bin", "bwrap", f"echo bubblewrap {version}")
        _, found, _ = look("--offline", path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert found["bubblewrap"]["verdict"] == verdict


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    _, found, _ = look("--offline", path=str(tmp_path))
    assert "apt install bubblewrap" in found["bubblewrap"]["hint"]
    program(tmp_path / "bin", "bwrap", "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1")
    _, found, _ = look("--offline", path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert "No permissions" in found["namespaces"]["found"]
    assert "unprivileged" in found["namespaces"]["hint"]


def test_a_provider_that_cannot_be_reached_is_told_without_waiting_long() -> None:
    _, found, _ = look(ANTHROPIC_API_KEY="k", ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    assert found["egress"]["verdict"] == "warn"
    assert "127.0.0.1:9" in found["egress"]["found"]


def test_a_state_folder_that_others_can_read_is_warned_of(state_folder: Path) -> None:
    state_folder.chmod(0o755)
    _, found, _ = look("--offline")
    assert found["state"]["hint"] == f"chmod 700 {state_folder}"
