"""`Credential`: a token for git, and how git alone is given it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """A token and the user name that goes with it."""

    token: str = field(repr=False)
    username: str = "x-access-token"

    def git_config(self, scheme: str, host: str) -> list[tuple[str, str]]:
        """Git settings that send the token to this host, and ask no credential helper."""
        key = f"http.{scheme}://{host}/.extraHeader"
        return [(key, f"Authorization: Basic {self._basic()}"), ("credential.helper", "")]

    def scrub(self, text: str) -> str:
        """`text` without the token in any form that git sees."""
        for secret in (self.token, self._basic()):
            text = text.replace(secret, "[token]")
        return text

    def _basic(self) -> str:
        return base64.b64encode(f"{self.username}:{self.token}".encode()).decode()
