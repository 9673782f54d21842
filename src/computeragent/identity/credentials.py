"""Tokens for private repositories: where they come from, and the one place where git finds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from anyio import fail_after, to_thread

from computeragent.identity.credential import Credential
from computeragent.identity.repository import Repository
from computeragent.logs import Logger

CredentialResolver = Callable[[str], Any]
"""Called with a repository's address; returns ``{"token", "username"?}`` or None, as it is or awaitable."""

_RESOLVER_SECONDS = 30.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_log = Logger("identity")


async def credential_for(
    repository: Repository, envs: Mapping[str, str], resolver: CredentialResolver | None
) -> Credential | None:
    """The credential of a repository: from its address, from `envs`, else from the resolver; None means anonymous.

    ``GITHUB_TOKEN`` is for github.com and the hosts that ``GITHUB_SERVER_URL`` and ``GH_HOST`` name; ``GIT_TOKEN``
    is for whatever host the source is on.
    """
    if not repository.over_http:
        return None
    if repository.credential is not None:
        return repository.credential
    token = envs.get("GITHUB_TOKEN") if is_github(repository, envs) else None
    token = token or envs.get("GIT_TOKEN")
    if token:
        if repository.scheme == "http" and urlsplit(repository.url).hostname not in _LOOPBACK:
            _log.warn("git_token_in_clear", host=repository.host)
        return Credential(token=token)
    return await _resolved(repository, resolver) if resolver is not None else None


def is_github(repository: Repository, envs: Mapping[str, str]) -> bool:
    """Whether GITHUB_TOKEN belongs to this repository's host. It is never sent in the clear to github.com."""
    server = urlsplit(envs.get("GITHUB_SERVER_URL", ""))
    if server.netloc and (server.scheme, server.netloc) == (repository.scheme, repository.host):
        return True
    return repository.scheme == "https" and repository.host in {"github.com", "www.github.com", envs.get("GH_HOST")}


async def _resolved(repository: Repository, resolver: CredentialResolver) -> Credential | None:
    try:
        with fail_after(_RESOLVER_SECONDS):
            if inspect.iscoroutinefunction(resolver):
                answer = await resolver(repository.url)
            else:
                answer = await to_thread.run_sync(resolver, repository.url, abandon_on_cancel=True)
                if inspect.isawaitable(answer):
                    answer = await answer
    except Exception as error:  # noqa: BLE001 - the resolver is the caller's; public repositories need none
        _log.warn("git_credentials_failed", host=repository.host, error=type(error).__name__)
        return None
    if answer is None:
        return None
    fields = cast("Mapping[str, object]", answer if isinstance(answer, Mapping) else {})
    token, username = fields.get("token"), fields.get("username")
    if not isinstance(token, str) or not token:
        _log.warn("git_credentials_failed", host=repository.host, error="no token in the answer")
        return None
    return Credential(token=token, username=username if isinstance(username, str) and username else "x-access-token")
