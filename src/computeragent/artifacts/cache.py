"""The cache: one folder for each version of a program, with a list of its files and their hashes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from computeragent.artifacts.platforms import checked
from computeragent.artifacts.unpacking import file_hash, remove_tree
from computeragent.clis import SandboxPlatform
from computeragent.errors import ArtifactCorruptError, ComputerAgentError, PlatformError
from computeragent.logs import Logger
from computeragent.settings import home, private_folder, setting

KEPT = 5
"""How many versions of a program are kept: the ones used last."""

LISTING = "artifact.json"
_SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_log = Logger("artifacts")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A program in the cache: `folder` is all of it, may be mounted read-only elsewhere; `program` is what to run."""

    name: str
    version: str
    platform: SandboxPlatform
    folder: Path
    program: Path
    size: int
    used: float
    """Seconds since 1970 when it was used last."""


def valid_version(text: str) -> bool:
    """Whether a text can be a version: it becomes a file's name and an argument."""
    return _NAME.fullmatch(text) is not None


def root() -> Path:
    """Where the cache is: COMPUTERAGENT_ARTIFACTS, else a folder of the state folder."""
    stated = setting("artifacts")
    if stated:
        return private_folder(Path(stated).expanduser().absolute(), stated_by="COMPUTERAGENT_ARTIFACTS")
    return home("cache", "artifacts")


def read_only() -> bool:
    """Whether nothing can be put into the cache, as where a sandbox shows its host's."""
    return not os.access(root(), os.W_OK)


def _own(name: str) -> Path:
    """A folder of the cache's own, beside those of programs."""
    return private_folder(root(), name, stated_by="COMPUTERAGENT_ARTIFACTS")


@contextmanager
def locked(name: str) -> Generator[None]:
    """Hold a program's lock: of all processes and threads that share the cache, one at a time."""
    if read_only():  # nobody here changes it
        yield
        return
    with (_own(".locks") / f"{name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def staging() -> Generator[Path]:
    """A folder on the cache's disk to make something in; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="make-", dir=_own(".staging")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(name: str, version: str, platform: SandboxPlatform) -> Path:
    """The folder of one version."""
    return root() / name / f"{version}_{platform}"


def listed(name: str | None = None) -> list[Artifact]:
    """What is in the cache, the one used last first. Files are not read."""
    folders = [root() / name] if name is not None else [path for path in root().iterdir() if path.name[0] != "."]
    found = [read(entry) for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return sorted((each for each in found if each is not None), key=lambda each: -each.used)


def read(folder: Path) -> Artifact | None:
    """What a folder is, by its listing; None when it is no artefact."""
    listing = _listing(folder)
    if listing is None or folder.name.startswith("."):
        return None
    try:
        return Artifact(
            name=str(listing["name"]),
            version=str(listing["version"]),
            platform=checked(listing["platform"]),
            folder=folder,
            program=folder / listing["program"],
            size=sum(int(size) for _, size in listing["files"].values()),
            used=(folder / LISTING).stat().st_mtime,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError, PlatformError):
        return None


def _listing(folder: Path) -> dict[str, Any] | None:
    try:
        loaded: object = json.loads((folder / LISTING).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(loaded, dict) or cast("dict[str, Any]", loaded).get("schema") != _SCHEMA:
        return None
    return cast("dict[str, Any]", loaded)


def write_listing(folder: Path, *, name: str, version: str, platform: SandboxPlatform, program: str) -> None:
    """List a folder's files with their hashes. What is under `env` is made anew elsewhere, and not listed."""
    files = {
        str(path.relative_to(folder)): [file_hash(path), path.stat().st_size]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "env"
    }
    listing = {
        "schema": _SCHEMA,
        "name": name,
        "version": version,
        "platform": platform,
        "program": program,
        "files": files,
    }
    (folder / LISTING).write_text(json.dumps(listing), "utf-8")


def check(folder: Path) -> None:
    """Hold a folder's files to its listing. Raises `ArtifactCorruptError`."""
    listing = _listing(folder)
    if listing is None:
        raise ArtifactCorruptError(f"{folder.name} has no readable listing", hint="Remove it, and fetch it again.")
    try:
        files = {str(path): (str(digest), int(size)) for path, (digest, size) in listing["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        files = {"": ("", 0)}
    for path, (digest, size) in files.items():
        file = folder / path
        if not _confined(path) or not file.is_file() or file.stat().st_size != size or file_hash(file) != digest:
            raise ArtifactCorruptError(
                f"{path or LISTING} of {listing.get('name')} {listing.get('version')} in the cache has changed",
                hint="It is removed; fetch it again.",
            )


def _confined(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in Path(path).parts


def publish(made: Path, name: str, version: str, platform: SandboxPlatform) -> Path:
    """Move a finished folder to its place, and let the oldest go. The lock of `name` is held."""
    target = place(name, version, platform)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_tree(target)
    made.rename(target)
    use(target)
    evict(name)
    return target


def use(folder: Path) -> None:
    """Remember that this one is used now."""
    now = time.time_ns()
    try:
        os.utime(folder / LISTING, ns=(now, now))
    except OSError as error:
        _log.debug("artifact_use_not_noted", folder=str(folder), error=str(error))


def evict(name: str) -> list[Artifact]:
    """Keep the versions used last, and remove the others; what was removed. The lock of `name` is held."""
    versions: list[str] = []
    removed: list[Artifact] = []
    for artifact in listed(name):
        if artifact.version not in versions:
            versions.append(artifact.version)
        if artifact.version in versions[:KEPT]:
            continue
        remove_tree(artifact.folder)
        removed.append(artifact)
        _log.info("artifact_evicted", name=name, version=artifact.version, platform=artifact.platform)
    return removed


def copy_in(folder: Path) -> Artifact:
    """Take a folder of another machine's cache over. Raises `ArtifactCorruptError`."""
    check(folder)
    listing = _listing(folder)
    assert listing is not None
    name, version, platform = str(listing["name"]), str(listing["version"]), checked(str(listing["platform"]))
    if not (valid_version(name) and valid_version(version)):
        raise ArtifactCorruptError(f"{folder} names no version", hint="Copy a whole folder of a cache.")
    with locked(name), staging() as made:
        copied = made / "copy"
        for path in listing["files"]:
            target = copied / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / path, target)
        shutil.copy2(folder / LISTING, copied / LISTING)
        check(copied)
        target = publish(copied, name, version, platform)
    artifact = read(target)
    assert artifact is not None
    return artifact


def forget(artifact: Artifact) -> None:
    """Remove one version."""
    with locked(artifact.name):
        remove_tree(artifact.folder)


def remove_corrupt(folder: Path, error: ComputerAgentError) -> None:
    """Remove what is not as it was, and tell."""
    remove_tree(folder)
    _log.warn("artifact_removed", folder=folder.name, reason=error.message)
