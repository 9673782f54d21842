"""What an engine's program gets of this process's environment, and how the secrets in it stay out of texts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

BASICS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "LANG")
"""What a program needs of its host to work at all."""

PREFIXES = ("LC_", "XDG_")
NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "PWD", "CREDENTIAL", "AUTH", "HEADERS")
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})
_LOGIN = re.compile(r"(?<=://)[^/@\s:]*:([^/@\s]+)(?=@)")  # of an address, such as a proxy's


def of_host(*names: str) -> dict[str, str]:
    """The variables of this process that every program gets, and those named, where they are set."""
    wanted = (*BASICS, *NETWORK, *CERTIFICATES, *names)
    host = {name: os.environ[name] for name in wanted if name in os.environ}
    return host | {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """A text without the values of secrets that a program was given in its environment."""
    for name, value in environment.items():
        if len(value) >= 6 and name not in _NO_SECRETS and any(word in name.upper() for word in _SECRET_WORDS):
            text = text.replace(value, "***")
        for login in _LOGIN.finditer(value):
            text = text.replace(login[0], "***")
            text = text.replace(login[1], "***") if len(login[1]) >= 6 else text
    return text
