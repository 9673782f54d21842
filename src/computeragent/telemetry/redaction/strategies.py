"""What stands in the place of a finding: a mask, a keyed hash, a token of the vault, or nothing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from re import Pattern
from re import compile as regex
from typing import Literal, get_args

from computeragent.errors import ValidationError
from computeragent.telemetry.redaction.keys import redaction_key
from computeragent.telemetry.redaction.kinds import KINDS
from computeragent.telemetry.redaction.vault import SqliteVault, Vault

Strategy = Literal["mask", "hash", "tokenize", "drop"]
"""``mask``: ``[REDACTED:EMAIL]``, ``hash``: ``[HASH:EMAIL:…]``, ``tokenize``: ``[TOKEN:EMAIL:…]``, ``drop``: gone."""

Replace = Callable[[str, str], str]
"""Called with a kind and a value, returns what stands in its place."""

_KIND = "|".join(sorted(KINDS))
PLACEHOLDER: Pattern[str] = regex(rf"\[(?:REDACTED:(?:{_KIND})|(?:HASH|TOKEN):(?:{_KIND}):[g-v]{{20}})\]")
"""What was put in the place of a finding, by any strategy."""
PLACEHOLDER_HEADS = ("[REDACTED:", "[HASH:", "[TOKEN:")
"""What every placeholder begins with."""
LONGEST_PLACEHOLDER = len("[REDACTED:::]") + max(map(len, KINDS)) + 20
"""No placeholder is longer."""
TOKEN: Pattern[str] = regex(rf"\[TOKEN:(?:{_KIND}):[g-v]{{20}}\]")
"""What `Redactor.restore` can undo."""
# Letters only, beyond those of hex: no detector can take a digest for a number or a key.
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"ghijklmnopqrstuv")


def digest(key: bytes, kind: str, value: str) -> str:
    """80 bits of a keyed hash over the kind and the value."""
    message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:20].encode().translate(_LETTERS).decode()


def replacement(strategy: str, key: bytes | None, vault: Vault | None) -> tuple[Replace, Vault | None]:
    """The function of a strategy, and the vault it uses."""
    if strategy not in get_args(Strategy):
        raise ValidationError(
            f"no such strategy: {strategy!r}", hint=f"Strategies are {', '.join(get_args(Strategy))}."
        )
    if key is not None and len(key) < 16:
        raise ValidationError("the key of a redactor has at least 16 bytes", hint="Use secrets.token_bytes(32).")
    if strategy == "mask":
        return (lambda kind, value: f"[REDACTED:{kind}]"), None
    if strategy == "drop":
        return (lambda kind, value: ""), None
    secret = key or redaction_key()
    if strategy == "hash":
        return (lambda kind, value: f"[HASH:{kind}:{digest(secret, kind, value)}]"), None
    kept: Vault = vault if vault is not None else SqliteVault(key=secret)

    def tokenize(kind: str, value: str) -> str:
        token = f"[TOKEN:{kind}:{digest(secret, kind, value)}]"
        kept.put(token, value)
        return token

    return tokenize, kept
