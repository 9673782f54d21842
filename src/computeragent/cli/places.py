"""Where the servers that the command starts run agents."""

from __future__ import annotations

from computeragent import plugins
from computeragent.errors import ValidationError
from computeragent.protocol_types import Substrate
from computeragent.substrates import LocalSubstrate


def pooled(name: str, pool: int) -> Substrate:
    """The substrate of a name, with so many places kept ready. Raises `ValidationError` where it keeps none."""
    if not pool:
        return plugins.resolve_substrate(name)
    if name == "local-process":
        return LocalSubstrate(process=True, pool=pool)
    try:
        return plugins.substrates.create(name, {"pool": pool})
    except (TypeError, ValidationError) as error:
        raise ValidationError(f"runtime {name} has no pool", hint="Leave --pool out, or use bwrap.") from error
