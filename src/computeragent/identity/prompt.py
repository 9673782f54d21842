"""The texts of a GAP agent, stitched into one system prompt: who it is, its soul, its rules, what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from computeragent.errors import ComputerAgentError, IdentityError, NotFoundError
from computeragent.identity.agent_yaml import AgentYaml
from computeragent.jail import Jail

MAX_TEXT = 64 * 1024
"""The largest single text, in bytes."""
MAX_PROMPT = 120 * 1024
"""The largest prompt, in bytes: it travels to the engine in one command-line argument, which Linux limits."""
MAX_KNOWLEDGE = 32 * 1024
"""How much of the documents marked `always_load` goes into the prompt, in bytes."""
_INDEX = "knowledge/index.yaml"
_LISTS = ("documents", "entries", "knowledge", "files")


def identity_block(name: str, version: str, description: str | None) -> str:
    """The first paragraph: what the agent is called."""
    return f"# Identity\n\nYou are {name}, version {version}." + (f" {description.strip()}" if description else "")


def sections(jail: Jail, *, claude_md: bool) -> list[str]:
    """The agent's own files that exist, each under its heading. CLAUDE.md only where the engine does not read it."""
    wanted = [("Soul", "SOUL.md"), ("Rules", "RULES.md"), ("Agents", "AGENTS.md")]
    texts = [(title, read_text(jail, name)) for title, name in wanted]
    found = [(title, text) for title, text in texts if text]
    if claude_md:
        text = read_text(jail, "CLAUDE.md")
        if text and text not in {other for _, other in found}:
            found.append(("Instructions", text))
    return [f"# {title}\n\n{text}" for title, text in found]


def stitched(texts: Sequence[str]) -> str:
    """The sections as one prompt, unless it is too large for an engine."""
    prompt = "\n\n".join(text for text in texts if text)
    size = len(prompt.encode())
    if size > MAX_PROMPT:
        raise IdentityError(
            f"the agent's texts have {size} bytes together, more than {MAX_PROMPT}",
            hint="Move detail into skills/, or list documents in knowledge/ without always_load.",
        )
    return prompt


def read_text(jail: Jail, name: str) -> str | None:
    """A text file of the agent, or None where it does not exist. Links that leave the agent's folder are refused."""
    try:
        data = jail.read_bytes(name)
    except NotFoundError:
        return None
    except ComputerAgentError as error:
        raise IdentityError(f"{name} cannot be read: {error.message}", hint=error.hint) from None
    if len(data) > MAX_TEXT:
        raise IdentityError(
            f"{name} has {len(data)} bytes, more than {MAX_TEXT}", hint="Move detail into skills/ or knowledge/."
        )
    return data.decode("utf-8-sig", "replace").strip()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The section about knowledge/, or "", and what could not be taken along."""

    section: str
    notes: tuple[str, ...]


def knowledge(jail: Jail) -> Knowledge:
    """The documents that knowledge/index.yaml lists, and the text of those that it marks `always_load`."""
    text = read_text(jail, _INDEX)
    if text is None:
        return Knowledge("", ())
    index = AgentYaml(text, _INDEX)
    listed: list[str] = []
    loaded: list[str] = []
    notes: list[str] = []
    room = MAX_KNOWLEDGE
    for path, description, always in _documents(index):
        listed.append(f"- {path}" + (f": {description}" if description else ""))
        if not always:
            continue
        try:
            content = jail.read_bytes(path, limit=room).decode("utf-8", "replace").strip()
        except ComputerAgentError as error:
            notes.append(f"{path} is not loaded: {error.message}")
            continue
        room -= len(content.encode())
        loaded.append(f"## {path}\n\n{content}")
    if not listed:
        return Knowledge("", tuple(notes))
    head = "# Knowledge\n\nRead these files when they bear on the task:\n\n" + "\n".join(listed)
    return Knowledge("\n\n".join([head, *loaded]), tuple(notes))


def _documents(index: AgentYaml) -> list[tuple[str, str | None, bool]]:
    data: Any = index.data
    path: tuple[str | int, ...] = ()
    if isinstance(data, Mapping):
        keyed = cast("Mapping[str, Any]", data)
        key = next((key for key in _LISTS if key in keyed), None)
        data, path = (keyed[key], (key,)) if key else (None, ())
    if data is None:
        return []
    if not isinstance(data, list):
        raise index.wrong(path, "must be a list of documents", data, "For example: documents: [{path: guide.md}]")
    return [_document(index, (*path, at), item) for at, item in enumerate(cast("list[Any]", data))]


def _document(index: AgentYaml, at: tuple[str | int, ...], item: Any) -> tuple[str, str | None, bool]:
    fields: Mapping[str, Any] = {"path": item} if isinstance(item, str) else item
    if not isinstance(fields, Mapping) or not isinstance(fields.get("path"), str) or not fields["path"]:
        raise index.wrong(at, "must have a path", item, "For example: - path: guide.md")
    description = fields.get("description")
    path = fields["path"].removeprefix("./")
    return (
        path if path.startswith("knowledge/") else f"knowledge/{path}",
        str(description).strip() if description else None,
        fields.get("always_load") is True,
    )
