"""Names of files for names of any kind: readable, reversible, and never able to leave their folder."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

_LONGEST = 180
SUFFIX = ".jsonl"


def file_name(name: str) -> str:
    """`name` with everything but letters, digits, ``_``, ``-`` and inner dots percent-encoded.

    A name that comes out too long for a file system is cut and told apart by a hash after ``~``; such a file's
    header still has the whole name.
    """
    encoded = quote(name, safe="").replace("~", "%7E") or "%"
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if encoded.endswith(SUFFIX):  # so that a folder is never named like a transcript
        encoded = encoded[: -len(SUFFIX)] + "%2Ejsonl"
    if len(encoded) > _LONGEST:
        encoded = f"{encoded[: _LONGEST - 40]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return encoded
