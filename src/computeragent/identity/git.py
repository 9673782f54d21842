"""Clones: shallow where that is possible, of a branch, a tag or a commit, with a token that only git sees."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CancelScope, fail_after, to_thread

from computeragent.errors import SourceError
from computeragent.identity.credential import Credential
from computeragent.identity.credentials import CredentialResolver, credential_for, is_github
from computeragent.identity.process import Git, Outcome
from computeragent.identity.refusals import Kind, kind_of, ref_refusal, refusal
from computeragent.identity.repository import Repository, check_ref
from computeragent.logs import Logger

CLONE_SECONDS = 300.0
_FULL_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA = re.compile(r"[0-9a-f]{4,39}")
_QUIET_CLONE = ("clone", "--progress", "--no-recurse-submodules", "--template=")
_log = Logger("identity")


class _Refused(Exception):  # noqa: N818 - control flow, not an error of ours
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.code)
        self.said = outcome.said
        self.kind: Kind = kind_of(outcome.said)


async def clone(
    repository: Repository,
    ref: str | None,
    into: Path,
    *,
    envs: Mapping[str, str],
    resolver: CredentialResolver | None = None,
    progress: Callable[[str], None] | None = None,
    timeout: float = CLONE_SECONDS,
) -> str | None:
    """Clone into a directory that does not exist yet; return the commit, or None for an empty repository.

    A token that the host refuses is dropped and the clone tried without it, so that public repositories work.
    """
    ref = None if ref in {None, "HEAD"} else check_ref(str(ref))
    tell = _safe(progress)
    tell(f"Cloning {repository.name}")
    _log.info("clone", host=repository.host)
    try:
        with fail_after(timeout):
            credential = await credential_for(repository, envs, resolver)
            sha = await _with_fallback(_Clone(repository, ref, into, credential, tell), is_github(repository, envs))
    except TimeoutError:
        await _discard(into)
        raise SourceError(
            f"cloning {repository.name} took longer than {timeout:g} s",
            hint="Check the network, or clone it yourself and give the directory.",
            details={"host": repository.host, "reason": "timeout"},
        ) from None
    except BaseException:
        await _discard(into)
        raise
    tell(f"Cloned {repository.name}" + (f" at {sha[:12]}" if sha else ""))
    return sha


async def head_commit(directory: Path) -> str | None:
    """The commit of the checkout that a directory is in, or None where there is no checkout or no git."""
    if not any((parent / ".git").exists() for parent in (directory, *directory.parents)):
        return None
    try:
        with fail_after(10):
            outcome = await Git()("rev-parse", "--verify", "--quiet", "HEAD", cwd=directory)
    except (SourceError, TimeoutError, OSError):
        return None
    return outcome.out.strip() or None if outcome.code == 0 else None


async def _with_fallback(attempt: _Clone, github: bool) -> str | None:
    repository = attempt.repository
    try:
        return await attempt.run()
    except _Refused as refused:
        if attempt.credential is None or refused.kind not in {"auth", "missing"}:
            raise _explained(refused, attempt, github) from None
        first = refused
    _log.warn("git_credentials_refused", host=repository.host)
    await _discard(attempt.into)
    try:
        return await _Clone(repository, attempt.ref, attempt.into, None, attempt.progress).run()
    except _Refused:
        raise _explained(first, attempt, github) from None


def _explained(refused: _Refused, attempt: _Clone, github: bool) -> SourceError:
    credential = attempt.credential
    said = [credential.scrub(line) for line in refused.said] if credential else refused.said
    return refusal(refused.kind, said, attempt.repository, github=github, with_token=credential is not None)


@dataclass(frozen=True, slots=True)
class _Clone:
    """One attempt, with a credential or without."""

    repository: Repository
    ref: str | None
    into: Path
    credential: Credential | None = field(repr=False)
    progress: Callable[[str], None]

    async def run(self) -> str | None:
        ref = self.ref
        if ref is None:
            await self._do(*_QUIET_CLONE, "--depth=1", "--", self.repository.url, str(self.into))
        elif _FULL_SHA.fullmatch(ref):
            await self._commit(ref)
        elif ref.startswith("refs/") and not ref.startswith(("refs/heads/", "refs/tags/")):
            await self._named_in_full(ref)
        else:
            await self._branch_or_tag(ref.removeprefix("refs/heads/").removeprefix("refs/tags/"))
        outcome = await self._git(self.into, "rev-parse", "--verify", "--quiet", "HEAD")
        return outcome.out.strip() or None

    async def _branch_or_tag(self, name: str) -> None:
        try:
            await self._do(*_QUIET_CLONE, "--depth=1", f"--branch={name}", "--", self.repository.url, str(self.into))
        except _Refused as refused:
            if refused.kind != "ref":
                raise
            if not _SHORT_SHA.fullmatch(name):
                raise await self._no_such_ref(name) from None
            await self._in_full_history(name)

    async def _commit(self, sha: str) -> None:
        try:
            await self._fetch_exactly(sha)
        except _Refused as refused:
            if refused.kind != "ref":
                raise
            await self._in_full_history(sha)  # the server gives out the tips of branches only

    async def _named_in_full(self, ref: str) -> None:
        try:
            await self._fetch_exactly(ref)
        except _Refused as refused:
            if refused.kind != "ref":
                raise
            raise await self._no_such_ref(ref) from None

    async def _fetch_exactly(self, ref: str) -> None:
        await self._do("init", "--quiet", "--template=", "--", str(self.into))
        await self._do("remote", "add", "origin", self.repository.url, cwd=self.into)
        await self._do("fetch", "--progress", "--depth=1", "--", "origin", ref, cwd=self.into)
        await self._do("checkout", "--quiet", "--detach", "FETCH_HEAD", cwd=self.into)

    async def _in_full_history(self, sha: str) -> None:
        await _discard(self.into)
        await self._do(*_QUIET_CLONE, "--no-checkout", "--", self.repository.url, str(self.into))
        found = await self._git(self.into, "rev-parse", "--verify", "--quiet", f"{sha}^{{commit}}")
        if found.code:
            raise await self._no_such_ref(sha)
        await self._do("checkout", "--quiet", "--detach", found.out.strip(), cwd=self.into)

    async def _no_such_ref(self, ref: str) -> SourceError:
        listed = await self._do("ls-remote", "--heads", "--tags", "--refs", "--", self.repository.url)
        names = [line.partition("\t")[2].split("/", 2)[-1] for line in listed.out.splitlines()]
        return ref_refusal(ref, names, self.repository)

    async def _do(self, *arguments: str, cwd: Path | None = None) -> Outcome:
        outcome = await self._git(cwd, *arguments)
        if outcome.code:
            raise _Refused(outcome)
        return outcome

    async def _git(self, cwd: Path | None, *arguments: str) -> Outcome:
        config = (
            tuple(self.credential.git_config(self.repository.scheme, self.repository.host)) if self.credential else ()
        )
        git = Git(config=config, allow_file=self.repository.scheme == "file", progress=self.progress)
        return await git(*arguments, cwd=cwd)


async def _discard(directory: Path) -> None:
    with CancelScope(shield=True):
        await to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))


def _safe(progress: Callable[[str], None] | None) -> Callable[[str], None]:
    """`progress`, so that a display that fails does not fail the clone."""

    def tell(line: str) -> None:
        if progress is not None:
            with suppress(Exception):
                progress(line)

    return tell
