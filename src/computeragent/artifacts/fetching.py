"""Programs of agents, from the cache or from their packages: `fetch`, `prefetch`, `seed`."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from computeragent.artifacts import cache
from computeragent.artifacts.cache import Artifact
from computeragent.artifacts.making import (
    ArtifactProgress,
    Order,
    Tell,
    make_bundle,
    make_environment,
    make_native,
    make_wheels,
    native_spec,
    unpack_native,
)
from computeragent.artifacts.platforms import checked, host_platform
from computeragent.artifacts.running import is_offline, refuse_offline
from computeragent.artifacts.unpacking import file_hash
from computeragent.artifacts.versions import Memo, matching, newest_cached, resolve
from computeragent.clis import CLIS, NODE, Package, SandboxPlatform, cli
from computeragent.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactUnavailableError,
    ComputerAgentError,
)
from computeragent.logs import Logger

_log = Logger("artifacts")
_checked = Memo()
_ACP = "_acp"


def packages() -> dict[str, Package]:
    """Every program that is had from packages: agents, their adapters of the Agent Client Protocol, node."""
    adapters = {
        f"{row.name}{_ACP}": row.acp.adapter for row in CLIS.values() if row.acp is not None and row.acp.adapter
    }
    return {**{row.name: row.package for row in CLIS.values()}, **adapters, "node": NODE}


def package_of(name: str) -> Package:
    """The package of a program. Raises `UnknownCliError`."""
    found = packages().get(name)
    return found if found is not None else cli(name).package


def silent(_progress: ArtifactProgress) -> None:
    """Tell nobody."""


def fetch(
    name: str,
    version: str = "stable",
    platform: SandboxPlatform | None = None,
    *,
    offline: bool | None = None,
    tell: Tell = silent,
) -> Artifact:
    """A program, from the cache where it is there, else from its package; its files are held to their hashes.

    `name` is an agent of the table (`claude_code`), an adapter (`codex_cli_acp`) or `node`. `version` is `auto`,
    `stable`, `latest` or a number; `auto` means the stable one, or what the cache has where no registry answers.
    `platform` defaults to this machine's. With `offline` (default: COMPUTERAGENT_OFFLINE) the network is not touched,
    nor where the cache can only be read.
    Processes and threads that ask for the same wait for one download. Blocks; call it from a thread in async code.

    Raises `UnknownCliError`, `UnknownVersionError`, `PlatformError`, `ArtifactUnavailableError`,
    `ArtifactCorruptError`, `ArtifactError`, `ValidationError`.
    """
    package = package_of(name)
    target = checked(platform) if platform is not None else host_platform()
    quiet = is_offline(offline) or cache.read_only()
    word = "stable" if version == "auto" else version
    if package.kind == "native":
        native_spec(Order(name=name, package=package, version="0", platform=target, tell=tell))
    try:
        exact = _exact(name, package, word, target, offline=quiet)
    except ArtifactUnavailableError as error:
        fallback = newest_cached(name, target) if version == "auto" else None
        if fallback is None:
            raise
        _log.warn("artifact_registry_unreachable", name=name, using=fallback, reason=error.message)
        exact = fallback
    order = Order(name=name, package=package, version=exact, platform=target, tell=tell)
    key = (str(cache.root()), name, exact, target)
    found = _checked.once(key, lambda: _obtain(order, offline=quiet), _unchanged)
    cache.use(found.folder)
    return found


def find(name: str, version: str, platform: SandboxPlatform, installed: str | None, **options: Any) -> str | Artifact:
    """What `auto` and `sandbox` mean where a program may be there already: the path in `installed`, else an artefact.

    Raises `ArtifactError` for `sandbox` where nothing is installed, and what `fetch` raises.
    """
    if installed and version in {"auto", "sandbox"}:
        return installed
    if version == "sandbox":
        raise ArtifactError(
            f"{cli(name).title} is not installed in the sandbox",
            hint=f"Put {cli(name).program} on its PATH, or use version auto, stable, latest or a number.",
        )
    return fetch(name, version, platform, **options)


def _exact(name: str, package: Package, word: str, platform: SandboxPlatform, *, offline: bool) -> str:
    if name == "node" and word in {"stable", "latest"} and not offline:
        return matching(NODE.index, "22")
    return resolve(name, package, word, platform, offline=offline)


def _unchanged(artifact: Artifact) -> bool:
    """Whether what was checked before is still that, as far as a glance tells."""
    found = cache.read(artifact.folder)
    try:
        return found is not None and found.size == artifact.size and artifact.program.stat().st_mtime <= artifact.used
    except OSError:
        return False


def _obtain(order: Order, *, offline: bool) -> Artifact:
    node = None
    with cache.locked(order.name):
        found = _cached(order)
    if found is None:
        if offline:
            refuse_offline(order.what)
        if order.package.kind == "bundle":
            platform = order.platform
            node = fetch("node", "stable", platform, offline=False, tell=order.tell).program
        with cache.locked(order.name):
            found = _cached(order) or _make(order, node)
    if order.package.kind == "wheels" and order.platform == host_platform():
        with cache.locked(order.name):
            if not (found.folder / "env" / ".made").is_file():
                make_environment(order, found.folder)
                (found.folder / "env" / ".made").touch()
    cache.use(found.folder)
    order.say("done")
    seen = cache.read(found.folder)
    assert seen is not None
    return seen


def _cached(order: Order) -> Artifact | None:
    folder = cache.place(order.name, order.version, order.platform)
    if not folder.is_dir():
        return None
    try:
        order.say("checking")
        cache.check(folder)
    except ArtifactCorruptError as error:
        if cache.read_only():
            raise
        cache.remove_corrupt(folder, error)
        return None
    return cache.read(folder)


def _make(order: Order, node: Path | None) -> Artifact:
    with cache.staging() as work:
        made = work / "made"
        if order.package.kind == "native":
            program = make_native(order, work, made)
        elif order.package.kind == "bundle":
            assert node is not None
            program = make_bundle(order, made, node)
        else:
            make_wheels(order, made, f"{sys.version_info[0]}{sys.version_info[1]}")
            program = order.package.program
        return _publish(order, made, program)


def _publish(order: Order, made: Path, program: str) -> Artifact:
    order.say("listing")
    cache.write_listing(made, name=order.name, version=order.version, platform=order.platform, program=program)
    folder = cache.publish(made, order.name, order.version, order.platform)
    artifact = cache.read(folder)
    assert artifact is not None
    return artifact


def prefetch(
    names: Iterable[str] | None = None,
    version: str = "stable",
    platform: SandboxPlatform | None = None,
    *,
    offline: bool | None = None,
    tell: Tell = silent,
) -> tuple[list[Artifact], dict[str, ComputerAgentError]]:
    """Fetch several programs (default: every agent of the table); what was fetched, and what failed, by name.

    One that fails keeps the others from nothing.
    """
    fetched: list[Artifact] = []
    failed: dict[str, ComputerAgentError] = {}
    for name in list(CLIS) if names is None else list(names):
        try:
            fetched.append(fetch(name, version, platform, offline=offline, tell=tell))
        except ComputerAgentError as error:
            failed[name] = error
    return fetched, failed


def seed(folder: Path, *, tell: Tell = silent) -> list[Artifact]:
    """Take programs from a folder; no registry is asked.

    The folder has packages as `npm pack` writes them (`*.tgz`, those of a platform), or folders of another machine's
    cache (`cache/artifacts` of its COMPUTERAGENT_HOME, at any depth). Raises `ArtifactError` when there is nothing,
    `ArtifactCorruptError` for what is damaged.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder", hint="Name a folder of packages, or of another machine's cache.")
    taken = [
        cache.copy_in(listing.parent)
        for listing in sorted(folder.rglob(cache.LISTING))
        if not any(part.startswith(".") for part in listing.relative_to(folder).parts)
    ]
    taken += [artifact for archive in sorted(folder.glob("*.tgz")) for artifact in _seed_package(archive, tell)]
    if not taken:
        raise ArtifactError(
            f"nothing in {folder} is a program of an agent",
            hint="Put packages of a platform there, such as `npm pack @anthropic-ai/claude-code-linux-x64` writes.",
        )
    return taken


