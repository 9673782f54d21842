"""Sources: what users write (`parse_source`), and the directory that comes of it (`fetch`)."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from anyio import CancelScope, to_thread

from computeragent.errors import ComputerAgentError, PathEscapeError, SourceError, ValidationError
from computeragent.identity.copying import copy_directory
from computeragent.identity.credentials import CredentialResolver
from computeragent.identity.git import CLONE_SECONDS, clone, head_commit
from computeragent.identity.inline import plain_manifest, write_inline
from computeragent.identity.repository import parse_repository
from computeragent.jail import Jail
from computeragent.wire.encoding import to_json
from computeragent.wire.identity import GitSource, IdentitySource, InlineSource, LocalSource

_KEYS: dict[str, dict[str, type]] = {
    "git": {"url": str, "ref": str, "subdir": str},
    "local": {"path": str},
    "inline": {"manifest": dict, "files": dict},
}
_REQUIRED = {"git": "url", "local": "path", "inline": "manifest"}
_NOUNS: dict[type, str] = {str: "a string", dict: "a mapping"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A source on disk. `path` is the agent's folder, `root` what was fetched around it, `sha` the commit."""

    path: Path
    sha: str | None
    root: Path


def parse_source(value: object) -> IdentitySource:
    """The source that a path, string, mapping or source object stands for. Raises `ValidationError`.

    A string that starts with ``/``, ``./``, ``../`` or ``~`` is a directory; any other is a git repository, such
    as ``github.com/org/repo?ref=v1.2&subdir=agents/triage``. A mapping without ``type`` is an inline manifest.
    """
    if isinstance(value, GitSource):
        return _with_query(value)
    if isinstance(value, (LocalSource, InlineSource)):
        return value
    if isinstance(value, os.PathLike):
        return LocalSource(path=os.fsdecode(cast("os.PathLike[str]", value)))
    if isinstance(value, str):
        return _from_text(value.strip())
    if isinstance(value, Mapping):
        return _from_mapping(dict(cast("Mapping[str, Any]", value)))
    raise ValidationError(
        f"source must be a path, a string or a mapping, got {type(value).__name__}",
        hint='For example Path("agents/hello"), "github.com/org/repo", or {"type": "git", "url": …}.',
    )


async def fetch(
    source: IdentitySource,
    *,
    into: Path,
    git_credentials: CredentialResolver | None = None,
    envs: Mapping[str, str] | None = None,
    in_place: bool = False,
    progress: Callable[[str], None] | None = None,
    timeout: float = CLONE_SECONDS,
) -> Fetched:
    """Bring a source to disk. Raises `SourceError` or `ValidationError`.

    `in_place` is library mode: a local directory is used where it is, and ``file://`` repositories may be cloned.
    Otherwise the agent gets a copy in `into`. A directory that an earlier fetch of the same source made is kept as
    it is, with the agent's work in it; one of another source is replaced.
    """
    source = parse_source(source)
    if isinstance(source, LocalSource) and in_place:
        directory = await to_thread.run_sync(_local_directory, source)
        return Fetched(path=directory, sha=await head_commit(directory), root=directory)
    receipt = _Receipt(into.with_name(f"{into.name}.json"), _digest(source))
    subdir = source.subdir if isinstance(source, GitSource) else None
    kept = await to_thread.run_sync(receipt.read, into)
    if kept is not None:
        return Fetched(path=_agent_folder(into, subdir, source), sha=kept["sha"], root=into)
    part = into.with_name(f"{into.name}.part")
    await to_thread.run_sync(_clear, part)
    try:
        match source:
            case GitSource():
                repository = parse_repository(source.url, allow_file=in_place)
                sha = await clone(
                    repository,
                    source.ref,
                    part,
                    envs=envs or {},
                    resolver=git_credentials,
                    progress=progress,
                    timeout=timeout,
                )
            case LocalSource():
                directory = await to_thread.run_sync(_local_directory, source)
                sha = await head_commit(directory)
                count = await to_thread.run_sync(copy_directory, directory, part)
                if progress is not None:
                    progress(f"Copied {count} files")
            case InlineSource():
                sha = None
                await to_thread.run_sync(write_inline, source, part)
        _agent_folder(part, subdir, source)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(_clear, part)
        raise
    await to_thread.run_sync(_put_in_place, part, into, receipt, sha)
    return Fetched(path=_agent_folder(into, subdir, source), sha=sha, root=into)


# ── Reading what users write ─────────────────────────────────────────────────────────────────────────────────


def _from_text(text: str) -> IdentitySource:
    if text in {".", ".."} or text.startswith(("/", "./", "../", "~")):
        return LocalSource(path=text)
    if not text:
        raise ValidationError("source is empty", hint='Give a directory ("./agent") or a repository (host/org/repo).')
    host = text.partition("/")[0]
    if "://" not in text and not any(mark in host for mark in ".:@") and host != "localhost":
        raise ValidationError(
            f"{text[:100]!r} is neither a directory nor a repository",
            hint=f"Write ./{text[:100]} for a directory, or github.com/{text[:100]} for a repository.",
        )
    return _with_query(GitSource(url=text))


