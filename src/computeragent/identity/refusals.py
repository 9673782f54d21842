"""What git says when it fails, as errors of ours: one line that names the host, one hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Literal

from computeragent.errors import SourceError
from computeragent.identity.repository import Repository

Kind = Literal["auth", "host_key", "missing", "ref", "unreachable", "certificate", "other"]

_SIGNS: dict[Kind, str] = {
    "ref": "remote branch .* not found|couldn't find remote ref|not our ref|unadvertised object|no such ref",
    "host_key": "host key verification failed",
    "certificate": "certificate|ssl_error|gnutls_handshake|ssl connect error",
    "unreachable": "could not resolve|failed to connect|couldn't connect|unable to connect|network is unreachable|"
    "connection (refused|timed out|reset)|no route to host|empty reply|operation timed out",
    "auth": "authentication failed|could not read (username|password)|terminal prompts disabled|permission denied|"
    "returned error: 40[13]|invalid credentials|access denied",
    "missing": "not found|returned error: 404|does not appear to be a git repository|does not exist",
}
_REASONS = (
    (r"could not resolve proxy", "the proxy's name does not resolve"),
    (r"could not resolve", "the host name does not resolve"),
    (r"refused|couldn't connect|failed to connect", "connection refused"),
    (r"timed out", "connection timed out"),
    (r"reset|empty reply", "the connection was closed"),
)
_PATH = re.compile(r"(?<![\w:/.])/[^\s'\":]+")


def kind_of(said: Sequence[str]) -> Kind:
    """What sort of failure these lines of git speak of."""
    text = "\n".join(said).lower()
    for kind, sign in _SIGNS.items():
        if re.search(sign, text):
            return kind
    return "other"


def refusal(kind: Kind, said: Sequence[str], repository: Repository, *, github: bool, with_token: bool) -> SourceError:
    """The error for a failed clone. `github` says that GITHUB_TOKEN would be sent to this host."""
    details = {"host": repository.host, "reason": kind}
    variable = "GITHUB_TOKEN or GIT_TOKEN" if github else "GIT_TOKEN"
    host, name = repository.host, repository.name
    match kind:
        case "auth" if not repository.over_http:
            message = f"{host} refused the ssh key"
            hint = "Add your key to the ssh agent (SSH_AUTH_SOCK), or use an https address and a token."
        case "auth" if with_token:
            message = f"{host} refused the token for {name}"
            hint = "Check that the token is valid and may read the repository."
        case "auth":
            message = f"{name} needs authentication"
            hint = f"Set {variable} in envs, or use a git@ address with your ssh key."
        case "host_key":
            message = f"the ssh host key of {host} is not known"
            hint = "Connect to it once with ssh, or add it to known_hosts."
        case "missing":
            message = f"there is no repository {name}" + (", or the token may not read it" if with_token else "")
            hint = (
                "Check the spelling."
                if with_token
                else f"Check the spelling; if it is private, set {variable} in envs."
            )
        case "unreachable":
            message = f"cannot reach {host}: {_reason(said)}"
            hint = "Check the spelling, the network and the proxy settings."
        case "certificate":
            message = f"the TLS certificate of {host} cannot be verified"
            hint = "Name your certificate authority in GIT_SSL_CAINFO or SSL_CERT_FILE."
        case _:
            message = f"cloning {name} failed: {_first(said)}"
            hint = "Try git clone by hand with the same address."
    return SourceError(message, hint=hint, details=details)


def ref_refusal(ref: str, names: Sequence[str], repository: Repository) -> SourceError:
    """The error for a branch, tag or commit that is not there; `names` are those that are."""
    close = difflib.get_close_matches(ref, names, n=3, cutoff=0.5)
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    known = f"Branches and tags there: {shown or 'none'}."
    hint = f"Did you mean {' or '.join(close)}? {known}" if close else known
    details = {"host": repository.host, "reason": "ref", "ref": ref}
    return SourceError(f"ref {ref!r} not found in {repository.name}", hint=hint, details=details)


def _reason(said: Sequence[str]) -> str:
    text = "\n".join(said).lower()
    return next((reason for sign, reason in _REASONS if re.search(sign, text)), "no connection")


def _first(said: Sequence[str]) -> str:
    """The line that says most, without paths of this machine."""
    line = next(
        (line for line in said if line.startswith(("fatal:", "error:"))), said[-1] if said else "no reason given"
    )
    return _PATH.sub("…", line.partition(": ")[2] or line)[:300]