def _seed_package(archive: Path, tell: Tell) -> list[Artifact]:
    described = _described(archive)
    taken: list[Artifact] = []
    for name, package in packages().items():
        for platform, spec in package.platforms.items():
            prefix, _, suffix = spec.partition("{version}")
            found = re.fullmatch(re.escape(prefix) + r"(\d.*?)" + re.escape(suffix), described)
            if found is None or not cache.valid_version(found[1]):
                continue
            order = Order(name=name, package=package, version=found[1], platform=platform, tell=tell)
            taken.append(_take(order, archive))
    return taken


def _take(order: Order, archive: Path) -> Artifact:
    with cache.locked(order.name), cache.staging() as work:
        copied = work / "package.tgz"
        shutil.copyfile(archive, copied)
        # A package in a folder has no registry to vouch for it: from here on it must stay what it is now.
        digest = bytes.fromhex(file_hash(copied, "sha512"))
        program = unpack_native(order, copied, work / "made", f"sha512-{_base64(digest)}")
        return _publish(order, work / "made", program)


def _base64(digest: bytes) -> str:
    import base64

    return base64.b64encode(digest).decode("ascii")


def _described(archive: Path) -> str:
    import zlib

    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name.count("/") == 1 and member.name.endswith("/package.json") and member.isreg():
                    source = tar.extractfile(member)
                    assert source is not None
                    described: Any = json.loads(source.read(1024 * 1024))
                    return f"{described['name']}@{described['version']}"
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactCorruptError(
            f"{archive.name} is no package of npm: {error}", hint="Remove it, or make it anew with npm pack."
        ) from error
    return ""


def remove(name: str, version: str | None = None) -> list[Artifact]:
    """Remove a program's versions (default: all) from the cache; what was removed."""
    package_of(name)
    gone = [artifact for artifact in cache.listed(name) if version is None or artifact.version == version]
    for artifact in gone:
        cache.forget(artifact)
    return gone
