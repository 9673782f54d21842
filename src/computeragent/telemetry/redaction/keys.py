"""The key of hashes and tokens: 32 random bytes in a file of the state folder, mode 0600."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from computeragent.errors import ComputerAgentError
from computeragent.settings import home

_SIZE = 32


def redaction_key() -> bytes:
    """The key in the state folder, made when missing; one for this process alone where none can be kept."""
    try:
        return kept_key(home("keys") / "redaction.key")
    except (OSError, ComputerAgentError):
        return secrets.token_bytes(_SIZE)


def kept_key(path: Path) -> bytes:
    """The key in a file of mode 0600, made when missing. Raises `OSError`."""
    # several processes may start at once: the first to link its file there wins, and none sees half a key
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, secrets.token_bytes(_SIZE))
            os.close(handle)
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) < 16:
        raise OSError(f"{path} is too short for a key")
    return key
