"""Where the tokens of ``strategy="tokenize"`` lead back to their values: in memory, or in a private file."""

from __future__ import annotations

import hashlib
import importlib
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

from computeragent.database import connect
from computeragent.settings import home

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vault_values (
    token TEXT PRIMARY KEY,
    sealed INTEGER NOT NULL,
    value BLOB NOT NULL
)
"""


@runtime_checkable
class Vault(Protocol):
    """Keeps values under tokens. Both methods may be called from any thread."""

    def put(self, token: str, value: str) -> None:
        """Keep a value; the same token always comes with the same value."""
        ...

    def get(self, token: str) -> str | None:
        """The value of a token, or None."""
        ...


class MemoryVault:
    """A vault that ends with the process."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def put(self, token: str, value: str) -> None:
        """Keep a value."""
        self._values[token] = value

    def get(self, token: str) -> str | None:
        """The value of a token, or None."""
        return self._values.get(token)

    def __repr__(self) -> str:
        return f"MemoryVault({len(self._values)} values)"


class SqliteVault:
    """A vault in a file of mode 0600, by default ``vault.db`` in the state folder.

    With `cryptography` installed values are sealed with AES-256-GCM under a key derived from the redactor's;
    without it they are as plain as the file's mode leaves them.
    """

    def __init__(self, path: Path | str | None = None, *, key: bytes | None = None) -> None:
        self._path = Path(path) if path else home() / "vault.db"
        self._key = key
        self._lock = Lock()
        self._cipher: Any = None
        self._ready = False
        self._db: Any = None

    def put(self, token: str, value: str) -> None:
        """Keep a value."""
        with self._lock:
            self._open()
            octets = value.encode("utf-8", "surrogatepass")
            if self._cipher:
                nonce = os.urandom(12)
                octets = nonce + self._cipher.encrypt(nonce, octets, token.encode())
            self._db.execute(
                "INSERT INTO vault_values VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (token, int(self._cipher is not None), octets),
            )

    def get(self, token: str) -> str | None:
        """The value of a token, or None; None too for a value sealed under another key."""
        with self._lock:
            self._open()
            row = self._db.execute("SELECT sealed, value FROM vault_values WHERE token = ?", (token,)).fetchone()
            if row is None:
                return None
            octets = bytes(row[1])
            if row[0]:
                if not self._cipher:
                    return None
                try:
                    octets = self._cipher.decrypt(octets[:12], octets[12:], token.encode())
                except Exception:  # noqa: BLE001  # cryptography's InvalidTag, whose module may be missing
                    return None
            return octets.decode("utf-8", "surrogatepass")

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def __repr__(self) -> str:
        return f"SqliteVault({str(self._path)!r})"

    def _open(self) -> None:
        if self._db is None:
            self._db = connect(self._path, component="vault", schema=_SCHEMA, version=1)
        if not self._ready:
            self._ready = True
            if self._key is None:
                from computeragent.telemetry.redaction.keys import redaction_key

                self._key = redaction_key()
            with suppress(ImportError):
                aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
                self._cipher = aead.AESGCM(hashlib.sha256(b"computeragent vault" + self._key).digest())
