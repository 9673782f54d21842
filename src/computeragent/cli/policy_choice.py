"""A policy as an argument: a file, or JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from computeragent.errors import ValidationError
from computeragent.policy.config import read_policy


def policy_choice(text: str | None) -> Any:
    """The policy that an argument names; None for none. Raises `ValidationError`."""
    if text is None:
        return None
    if not text.lstrip().startswith("{"):
        return read_policy(text)
    try:
        return read_policy(msgspec.json.decode(text, type=dict[str, Any]))
    except msgspec.DecodeError as error:
        raise ValidationError(f"the policy is not a JSON object: {error}", hint="Or give the path of a file.") from None
