"""``--session-store``: a kind, a kind with options, or the URL of a database."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from computeragent.errors import ValidationError
from computeragent.wire.encoding import from_json
from computeragent.wire.requests import StoreConfig

_SCHEMES = {"postgres": "postgres", "postgresql": "postgres", "mongodb": "mongo", "mongodb+srv": "mongo"}
_USER = re.compile(r"(://)[^/]*@")


def store_choice(text: str | None) -> str | StoreConfig | None:
    """What a text names. Raises `ValidationError`, without quoting what may be a password."""
    if text is None:
        return None
    kind, equals, options = text.partition("=")
    if equals and "://" not in kind:
        return StoreConfig(kind=kind, options=_options(kind, options))
    scheme, marks, _ = text.partition("://")
    if not marks:
        return text
    if scheme not in _SCHEMES:
        raise ValidationError(
            f"no session store has addresses of {scheme}://", hint="Use postgres://… or mongodb://…, or KIND={JSON}."
        )
    return StoreConfig(kind=_SCHEMES[scheme], options={"url": text})


def without_secrets(text: str | None) -> str | None:
    """The same text as it may be shown."""
    if text is None:
        return None
    kind, equals, _ = text.partition("=")
    if equals and "://" not in kind:
        return f"{kind}=…"
    return _USER.sub(r"\1***@", text)


def _options(kind: str, text: str) -> dict[str, Any]:
    try:
        options: object = from_json(text)
    except msgspec.DecodeError:
        options = None
    if not isinstance(options, dict):
        raise ValidationError(
            f"the options of the session store {kind!r} are no JSON object",
            hint='Such as file={"root": "transcripts"}.',
        )
    return options  # pyright: ignore[reportUnknownVariableType]
