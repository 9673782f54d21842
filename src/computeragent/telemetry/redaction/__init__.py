"""Redaction: personal data and secrets taken out of whatever leaves the process. Start with `Redactor`."""

from __future__ import annotations

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.kinds import DETECTORS, KINDS, SECRETS
from computeragent.telemetry.redaction.known import KnownValues, credentials_in
from computeragent.telemetry.redaction.redactor import IGNORED_NETWORKS, Redactor
from computeragent.telemetry.redaction.strategies import Strategy
from computeragent.telemetry.redaction.vault import MemoryVault, SqliteVault, Vault

__all__ = [
    "DETECTORS",
    "IGNORED_NETWORKS",
    "KINDS",
    "SECRETS",
    "Finding",
    "KnownValues",
    "MemoryVault",
    "Redactor",
    "SqliteVault",
    "Strategy",
    "Vault",
    "credentials_in",
]
