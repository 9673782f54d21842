"""Middleware that comes with the pipeline: redaction and guardrails."""

from __future__ import annotations

from computeragent.telemetry.middleware.guardrails import ContentFilter, GuardrailFilter
from computeragent.telemetry.middleware.pii import PiiRedactor

__all__ = ["ContentFilter", "GuardrailFilter", "PiiRedactor"]
