"""What callers send: user messages, permission decisions, attachments, store choices."""

from __future__ import annotations

from typing import Any, Literal, cast

from msgspec import Struct


class UserInput(Struct, frozen=True, kw_only=True):
    """One user message: text, or a list of content blocks in the Anthropic Messages shape."""

    content: str | list[dict[str, Any]]
    role: Literal["user"] = "user"

    def text(self) -> str:
        """The text of the message, images and other blocks left out."""
        if isinstance(self.content, str):
            return self.content
        texts: list[object] = [block.get("text") for block in self.content if block.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))

    def text_length(self) -> int:
        """Characters of text in the message, images and other blocks not counted."""
        return len(self.text())


class PermissionDecision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a permission request. `modify` runs the tool with `input` instead of its own."""

    decision: Literal["allow", "deny", "modify"]
    input: dict[str, Any] | None = None
    reason: str | None = None


class Attachment(Struct, frozen=True, kw_only=True):
    """A file written into the agent's working directory before the engine starts. `path` is relative and jailed."""

    path: str
    content: str
    encoding: Literal["utf8", "base64"] = "utf8"


class StoreConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session store by name, with the options that its factory takes."""

    kind: str
    options: dict[str, Any] | None = None


class Transcript(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Entries of a session's memory: of the session itself, or of the sub-agent at `subpath`."""

    entries: list[dict[str, Any]]
    subpath: str | None = None


class HostedRun(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A run that a harness outside of a sandbox has prepared for the engine host in it.

    Policy, memory, telemetry and keys stay outside: the host asks for every tool call, and tells what it remembers.
    """

    name: str
    version: str
    sha: str | None = None
    trusted: bool = False
    strict: bool = False
    state_dir: str
    project_key: str
    approval_timeout: float
    transcripts: list[Transcript] = []


def join_messages(messages: list[UserInput]) -> UserInput:
    """Several user messages as one turn: their content blocks in order, as the Messages API itself joins them."""
    if len(messages) == 1:
        return messages[0]
    blocks: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message.content, str):
            blocks.append(cast("dict[str, Any]", {"type": "text", "text": message.content}))
        else:
            blocks.extend(message.content)
    return UserInput(content=blocks)
