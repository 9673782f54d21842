"""`computeragent eval export`: a recorded session becomes a folder that Inspect runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.cli.eval_export import _folder as folder_of  # pyright: ignore[reportPrivateUsage]
from computeragent.evals import RecordedSession
from computeragent.settings import home

from .conftest import Cli, script
from .test_serve import serving
from .test_tail import read_until

READ = script([{"tool": "Read", "input": {"file_path": "a.txt"}}, {"text": "It says x."}])


def sample(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sample.json").read_text())


def repository(cli: Cli) -> str:
    folder = cli.work / "repo"
    folder.mkdir()
    (folder / "a.txt").write_text("before")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True, env=cli.env)
    return f"file://{folder}"


def test_a_session_is_exported_by_the_beginning_of_its_id_with_the_files_of_its_folder(cli: Cli) -> None:
    (cli.work / "a.txt").write_text("x")
    cli("run", *READ, "--session-id", "first-session", "-m", "What does a.txt say?")
    done = cli("eval", "export", "first", "--out", "task")
    assert done.returncode == 0, done
    assert done.stdout == "task\n"
    assert "1 message, 1 file (as they are now" in done.stderr
    told = sample(cli.work / "task")
    assert told["input"] == ["What does a.txt say?"]
    assert told["target"] == "It says x."
    assert told["metadata"]["recorded"]["tools"] == {"Read": 1}
    assert (cli.work / "task/files/a.txt").read_text() == "x"
    assert "first-session" in (cli.work / "task/README.md").read_text()


def test_files_of_a_clone_are_those_that_the_agent_began_with_unless_others_are_asked_for(cli: Cli) -> None:
    write = script([{"tool": "Write", "input": {"file_path": "a.txt", "content": "after"}}, {"text": "Done."}])
    cli("run", repository(cli), *write, "--yes", "--session-id", "s", "-m", "go")
    assert "as commit" in cli("eval", "export", "s").stderr
    assert (cli.work / "eval-s/files/a.txt").read_text() == "before"
    assert cli("eval", "export", "s", "--out", "now", "--files", "now", "--sandbox", "local").returncode == 0
    assert (cli.work / "now/files/a.txt").read_text() == "after"
    assert 'sandbox: str = "local"' in (cli.work / "now/task.py").read_text()
    assert cli("eval", "export", "s", "--out", "none", "--files", "none").returncode == 0
    assert sample(cli.work / "none")["files"] == []


def test_files_of_a_checkout_in_place_are_said_to_lack_what_was_not_committed(cli: Cli) -> None:
    folder = Path(repository(cli).removeprefix("file://"))
    cli("run", str(folder), *script(), "--session-id", "s", "-m", "go")
    assert "what was not committed then is missing" in cli("eval", "export", "s").stderr
    assert "what was not committed then is missing" in (cli.work / "eval-s/README.md").read_text()


def test_a_name_of_a_folder_in_a_jail_does_not_stand_for_one_of_this_machine(tmp_path: Path) -> None:
    session = RecordedSession("jailed", cwd=str(tmp_path))
    assert folder_of(session) == tmp_path
    own = home("work") / "jailed" / "source"
    (own / "sub").mkdir(parents=True)
    try:
        assert folder_of(session) == own
        session.cwd = str(own / "sub")
        assert folder_of(session) == own / "sub"
    finally:
        shutil.rmtree(own.parent)


def test_personal_data_is_kept_on_request_and_secrets_never(cli: Cli) -> None:
    key = "sk-ant-api03-" + "Zk4mQ9xT7vB2nL8pR5wY" * 4
    cli("run", *script(), "--session-id", "s", "-m", f"mail bob.smith@example.com with {key} and hunter2hunter2")
    for name, more in (("all", []), ("kept", ["--keep-personal-data"])):
        assert cli("eval", "export", "s", "--out", name, *more, MY_PASSWORD="hunter2hunter2").returncode == 0
        text = (cli.work / name / "sample.json").read_text()
        assert key not in text
        assert "hunter2hunter2" not in text
        assert ("bob.smith@example.com" in text) is (name == "kept")


@pytest.mark.anyio
async def test_a_session_on_a_server_is_exported_with_all_its_runs_and_its_files(cli: Cli) -> None:
    with serving(cli) as (_, port):
        url = f"http://127.0.0.1:{port}"
        agent = ComputerAgent(
            source={"type": "inline", "manifest": {"name": "x"}, "files": {"a.txt": "x"}},
            engine="scripted",
            options={"script": [[{"text": "One."}], [{"text": "Two."}]]},
            session_id="far",
            session_store="sqlite",
            harness_url=url,
            harness_kind="protocol",
            harness_token=(cli.state / "keys" / "harness-token").read_text().strip(),
        )
        async with agent:
            await agent.chat("first?")
            await agent.cancel()
            await agent.chat("second?")
            done = await asyncio.to_thread(cli, "eval", "export", "far", "--harness-url", url, "--out", "task")
    assert done.returncode == 0, done
    told = sample(cli.work / "task")
    assert (told["input"], told["target"]) == (["first?", "second?"], "Two.")
    assert (cli.work / "task/files/a.txt").read_text() == "x"


def test_a_transcript_is_read_from_the_store_that_is_named(cli: Cli, simulated: Any) -> None:
    simulated("rules:\n  - reply: {text: The answer is 42.}\n")
    assert cli("run", "--session-store", "sqlite", "--session-id", "s", "-m", "What is it?").returncode == 0
    done = cli("eval", "export", "s", "--session-store", "sqlite", "--files", "none", "--out", "task")
    assert done.returncode == 0, done
    told = sample(cli.work / "task")
    assert (told["input"], told["target"]) == (["What is it?"], "The answer is 42.")


def test_what_cannot_be_exported_is_told(cli: Cli) -> None:
    assert cli.fails("eval", "export", "other")[0] == "error[NOT_FOUND]: session 'other' not found"
    cli("run", *script(), "--session-id", "s", "-m", "hi")
    (cli.work / "used").mkdir()
    (cli.work / "used" / "x").write_text("mine")
    assert cli.fails("eval", "export", "s", "--out", "used")[0] == "error[VALIDATION]: used is not empty"
    assert cli.fails("eval", "export", "s", "--files", "start")[0].startswith("error[NOT_FOUND]: the files that")
    assert cli.fails("eval", "export", "s", "--sandbox", '"x')[0].startswith("error[VALIDATION]")
    assert cli.fails("eval", "export", "s", "--session-store", "file")[0] == (
        "error[NOT_FOUND]: session s has no transcript in file"
    )
    assert cli.fails("eval", "export", "s", "--session-store", "nosuch")[0].startswith("error[UNKNOWN_STORE]")
    assert cli.fails("eval", "export", "s", "--session-store", "file", "--harness-url", "http://127.0.0.1:9")[0] == (
        "error[VALIDATION]: --session-store is for this machine"
    )
    assert sorted(path.name for path in cli.work.iterdir()) == ["used"]
    with cli.start(
        "run", *script([{"text": "Working."}, {"delay": 60}]), "--session-id", "busy", "-m", "go"
    ) as running:
        read_until(running, b"Working.")
        assert cli.fails("eval", "export", "busy")[0] == "error[SESSION_LIVE]: session busy is running"
        running.kill()
        running.communicate()


def test_exporting_needs_no_inspect(cli: Cli) -> None:
    cli("run", *script(), "--session-id", "s", "-m", "hi")
    (cli.work / "inspect_ai.py").write_text("raise ImportError('no Inspect here')")
    assert cli("eval", "export", "s", "--files", "none", PYTHONPATH=str(cli.work)).returncode == 0
