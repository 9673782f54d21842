"""Recorded sessions as tasks: what is asked, what is answered, which files, and what must not be in them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from computeragent.errors import PathEscapeError, TooLargeError, ValidationError
from computeragent.evals import RecordedSession, TaskFile, files_at, files_of, of_events, of_transcript, write_task
from computeragent.harness.workspace import LocalWorkspace
from computeragent.telemetry.redaction import SECRETS, Redactor
from computeragent.wire.events import HarnessEvent, decode_event
from computeragent.wire.requests import UserInput

pytestmark = pytest.mark.anyio


def events(*told: dict[str, Any]) -> list[HarnessEvent]:
    return [decode_event(msgspec.json.encode({"sessionId": "s", **each})) for each in told]


def started(**more: Any) -> dict[str, Any]:
    capabilities = dict.fromkeys(
        ("streamingInput", "partialMessages", "permissionCallback", "sessions", "budget"), True
    )
    identity = {"name": "Triage Bot", "version": "1.2.0", "sha": "ab" * 20}
    known = {"engine": "claude-agent-sdk", "identity": identity, "capabilities": capabilities, "protocolVersion": "1"}
    return {"kind": "ca_session_started", "cwd": "/home/me/shop", **known, **more}


def asked(turn: int, content: Any) -> dict[str, Any]:
    return {"kind": "ca_turn_started", "turnIndex": turn, "message": {"role": "user", "content": content}}


def said(**payload: Any) -> dict[str, Any]:
    return {"kind": "sdk_message", "payload": payload}


def answered(text: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}, *blocks]
    return said(type="assistant", message={"model": "claude-x", "content": content}, **more)


TOOL = {"type": "tool_use", "id": "1", "name": "Bash", "input": {}}
USAGE = {"kind": "ca_usage_snapshot", "inputTokens": 5, "outputTokens": 2, "costUsd": 0.5, "costSemantic": "cumulative"}
ENDED = {"kind": "ca_session_ended", "reason": "complete"}


def test_a_session_is_folded_over_all_its_runs() -> None:
    denied = {"kind": "ca_permission_decision", "callId": "1", "decision": "deny"}
    told = [
        *(started(), asked(0, "one"), answered("First.", TOOL), denied, USAGE, ENDED),
        *(started(resumed=True, identity={"name": "renamed", "version": "2"}), asked(1, "two"), answered("Second.")),
        *(
            answered("of a sub-agent", TOOL, parent_tool_use_id="1"),
            said(type="result", result="The end."),
            USAGE,
            ENDED,
        ),
    ]
    found = of_events("s", events(*told))
    assert [prompt.content for prompt in found.prompts] == ["one", "two"]
    assert found.answer == "The end."
    assert found.facts() == {
        "session_id": "s",
        "agent": "Triage Bot",
        "version": "1.2.0",
        "engine": "claude-agent-sdk",
        "model": "claude-x",
        "commit": "ab" * 20,
        "turns": 2,
        "ended": "complete",
        "tools": {"Bash": 2},
        "denied": 1,
        "input_tokens": 10,
        "output_tokens": 4,
        "cost_usd": 1.0,
    }


def test_a_turn_without_an_answer_leaves_none_of_the_turn_before() -> None:
    found = of_events("s", events(started(), asked(0, "one"), answered("First."), asked(1, "two"), ENDED))
    assert found.answer == ""


def test_a_transcript_of_claude_code_is_read_without_what_others_said() -> None:
    entries: list[dict[str, Any]] = [
        {"type": "user", "cwd": "/w", "message": {"role": "user", "content": "one"}},
        {"type": "user", "isMeta": True, "message": {"role": "user", "content": "a reminder"}},
        {"type": "assistant", "message": {"model": "m", "usage": {"input_tokens": 3}, "content": [TOOL]}},
        {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]}},
        {"type": "assistant", "isSidechain": True, "message": {"content": [{"type": "text", "text": "aside"}]}},
        {"type": "assistant", "message": {"model": "m", "content": [{"type": "text", "text": "Done."}]}},
        {"type": "summary", "summary": "x"},
    ]
    found = of_transcript("s", entries)
    assert ([prompt.content for prompt in found.prompts], found.answer) == (["one"], "Done.")
    assert (found.cwd, found.model, found.input_tokens, found.tools["Bash"]) == ("/w", "m", 3, 1)


def test_a_transcript_of_claude_code_is_read_without_what_it_wrote_itself_and_counts_a_message_once() -> None:
    def user(text: str, **more: Any) -> dict[str, Any]:
        return {"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": text}]}, **more}

    usage = {"input_tokens": 3, "output_tokens": 2}
    blocks = [{"type": "text", "text": "I look."}, TOOL]
    said = [{"type": "assistant", "message": {"id": "m", "usage": usage, "content": [each]}} for each in blocks]
    summary = user("This session is being continued from a previous conversation.", isCompactSummary=True)
    found = of_transcript("s", [user("one"), *said, user("[Request interrupted by user for tool use]"), summary])
    assert len(found.prompts) == 1
    assert (found.input_tokens, found.output_tokens, found.answer) == (3, 2, "I look.")


def test_names_of_any_length_and_kind_are_fit_for_a_terminal_and_a_log(tmp_path: Path) -> None:
    written(tmp_path / "t", session("?", agent="\x1b[31m" + "x" * 5000))
    assert "\x1b" not in (tmp_path / "t/README.md").read_text()
    (task,) = [
        node for node in ast.parse((tmp_path / "t/task.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert len(task.name) < 80


def written(folder: Path, session: RecordedSession, **more: Any) -> dict[str, Any]:
    write_task(session, folder, **more)
    ast.parse((folder / "task.py").read_text())
    return json.loads((folder / "sample.json").read_text())


def session(*prompts: str, **more: Any) -> RecordedSession:
    return RecordedSession("s1", prompts=[UserInput(content=each) for each in prompts], **more)


def test_paths_of_the_recorded_machine_become_relative(tmp_path: Path) -> None:
    text = "Fix /home/me/shop/src/a.py in /home/me/shop, not /home/me/shopping or /home/me/shop.old"
    sample = written(tmp_path / "t", session(text, answer="/home/me/shop/b is done", cwd="/home/me/shop"))
    assert sample["input"] == ["Fix src/a.py in ., not /home/me/shopping or /home/me/shop.old"]
    assert sample["target"] == "b is done"


def test_secrets_and_personal_data_are_redacted_everywhere(tmp_path: Path) -> None:
    key, mail = "sk-ant-api03-" + "Zk4mQ9xT7vB2nL8pR5wY" * 4, "bob.smith@example.com"
    recorded = session(f"use {key}, write to {mail}", answer=f"sent {mail}", agent=f"bot of {mail}", model=key)
    files = [
        TaskFile("conf/a.env", f"KEY={key}\n".encode()),
        TaskFile("b.bin", b"\0" + mail.encode()),
        TaskFile("c", b"c"),
    ]
    write_task(recorded, tmp_path / "t", files=files, state="now")
    texts = {path: path.read_bytes() for path in (tmp_path / "t").rglob("*") if path.is_file()}
    assert not [path for path, data in texts.items() if key.encode() in data]
    assert [path.name for path, data in texts.items() if mail.encode() in data] == ["b.bin"]  # no text: left as it is
    assert (tmp_path / "t/files/c").read_bytes() == b"c"
    kept = tmp_path / "kept"
    assert mail in written(kept, recorded, redactor=Redactor(detectors=SECRETS))["target"]
    assert key not in (kept / "sample.json").read_text()


@pytest.mark.parametrize(("answer", "scorer"), [("42", "includes"), ("x" * 81, "f1"), ("a\nb", "f1"), ("", "f1")])
def test_a_short_answer_is_looked_for_and_a_long_one_compared(tmp_path: Path, answer: str, scorer: str) -> None:
    written(tmp_path / "t", session("?", answer=answer))
    assert f"scorer={scorer}()," in (tmp_path / "t/task.py").read_text()


@pytest.mark.parametrize(
    "name",
    [
        *(
            '""" + evil() + """',
            '""\\"; evil(); ""\\"',
            "\\N{x}",
            "class",
            "task",
            "9 lives",
            "日本",
            "{name}",
            "a\nb",
            "shlex",
        ),
        *("a\0b", "\x1b[31m", "\ud800"),
    ],
)
def test_whatever_an_agent_is_called_the_task_is_python(tmp_path: Path, name: str) -> None:
    written(tmp_path / "t", session(name, answer=name, agent=name, model=name))
    tree = ast.parse((tmp_path / "t/task.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "evil"]
    assert len([node for node in tree.body if isinstance(node, ast.FunctionDef)]) == 1


def test_a_redacted_name_is_not_told_by_the_name_of_the_task(tmp_path: Path) -> None:
    written(tmp_path / "t", session("?", agent="bob.smith@example.com"))
    assert "smith" not in (tmp_path / "t/task.py").read_text()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_texts_in_other_encodings_are_redacted_too(tmp_path: Path, encoding: str) -> None:
    files = [TaskFile("a.txt", "café bob.smith@example.com".encode(encoding))]
    assert write_task(session("?"), tmp_path / "t", files=files).redacted == 1
    assert (tmp_path / "t/files/a.txt").read_bytes().decode(encoding) == "café [REDACTED:EMAIL]"


def test_secrets_of_environment_files_are_redacted_however_plain_and_where_they_are_repeated(tmp_path: Path) -> None:
    text = b"# settings\nDB_PASSWORD=postgres\nexport API_SECRET='correct horse battery'\nMODE=test\n"
    files = [TaskFile("sub/.env.local", text), TaskFile("db.py", b"import postgres")]
    sample = written(tmp_path / "t", session("?", answer="It is correct horse battery."), files=files)
    assert sample["target"] == "It is [REDACTED:KNOWN_VALUE]."
    masked = (tmp_path / "t/files/sub/.env.local").read_text()
    assert masked == "# settings\nDB_PASSWORD=[REDACTED:SECRET]\nexport API_SECRET=[REDACTED:SECRET]\nMODE=test\n"
    assert (tmp_path / "t/files/db.py").read_text() == "import postgres"


def test_an_answer_without_a_word_is_not_looked_for(tmp_path: Path) -> None:
    sample = written(tmp_path / "t", session("?", answer="/home/me/shop", cwd="/home/me/shop"))
    assert sample["target"] == "."
    assert "scorer=f1()," in (tmp_path / "t/task.py").read_text()


def test_an_error_is_no_answer() -> None:
    error = "API Error: 500"
    told = [answered(error), said(type="result", is_error=True, result=error), ENDED]
    assert of_events("s", events(started(), asked(0, "one"), *told)).answer == ""
    entry = {"type": "assistant", "isApiErrorMessage": True, "message": {"content": [{"type": "text", "text": error}]}}
    asking = {"type": "user", "message": {"role": "user", "content": "one"}}
    assert of_transcript("s", [asking, entry]).answer == ""


def test_images_of_a_message_go_along(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    prompt = UserInput(content=[image, {"type": "text", "text": "what is it?"}, {"type": "document"}])
    sample = written(tmp_path / "t", RecordedSession("s1", prompts=[prompt]))
    assert sample["input"] == [
        [
            {"type": "image", "image": "data:image/png;base64,AAAA"},
            {"type": "text", "text": "what is it?"},
            {"type": "text", "text": "[document]"},
        ]
    ]


def test_a_folder_in_use_and_a_session_without_a_question_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValidationError, match="is not empty"):
        write_task(session("?"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValidationError, match="no message of a user"):
        write_task(session(), tmp_path / "t")
    with pytest.raises(ValidationError, match="cannot be written"):
        write_task(session("?"), tmp_path / "mine.txt" / "t")
    assert not (tmp_path / "t").exists()


def test_a_file_with_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PathEscapeError):
        write_task(session("?"), tmp_path / "t", files=[TaskFile("in.txt", b"x"), TaskFile("../out.txt", b"x")])
    assert not (tmp_path / "out.txt").exists()
    write_task(session("?"), tmp_path / "t")  # nothing of the failed one is in the way


def test_half_of_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    assert written(tmp_path / "t", session("a\ud800b"))["input"] == ["a?b"]


# ── Files ──


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    """A checkout whose files have changed since its commit, and the commit."""
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("before")
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "sub" / "gone.bin").write_bytes(bytes(range(256)))
    (folder / "link").symlink_to("a.txt")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    (folder / "a.txt").write_text("after")
    (folder / "new.txt").write_text("made")
    (folder / "sub" / "gone.bin").unlink()
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("x")
    return folder, head.stdout.strip()


async def test_files_are_those_of_a_commit(checkout: tuple[Path, str]) -> None:
    folder, commit = checkout
    found = await files_at(folder, commit)
    assert found is not None
    assert {each.path: (each.data, each.executable) for each in found} == {
        "a.txt": (b"before", False),
        "sub/run.sh": (b"#!/bin/sh\n", True),
        "sub/gone.bin": (bytes(range(256)), False),
    }
    inside = await files_at(folder / "sub", commit)
    assert inside is not None
    assert sorted(each.path for each in inside) == ["gone.bin", "run.sh"]


async def test_files_are_those_of_now_without_history_links_and_what_can_be_made_again(
    checkout: tuple[Path, str],
) -> None:
    found = await files_of(LocalWorkspace(checkout[0]))
    assert {each.path: each.data for each in found} == {
        "a.txt": b"after",
        "new.txt": b"made",
        "sub/run.sh": b"#!/bin/sh\n",
    }


async def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    for depth in (8, 9, 10, 20):
        folder = tmp_path.joinpath(*(str(level) for level in range(depth)))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.txt").write_text("x")
    assert sorted(each.path.count("/") for each in await files_of(LocalWorkspace(tmp_path))) == [8, 9, 10, 20]


async def test_pipes_names_that_are_no_text_and_keys_of_a_home_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".ssh").mkdir()
    for name in (".ssh/id_ed25519", ".netrc", os.fsdecode(b"\xff"), "a.txt"):
        (tmp_path / name).write_text("x")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["rev-parse", "HEAD"]):
        head = subprocess.run([*git, *command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert [each.path for each in await files_of(LocalWorkspace(tmp_path))] == ["a.txt"]
    assert [each.path for each in await files_at(tmp_path, head.strip()) or []] == ["a.txt"]


async def test_nothing_of_a_checkouts_configuration_runs(checkout: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = checkout
    trap = f"touch {tmp_path / 'sprung'}; cat"
    for key in (
        "filter.trap.smudge",
        "filter.trap.clean",
        "core.fsmonitor",
        "core.pager",
        "diff.external",
        "core.editor",
    ):
        subprocess.run(["git", "config", key, trap], cwd=folder, check=True)
    (folder / ".git" / "info" / "attributes").write_text("* filter=trap diff=trap\n")
    assert await files_at(folder, commit)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("commit", ["00" * 20, "HEAD", "--help", "ab" * 20 + "\n"])
async def test_a_commit_that_is_not_there_is_none(checkout: tuple[Path, str], commit: str) -> None:
    assert await files_at(checkout[0], commit) is None


async def test_no_checkout_is_none(tmp_path: Path) -> None:
    assert await files_at(tmp_path, "ab" * 20) is None


async def test_too_many_files_are_refused(checkout: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("computeragent.evals.files.MOST_FILES", 2)
    with pytest.raises(TooLargeError, match="3 files"):
        await files_of(LocalWorkspace(checkout[0]))
    with pytest.raises(TooLargeError, match="3 files"):
        await files_at(*checkout)
