"""`Repository`: a git address as a user writes it, checked, and without the secrets that it may carry."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from computeragent.errors import ValidationError
from computeragent.identity.credential import Credential

Scheme = Literal["https", "http", "ssh", "git", "file"]
_SCHEMES = ("https", "http", "ssh", "git")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@]+):(?P<path>(?!\d+(?:/|$)).+)")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|^[-/.]|[/.]$|//|\.lock$")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where to clone from. `host` has the port, `name` is fit for messages; neither has a secret."""

    url: str
    scheme: Scheme
    host: str
    name: str
    credential: Credential | None = field(default=None, repr=False)

    @property
    def over_http(self) -> bool:
        """Whether an HTTP header can carry a token."""
        return self.scheme in {"https", "http"}


def parse_repository(text: str, *, allow_file: bool = False) -> Repository:
    """Read ``https://host/org/repo``, ``git@host:org/repo``, ``host/org/repo`` and their kin."""
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise ValidationError(
            "the git address is empty or has characters that no address has", hint="Write it as host/org/repo."
        )
    if re.match(r"[A-Za-z0-9]+::", text):
        raise _scheme_refused(text.partition("::")[0], allow_file)
    if "://" in text:
        return _from_url(text, allow_file)
    if text.startswith(("/", ".", "~")):
        raise ValidationError(
            "a git source needs an address, not a path", hint='For a directory use {"type": "local", "path": …}.'
        )
    scp_like = _SCP_LIKE.fullmatch(text)
    if scp_like:
        host, path = scp_like["host"], scp_like["path"]
        if host.startswith("-") or path.startswith("-"):
            raise ValidationError("the git address is not valid", hint="Write it as git@host:org/repo.")
        return Repository(text, "ssh", host, _name(host, path))
    return _from_url(f"https://{text}", allow_file)


def check_ref(ref: str) -> str:
    """Return a branch, tag or commit given by a caller, or raise `ValidationError`."""
    if not ref or len(ref) > 255 or _BAD_REF.search(ref):
        raise ValidationError(f"ref {ref[:100]!r} is not valid", hint="Give a branch, a tag or a commit id.")
    return ref


def _from_url(url: str, allow_file: bool) -> Repository:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme == "file" and allow_file:
        return Repository(url, "file", "this machine", parts.path.rstrip("/").rpartition("/")[2] or "repository")
    if scheme not in _SCHEMES:
        raise _scheme_refused(scheme, allow_file)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or host.startswith("-"):
        raise ValidationError("the git address has no valid host", hint="Write it as https://host/org/repo.")
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    name = _name(netloc, parts.path)
    if scheme in {"https", "http"}:
        credential = _in_url(parts.username, parts.password)
        clean = urlunsplit((scheme, netloc, parts.path, parts.query, ""))
        return Repository(clean, "https" if scheme == "https" else "http", netloc, name, credential)
    return Repository(url, "ssh" if scheme == "ssh" else "git", netloc, name)


def _in_url(username: str | None, password: str | None) -> Credential | None:
    """A token in the address is moved to where git alone sees it: it would be in argv and in .git/config."""
    if not username and not password:
        return None
    if not password:
        return Credential(token=unquote(username or ""))
    return Credential(token=unquote(password), username=unquote(username or "") or "x-access-token")


def _name(host: str, path: str) -> str:
    return f"{host}/{path.strip('/').removesuffix('.git')}".rstrip("/")


def _scheme_refused(scheme: str, allow_file: bool) -> ValidationError:
    allowed = [*_SCHEMES, "file"] if allow_file else [*_SCHEMES]
    extra = "" if allow_file else " Local repositories work in library mode only." * (scheme == "file")
    return ValidationError(
        f"git addresses with {scheme[:20]!r} are not allowed", hint=f"Use one of: {', '.join(allowed)}.{extra}"
    )
