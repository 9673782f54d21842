"""Writes a recorded session as a folder that Inspect runs: a task, its sample, its files; redacted."""

from __future__ import annotations

import json
import keyword
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from computeragent.errors import ValidationError
from computeragent.evals.files import TaskFile
from computeragent.evals.recorded import RecordedSession
from computeragent.evals.templates import README, TASK, WHY
from computeragent.jail import Jail
from computeragent.telemetry.redaction import Redactor, credentials_in
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
    (default: all that we know of), and learns those of `.env` files. When writing fails, nothing is left in `folder`.
    Raises `ValidationError` for a session that nobody asked anything, and for a folder that is in use.
    """
    if not session.prompts:
        raise ValidationError(
            f"session {session.session_id} has no message of a user", hint="A task needs something to ask."
        )
    redactor = redactor or Redactor()
    redactor.known_values(_secrets_in(files))
    kept, changed = _redacted(files, redactor)
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
    title = _line(redactor.redact_text(title))
    name = _name(clean["metadata"]["recorded"].get("agent", ""))
    task = TASK.format(title=title, scorer=scorer, name=name, sandbox=sandbox, why=WHY[scorer])
    facts = "\n".join(f"| {name} | {_cell(value)} |" for name, value in clean["metadata"]["recorded"].items())
    readme = README.format(
        title=title,
        facts=facts,
        messages=f"{len(asked)} of them, put at once" if len(asked) > 1 else "one",
        scorer=scorer,
        files=_told(len(kept), state),
        redacted=_redaction(changed),
    )
    with _made(folder):
        for item in kept:
            Jail(folder / "files").write_bytes(item.path, item.data, mode=0o755 if item.executable else 0o644)
        _write(folder / "sample.json", json.dumps(clean, indent=2, ensure_ascii=False) + "\n")
        _write(folder / "task.py", task)
        _write(folder / "README.md", readme)
    return Written(folder, len(kept), changed)


@contextmanager
def _made(folder: Path) -> Generator[None]:
    """The folder, empty; and empty again when writing to it fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValidationError(f"{folder} is not empty", hint="Choose another --out, or remove it.")
        try:
            (folder / "files").mkdir()
            yield
        except BaseException:
            shutil.rmtree(folder / "files", ignore_errors=True)
            for name in ("sample.json", "task.py", "README.md"):
                (folder / name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValidationError(f"{folder} cannot be written: {error.strerror}", hint="Choose another --out.") from error


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "replace"))  # half of a surrogate pair is no text


def _redacted(files: Sequence[TaskFile], redactor: Redactor) -> tuple[list[TaskFile], int]:
    """The files with their texts redacted, and how many that changed. What is no text stays as it is."""
    kept: list[TaskFile] = []
    changed = 0
    for item in files:
        text, encoding = _text(item)
        clean = redactor.redact_text(_without_settings(text) if _ENVIRONMENT.search(item.path) else text)
        data = item.data if clean == text else clean.encode(encoding)
        changed += data != item.data
        kept.append(TaskFile(item.path, data, item.executable))
    return kept, changed


def _text(item: TaskFile) -> tuple[str, str]:
    """A file's text and its encoding, a guess of Latin-1 included; empty for one that is no text."""
    for encoding in ("utf-16",) if item.data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ("utf-8", "latin-1"):
        with suppress(UnicodeError):
            text = item.data.decode(encoding)
            return ("", encoding) if "\0" in text else (text, encoding)
    return "", "utf-8"


def _secrets_in(files: Sequence[TaskFile]) -> list[str]:
    """The secrets of `.env` files that may be looked for in other texts: not those that are a word, as ``postgres``."""
    texts = [_text(item)[0] for item in files if _ENVIRONMENT.search(item.path)]
    values = [value for text in texts for match in _SETTING.finditer(text) for value in _secret(match)]
    return [value for value in values if not value.isalpha()]


def _without_settings(text: str) -> str:
    """The text of a `.env` file without the values of secrets, however plain they are."""
    return _SETTING.sub(lambda match: f"{match[1]}[REDACTED:SECRET]" if _secret(match) else match[0], text)


def _secret(setting: re.Match[str]) -> list[str]:
    return credentials_in({setting[2]: setting[3].strip().strip("'\"")})


_ENVIRONMENT = re.compile(r"(?:^|/)\.env(?:\.[^/]*)?$|\.env$")
_SETTING = re.compile(r"^([ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*)([^\r\n]*)", re.MULTILINE)


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
    return len(answer) <= _SHORT and "\n" not in answer and re.search(r"\w", answer) is not None


def _line(text: str) -> str:
    """A text as one line that may stand in a string of Python: no quote or backslash, nothing that is not printed."""
    return " ".join("".join(char for char in part if char.isprintable() and char not in '"\\') for part in text.split())


def _name(agent: str) -> str:
    """A name for the task: the agent's, as Python allows it."""
    name = re.sub(r"\W+", "_", agent.lower(), flags=re.ASCII)[:64].strip("_") or "session"
    return f"task_{name}" if keyword.iskeyword(name) or name[0].isdigit() or name in _TAKEN else name


_TAKEN = frozenset({"task", "json", "shlex", "sample", "includes", "f1"})


def _cell(value: object) -> str:
    text = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)  # pyright: ignore[reportUnknownVariableType]
    return "".join(char for char in " ".join(text.replace("|", "\\|").split()) if char.isprintable())


def _redaction(changed: int) -> str:
    return f"secrets and personal data, in {changed} of the files too." if changed else "the texts; no file had to be."


def _told(count: int, state: str) -> str:
    return f"{count}, {state}." if count else f"none ({state})."
