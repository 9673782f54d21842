"""Conformance suites: what every implementation of an axis promises, as named checks that anyone can run."""

from __future__ import annotations

from computeragent.testing.conformance.engines import engine_invariants, run_engine_conformance
from computeragent.testing.conformance.plan import EngineCase, Plan, Prepared, Say, Spend, Wait, Write
from computeragent.testing.conformance.probe import ConformanceError, Probe

__all__ = [
    "ConformanceError",
    "EngineCase",
    "Plan",
    "Prepared",
    "Probe",
    "Say",
    "Spend",
    "Wait",
    "Write",
    "engine_invariants",
    "run_engine_conformance",
]
