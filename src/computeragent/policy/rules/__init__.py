"""Policies in YAML: match what a call is, and allow it, deny it or ask."""

from __future__ import annotations

from computeragent.policy.rules.engine import RulesPolicyEngine
from computeragent.policy.rules.reading import read_ruleset
from computeragent.policy.rules.ruleset import Rule, Ruleset

__all__ = ["Rule", "RulesPolicyEngine", "Ruleset", "read_ruleset"]
