"""What signs heads and checkpoints: a key in the state folder, or one of the caller's."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from computeragent.errors import ValidationError
from computeragent.settings import home
from computeragent.telemetry.redaction.keys import kept_key

_SHORTEST = 16
_HINT = "A key is 16 bytes or more; a file of it holds them as they are."


class Key:
    """Signs and checks. `id` names the key without telling it."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _SHORTEST:
            raise ValidationError("the audit key is too short", hint=_HINT)
        self._secret = secret
        self.id = hashlib.sha256(b"computeragent audit key\n" + secret).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def sign(self, *parts: bytes) -> str:
        """The signature of these parts, none of which has a line break, as hex."""
        return hmac.new(self._secret, b"\n".join(parts), hashlib.sha256).hexdigest()

    def signed(self, signature: str, *parts: bytes) -> bool:
        """Whether it is this key's signature of these parts."""
        return hmac.compare_digest(signature.encode(), self.sign(*parts).encode())


def own_key() -> Key:
    """This machine's key: ``keys/audit.key`` in the state folder, made when missing. Raises `OSError`."""
    return Key(kept_key(home("keys") / "audit.key"))


def known_key() -> Key | None:
    """This machine's key, if it has one."""
    path = home("keys") / "audit.key"
    return key_of(path) if path.exists() else None


def key_of(path: Path) -> Key:
    """The key in a file. Raises `ValidationError`."""
    try:
        return Key(path.read_bytes())
    except OSError as error:
        raise ValidationError(f"the key {path} cannot be read: {error.strerror}", hint=_HINT) from None
