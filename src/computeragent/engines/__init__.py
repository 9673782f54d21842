"""Engines: agent loops behind one protocol."""

from __future__ import annotations

from computeragent.plugins import register_engine, resolve_engine

__all__ = ["register_engine", "resolve_engine"]
