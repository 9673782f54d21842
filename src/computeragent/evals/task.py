"""Writes a recorded session as a folder that Inspect runs: a task, its sample, its files; redacted."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from computeragent.errors import ValidationError
from computeragent.evals.files import TaskFile
from computeragent.evals.recorded import RecordedSession
from computeragent.evals.templates import README, TASK, WHY
from computeragent.jail import Jail
from computeragent.telemetry.redaction import Redactor
from computeragent.wire.requests import UserInput

_SHORT = 80
"""Characters of an answer that a right one may be asked to contain word for word."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the folder, how many files, and how many of them were redacted."""

    folder: Path
    files: int
    redacted: int


def write_task(
    session: RecordedSession,
    folder: Path,
    *,
    files: Sequence[TaskFile] = (),
    state: str = "none",
    redactor: Redactor | None = None,
    sandbox: str = "bwrap",
) -> Written:
    """Write a session as a task into `folder`, which must be empty or not exist.

    `state` says in a few words which files these are. `redactor` takes secrets and personal data out of all texts
    (default: all that we know of). Raises `ValidationError` for a session that nobody asked anything, and for a folder
    that is in use.
    """
    if not session.prompts:
        raise ValidationError(
            f"session {session.session_id} has no message of a user", hint="A task needs something to ask."
        )
    _make(folder)
    redactor = redactor or Redactor()
    kept, changed = _redacted(files, redactor)
    for item in kept:
        Jail(folder / "files").write_bytes(item.path, item.data, mode=0o755 if item.executable else 0o644)
    asked = [_content(prompt, session.cwd) for prompt in session.prompts]
    sample = {
        "id": session.session_id,
        "input": asked,
        "target": _relative(session.answer, session.cwd),
        "metadata": {"recorded": session.facts()},
    }
    clean: dict[str, Any] = redactor.redact(sample)
    clean |= {"files": [item.path for item in kept], "executable": [item.path for item in kept if item.executable]}
    scorer: Literal["includes", "f1"] = "includes" if _is_short(clean["target"]) else "f1"
    title = f"The session {session.session_id}" + (f" of {session.agent}" if session.agent else "")
    title = " ".join(redactor.redact_text(title).replace('"""', "").replace("\\", "").split())
    _write(folder / "sample.json", json.dumps(clean, indent=2, ensure_ascii=False) + "\n")
    task = TASK.format(title=title, scorer=scorer, name=_name(session), sandbox=sandbox, why=WHY[scorer])
    _write(folder / "task.py", task)
    facts = "\n".join(f"| {name} | {_cell(value)} |" for name, value in clean["metadata"]["recorded"].items())
    readme = README.format(
        title=title,
        facts=facts,
        messages=f"{len(asked)} of them, put at once" if len(asked) > 1 else "one",
        scorer=scorer,
        files=_told(len(kept), state),
        redacted=_redaction(changed),
    )
    _write(folder / "README.md", readme)
    return Written(folder, len(kept), changed)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        in_use = any(folder.iterdir())
        (folder / "files").mkdir(exist_ok=True)
    except OSError as error:
        raise ValidationError(f"{folder} cannot be written: {error.strerror}", hint="Choose another --out.") from error
    if in_use:
        raise ValidationError(f"{folder} is not empty", hint="Choose another --out, or remove it.")


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _redacted(files: Sequence[TaskFile], redactor: Redactor) -> tuple[list[TaskFile], int]:
    """The files with their texts redacted, and how many that changed. What is no text stays as it is."""
    kept: list[TaskFile] = []
    changed = 0
    for item in files:
        try:
            item.path.encode()
            text = item.data.decode("utf-8")
        except UnicodeError:
            text = "\0"
        data = item.data if "\0" in text else redactor.redact_text(text).encode()
        changed += data != item.data
        kept.append(TaskFile(item.path, data, item.executable))
    return kept, changed


def _content(prompt: UserInput, cwd: str | None) -> str | list[dict[str, Any]]:
    """A message's content in Inspect's words."""
    if isinstance(prompt.content, str):
        return _relative(prompt.content, cwd)
    parts: list[dict[str, Any]] = []
    for block in prompt.content:
        if block.get("type") == "text":
            parts.append({"type": "text", "text": _relative(str(block.get("text", "")), cwd)})
        elif block.get("type") == "image" and isinstance(source := block.get("source"), dict) and "data" in source:
            kind: object = source.get("media_type", "image/png")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            parts.append({"type": "image", "image": f"data:{kind};base64,{source['data']}"})
        else:
            parts.append({"type": "text", "text": f"[{block.get('type')}]"})
    return parts


def _relative(text: str, cwd: str | None) -> str:
    """A text that names files as the sample has them: relative to the folder that the agent works in."""
    if cwd is None or cwd.count("/") < 2:
        return text
    folder = re.escape(cwd.rstrip("/"))
    return re.sub(rf"{folder}(/|(?![\w.-]))", lambda found: "" if found[1] else ".", text)


def _is_short(answer: str) -> bool:
    return 0 < len(answer) <= _SHORT and "\n" not in answer


def _name(session: RecordedSession) -> str:
    """A name for the task: the agent's, as Python allows it."""
    name = re.sub(r"\W+", "_", session.agent.lower(), flags=re.ASCII).strip("_") or "session"
    return f"task_{name}" if keyword.iskeyword(name) or name[0].isdigit() or name in _TAKEN else name


_TAKEN = frozenset({"task", "json", "shlex", "sample", "includes", "f1"})


def _cell(value: object) -> str:
    text = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)  # pyright: ignore[reportUnknownVariableType]
    return " ".join(text.replace("|", "\\|").split())


def _redaction(changed: int) -> str:
    return f"secrets and personal data, in {changed} of the files too." if changed else "the texts; no file had to be."


def _told(count: int, state: str) -> str:
    return f"{count}, {state}." if count else f"none ({state})."
