"""The real Gemini CLI, from npm, against the simulator: one prompt with a tool call."""

import asyncio
import json
import os
import shutil
import subprocess

import pytest

from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

PACKAGE = "@google/gemini-cli@0.61.0"
SCRIPT = parse_script(
    r"""
rules:
  - match: write (\w+) saying (\w+)
    turns:
      - {thinking: A file., text: Writing., tool: run_shell_command, input: {command: "echo $2 > $1.txt"}}
      - {tool: read_file, input: {file_path: $1.txt}}
      - {text: "The file says:", echo_tool_results: true}
"""
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """The CLI, installed by npm as its user is set up."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("npm is missing")
        pytest.skip("npm is missing")
    folder = tmp_path_factory.mktemp("gemini-cli")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return folder / "node_modules" / ".bin" / "gemini"


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-3-pro-preview"])
async def test_the_real_cli_writes_and_reads_a_file(cli, tmp_path, model):
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / ".gemini").mkdir()
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (tmp_path / ".gemini" / "settings.json").write_text(json.dumps(settings))
    async with ModelSimulator(SCRIPT, require_key="simulated-key") as sim:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GOOGLE_GEMINI_BASE_URL": sim.url,
            "GEMINI_API_KEY": sim.api_key,
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }
        arguments = ["--model", model, "--output-format", "text", "--yolo", "write proof saying rain"]
        process = await asyncio.create_subprocess_exec(
            str(cli),
            *arguments,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(120):
                output, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
    assert process.returncode == 0, errors.decode()[-2_000:]
    assert (work / "proof.txt").read_text() == "rain\n"
    assert "The file says:" in output.decode()
    assert "rain" in output.decode()
    answered = [request for request in sim.calls if request.user_text == "write proof saying rain"]
    assert len(answered) == 3
    assert {request.dialect for request in sim.calls} == {"gemini"}
    assert all(request.stream and request.status == 200 for request in sim.calls)
    last = sim.calls[-1].parsed
    calls = [call.id for message in last.messages for call in message.tool_calls]
    assert [result.call_id for message in last.messages for result in message.tool_results] == calls