def _with_query(source: GitSource) -> GitSource:
    """Move ``?ref=`` and ``?subdir=`` of the address to where they belong; other parameters stay."""
    address, _, query = source.url.partition("?")
    if not query:
        return source
    pairs = parse_qsl(query, keep_blank_values=True)
    given = {"ref": source.ref, "subdir": source.subdir}
    for key, value in pairs:
        if key in given:
            if given[key] not in {None, value}:
                raise ValidationError(f"{key} is given twice, and differently", hint="Give it once.")
            given[key] = value or None
    rest = urlencode([pair for pair in pairs if pair[0] not in given])
    return GitSource(url=f"{address}?{rest}" if rest else address, ref=given["ref"], subdir=given["subdir"])


def _from_mapping(value: dict[str, Any]) -> IdentitySource:
    kind = value.pop("type", None)
    if kind is None:
        return _untyped(value)
    if kind not in _KEYS:
        raise ValidationError(f"source type {str(kind)[:40]!r} is not known", hint="Use git, local or inline.")
    allowed = _KEYS[kind]
    noun = "an inline source" if kind == "inline" else f"a {kind} source"
    for key, given in value.items():
        if key not in allowed:
            close = difflib.get_close_matches(str(key).lower(), allowed, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ValidationError(
                f"unknown key {str(key)[:40]!r} in {noun}", hint=f"{hint}Allowed: {', '.join(allowed)}."
            )
        if given is not None and not isinstance(given, allowed[key]):
            raise ValidationError(
                f"{key} of {noun} must be {_NOUNS[allowed[key]]}, got {type(given).__name__}",
                hint=f"Allowed keys: {', '.join(allowed)}.",
            )
    needed = _REQUIRED[kind]
    if kind == "inline" and value.get("files"):
        value.setdefault("manifest", {})
    if value.get(needed) is None or value[needed] == "":
        raise ValidationError(f"{noun} needs {needed!r}", hint=f"Allowed keys: {', '.join(allowed)}.")
    return _build(kind, {key: given for key, given in value.items() if given is not None})


def _build(kind: str, value: dict[str, Any]) -> IdentitySource:
    if kind == "git":
        return _with_query(GitSource(**value))
    if kind == "local":
        return LocalSource(**value)
    for name, text in value.get("files", {}).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValidationError(
                f"inline file {str(name)[:100]!r} must be a string", hint="files maps relative paths to text."
            )
    return InlineSource(**value)


def _untyped(value: dict[str, Any]) -> InlineSource:
    """A mapping without `type` is a manifest, unless it looks like a source whose type was forgotten."""
    if "name" not in value:
        for kind, key in (("git", "url"), ("local", "path"), ("inline", "manifest"), ("inline", "files")):
            if key in value:
                raise ValidationError("the source has no type", hint=f'Add "type": "{kind}".')
    return InlineSource(manifest=value)


# ── Bringing it to disk ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Receipt:
    """A note beside a fetched directory of what it was made from. The digest hides what an address may contain."""

    path: Path
    digest: str

    def read(self, directory: Path) -> dict[str, Any] | None:
        if not directory.is_dir():
            return None
        try:
            noted = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return {"sha": noted.get("sha")} if noted.get("source") == self.digest else None

    def write(self, sha: str | None) -> None:
        self.path.write_text(json.dumps({"source": self.digest, "sha": sha}), "utf-8")


def _digest(source: IdentitySource) -> str:
    if isinstance(source, InlineSource):
        source = InlineSource(manifest=plain_manifest(source), files=source.files)
    return hashlib.sha256(to_json(source)).hexdigest()


def _put_in_place(part: Path, into: Path, receipt: _Receipt, sha: str | None) -> None:
    receipt.path.unlink(missing_ok=True)
    _clear(into)
    part.rename(into)
    receipt.write(sha)


def _clear(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)


def _local_directory(source: LocalSource) -> Path:
    path = Path(source.path).expanduser()
    if not path.exists():
        raise SourceError(f"directory {source.path} does not exist", hint="Check the spelling.")
    if not path.is_dir():
        raise SourceError(f"{source.path} is not a directory", hint="Give the folder that holds the agent's files.")
    return path.resolve()


def _agent_folder(root: Path, subdir: str | None, source: IdentitySource) -> Path:
    if not subdir:
        return root
    jail = Jail(root)
    try:
        return jail.directory(subdir)
    except PathEscapeError as error:
        raise PathEscapeError(f"subdir {subdir[:100]!r}: {error.message}", hint=error.hint) from None
    except ComputerAgentError:
        there = [entry.path for entry in jail.tree(depth=0) if entry.type == "dir" and entry.path != ".git"]
        name = parse_repository(source.url, allow_file=True).name if isinstance(source, GitSource) else "the source"
        raise SourceError(
            f"subdir {subdir[:100]!r} not found in {name}",
            hint=f"Directories there: {', '.join(there[:10]) or 'none'}.",
            details={"subdir": subdir},
        ) from None
