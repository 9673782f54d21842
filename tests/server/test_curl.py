"""The one-line curl that people are given, exactly as it is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from computeragent.wire.sse import SseDecoder

CURL = """\
curl -N -X POST http://127.0.0.1:7700/v1/sessions \\
  -H 'content-type: application/json' \\
  -d '{
    "source": "github.com/open-gitagent/general-agent",
    "harness": "claude-agent-sdk",
    "envs": { "ANTHROPIC_API_KEY": "sk-ant-…" },
    "message": "Reply: PING"
  }'
"""


def alone(folder: Path, command: str) -> dict[str, Any]:
    """What a command line does on a machine of its own; see `alone.py`."""
    for program in ("bwrap", "curl"):
        if shutil.which(program) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{program} is missing")
            pytest.skip(f"{program} is not installed")
    script = Path(__file__).with_name("alone.py")
    jail = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-net", "--die-with-parent"]
    done = subprocess.run(
        [*jail, sys.executable, str(script), str(folder), command],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def events_of(text: str) -> list[Any]:
    frames = SseDecoder().feed(text.encode())
    assert [frame.id for frame in frames] == [str(number) for number in range(len(frames))]
    return [json.loads(frame.data) for frame in frames]


@pytest.mark.e2e
def test_the_line_answers_with_the_stream_of_the_agent_that_it_names(tmp_path: Path) -> None:
    found = alone(tmp_path, CURL.replace("sk-ant-…", "sk-ant-canary"))
    events = events_of(found["said"])
    assert found["code"] == 0
    assert (events[0]["kind"], events[0]["engine"]) == ("ca_session_started", "claude-agent-sdk")
    assert (events[0]["identity"]["name"], events[0]["identity"]["version"]) == ("general-agent", "4.2.0")
    (result,) = [event["payload"] for event in events if event.get("endsTurn")]
    assert (result["subtype"], result["result"]) == ("success", "PING")
    assert (events[-1]["kind"], events[-1]["reason"]) == ("ca_session_ended", "complete")
    assert {call["key"] for call in found["calls"]} == {"sk-ant-canary"}


@pytest.mark.e2e
def test_the_line_verbatim_is_answered_to_its_end(tmp_path: Path) -> None:
    found = alone(tmp_path, CURL)  # its key is no key: an ellipsis, which no header may carry
    events = events_of(found["said"])
    assert found["code"] == 0
    assert events[0]["identity"]["name"] == "general-agent"
    assert events[-1]["kind"] == "ca_session_ended"
    (result,) = [event["payload"] for event in events if event.get("endsTurn")]
    assert result["is_error"] is True
    assert "Invalid API key" in result["result"]
    assert found["calls"] == []
