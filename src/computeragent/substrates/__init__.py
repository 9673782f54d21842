"""Substrates: where an engine runs."""

from __future__ import annotations

from computeragent.plugins import register_substrate, resolve_substrate
from computeragent.substrates.local import LocalSubstrate

__all__ = ["LocalSubstrate", "register_substrate", "resolve_substrate"]
