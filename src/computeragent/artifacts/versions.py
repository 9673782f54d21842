"""Which version a word means: `stable`, `latest` or a number, and what a machine that is offline has."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from computeragent.artifacts import cache
from computeragent.artifacts.running import npm, pip, refuse_offline
from computeragent.clis import Package, SandboxPlatform
from computeragent.errors import ArtifactError, UnknownVersionError, ValidationError

WORDS = ("stable", "latest")
_T = TypeVar("_T")


class Memo:
    """Work that is done once in this process: whoever asks meanwhile shares its result, a failure too.

    Results are kept while they are `fresh`; failures are not, so that the next to ask tries again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Hashable, Future[Any]] = {}

    def once(self, key: Hashable, work: Callable[[], _T], fresh: Callable[[_T], bool] = lambda _: True) -> _T:
        """The result of `work` for this key. Raises what `work` raises."""
        with self._lock:
            future = self._made.get(key)
            if future is not None and future.done() and (future.exception() or not fresh(future.result())):
                future = None
            mine = future is None
            if future is None:
                future = self._made[key] = Future()
        if not mine:
            return cast("_T", future.result())
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
            raise
        future.set_result(result)
        return result

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._made.clear()


_resolved = Memo()


def forget_versions() -> None:
    """Ask the registries anew, next time."""
    _resolved.clear()


def resolve(name: str, package: Package, word: str, platform: SandboxPlatform, *, offline: bool) -> str:
    """The version that a word means. A number is not asked about; offline, words mean the newest in the cache.

    Raises `ValidationError`, `UnknownVersionError`, `ArtifactUnavailableError`, `ArtifactError`.
    """
    if word not in WORDS:
        if not (cache.valid_version(word) and word[0].isdigit()):
            raise ValidationError(
                f"{word!r} is not a version of {name}", hint="Use auto, sandbox, stable, latest or a version, as 1.2.3."
            )
        return word
    if offline:
        return newest_cached(name, platform) or cast("str", refuse_offline(name))
    if word == "stable" and package.stable:
        return package.stable
    ask = _ask_npm if package.registry == "npm" else _ask_pypi
    return _resolved.once((package.index, word), lambda: ask(package.index, word))


def newest_cached(name: str, platform: SandboxPlatform) -> str | None:
    """The newest version in the cache, by its number."""
    found = [each.version for each in cache.listed(name) if each.platform == platform]
    return max(found, key=version_key, default=None)


def version_key(version: str) -> tuple[Any, ...]:
    """To sort versions by; a pre-release comes before its release."""
    number, dash, rest = version.partition("-")
    return tuple(int(part) for part in re.findall(r"\d+", number)), not dash, rest


def matching(index: str, wanted: str) -> str:
    """The newest version of an npm package in a major version."""
    return _resolved.once((index, "major", wanted), lambda: _ask_major(index, wanted))


def _ask_npm(index: str, word: str) -> str:
    with cache.staging() as cwd:
        said = npm(["view", index, "dist-tags", "--json"], cwd, index)
    tags = _mapping(said, index)
    version = tags.get(word) or tags.get("latest")
    if not (isinstance(version, str) and cache.valid_version(version)):
        raise UnknownVersionError(f"the registry has no {word} version of {index}", hint="Name a version, as 1.2.3.")
    return version


def _ask_major(index: str, wanted: str) -> str:
    with cache.staging() as cwd:
        said = npm(["view", f"{index}@{wanted}", "version", "--json"], cwd, f"{index} {wanted}")
    loaded = _json(said, index)
    found = [str(each) for each in (cast("list[Any]", loaded) if isinstance(loaded, list) else [loaded]) if each]
    found = [each for each in found if cache.valid_version(each)]
    if not found:
        raise UnknownVersionError(f"the registry has no {index} {wanted}", hint="Use a registry that has it.")
    return max(found, key=version_key)


def _ask_pypi(index: str, _word: str) -> str:
    with cache.staging() as cwd:
        said = pip(["index", "versions", index, "--json"], cwd, index)
    version = _mapping(said, index).get("latest")
    if not (isinstance(version, str) and cache.valid_version(version)):
        raise UnknownVersionError(f"the registry has no version of {index}", hint="Name a version, as 1.2.3.")
    return version


def _json(text: str, index: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise ArtifactError(
            f"the registry's answer on {index} is not to be understood", hint="Look at your npm or pip configuration."
        ) from error


def _mapping(text: str, index: str) -> dict[str, Any]:
    loaded = _json(text, index)
    return cast("dict[str, Any]", loaded) if isinstance(loaded, dict) else {}


def npm_integrity(spec: str) -> tuple[str, str]:
    """The version and the integrity of exactly one package of npm."""
    with cache.staging() as cwd:
        said = npm(["view", spec, "version", "dist.integrity", "--json"], cwd, spec)
    loaded = _json(said, spec)
    if not isinstance(loaded, dict):
        raise UnknownVersionError(f"{spec} is not in the registry", hint="Choose a version that it has.")
    fields = cast("dict[str, Any]", loaded)
    return str(fields.get("version", "")), str(fields.get("dist.integrity", ""))
