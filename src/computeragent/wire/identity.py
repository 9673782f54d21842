"""Where an agent comes from: a git repository, a local directory, or files given in the request."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class GitSource(Struct, frozen=True, kw_only=True, tag_field="type", tag="git", omit_defaults=True):
    """A repository. `ref` is a branch, tag or commit; `subdir` is the agent's folder inside it."""

    url: str
    ref: str | None = None
    subdir: str | None = None


class LocalSource(Struct, frozen=True, kw_only=True, tag_field="type", tag="local"):
    """A directory on this machine."""

    path: str


class InlineSource(Struct, frozen=True, kw_only=True, tag_field="type", tag="inline", omit_defaults=True):
    """A manifest (the keys of agent.yaml) and files by relative path."""

    manifest: dict[str, Any]
    files: dict[str, str] = {}


IdentitySource = GitSource | LocalSource | InlineSource


class IdentityRef(Struct, frozen=True, kw_only=True):
    """A source and the loader that reads it."""

    loader: str
    source: IdentitySource
