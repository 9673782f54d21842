"""Who answers a permission request: the credential says so, and the person behind it may add a name."""

from __future__ import annotations

from computeragent.errors import ValidationError
from computeragent.server.endpoint import Call


def answered_by(call: Call) -> str:
    """Whom to record for the answer in a call's body. Raises `ValidationError` for a name that could mislead."""
    by: str | None = call.body.by
    if not by:
        return call.principal.id
    if not by.isprintable() or not by.strip() or "(" in by or ")" in by:
        raise ValidationError("by is no name", hint="Send up to 100 printable characters without parentheses.")
    return f"{call.principal.id} ({by.strip()})"
