"""`resolve_git_credential`: a short-lived token for a private repository, from the control plane."""

from __future__ import annotations

from urllib.parse import urlsplit

from computeragent import discovery
from computeragent.control_plane import TIMEOUT, ask
from computeragent.errors import ControlPlaneError
from computeragent.logs import Logger

_USERNAME = "x-access-token"
_log = Logger("identity")


async def resolve_git_credential(
    repo_url: str, *, api_base: str | None = None, token: str | None = None, timeout: float = TIMEOUT
) -> dict[str, str] | None:
    """The credential that the group of this key has for a repository's host: ``{"host", "username", "token"}``.

    None when there is none, nothing is configured, the key may not or nobody answers: the clone is tried without one
    then. `api_base` and `token` default to what the environment says. Never log the whole answer.
    """
    host = _host(repo_url)
    try:
        answer = await ask(
            "git-credentials/resolve",
            {"repoUrl": discovery.without_credentials(repo_url)} if "://" in repo_url else {"repoUrl": repo_url},
            api_base=api_base,
            token=token,
            timeout=timeout,
        )
    except ControlPlaneError as error:
        _log.warn("git_credential_not_resolved", host=host, error=error.message)
        return None
    if answer.status != 200:
        report = _log.info if answer.status == 404 else _log.warn
        report("git_credential_not_resolved", host=host, error=f"HTTP {answer.status}")
        return None
    secret, username, for_host = (answer.body.get(name) for name in ("token", "username", "host"))
    if not isinstance(secret, str) or not secret:
        _log.warn("git_credential_not_resolved", host=host, error="no token in the answer")
        return None
    if isinstance(for_host, str) and for_host and _host(for_host) != host:
        _log.warn("git_credential_not_resolved", host=host, error="the answer is for another host")
        return None
    return {
        "host": host,
        "username": username if isinstance(username, str) and username else _USERNAME,
        "token": secret,
    }


def is_configured(token: str | None = None) -> bool:
    """Whether there is an API to ask and a key to ask with."""
    return discovery.configured("api") and bool(token or discovery.agent_key())


def _host(url: str) -> str:
    """A repository's host as credentials are kept by: no scheme, user or port, lower case."""
    if "://" in url:
        try:
            return (urlsplit(url).hostname or "").lower()
        except ValueError:
            return ""
    return url.rpartition("@")[2].partition("/")[0].partition(":")[0].lower()
