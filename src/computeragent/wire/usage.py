"""The usage roll-up: tokens always sum; cost follows the engine's cost semantic.

`cumulative` takes the largest value seen, `delta` sums, a missing semantic counts as cumulative,
and where both appear the cumulative figure wins: never double-counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from computeragent.wire.events import CaUsageSnapshot


@dataclass(slots=True)
class UsageRollup:
    """Token counts and cost in US dollars over a span of events.

    `baseline` is the running total before the span began; a cumulative cost is reported relative to it,
    so that the costs of a session's turns add up to the session's cost.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    baseline: float = 0.0
    cumulative_usd: float | None = None
    delta_usd: float | None = None

    @property
    def cost_usd(self) -> float | None:
        """The cost of the span, or None when no snapshot named one."""
        if self.cumulative_usd is not None:
            return max(self.cumulative_usd - self.baseline, 0.0)
        return self.delta_usd

    @property
    def total_tokens(self) -> int:
        """All four token counts together."""
        cached = self.cache_creation_input_tokens + self.cache_read_input_tokens
        return self.input_tokens + self.output_tokens + cached

    def absorb(self, snapshot: CaUsageSnapshot) -> None:
        """Add one snapshot."""
        self.input_tokens += snapshot.input_tokens or 0
        self.output_tokens += snapshot.output_tokens or 0
        self.cache_creation_input_tokens += snapshot.cache_creation_input_tokens or 0
        self.cache_read_input_tokens += snapshot.cache_read_input_tokens or 0
        cost = snapshot.cost_usd
        if cost is None:
            return
        if snapshot.cost_semantic == "delta":
            self.delta_usd = (self.delta_usd or 0.0) + cost
        else:
            self.cumulative_usd = max(self.cumulative_usd or 0.0, cost)

    def skip(self, snapshot: CaUsageSnapshot) -> None:
        """Leave out a snapshot of somebody else's turn: what the running total grew by is not this span's."""
        cost = snapshot.cost_usd
        if cost is None or snapshot.cost_semantic == "delta":
            return
        foreign = cost - max(self.cumulative_usd or 0.0, self.baseline)
        if foreign > 0:
            self.baseline += foreign
            if self.cumulative_usd is not None:
                self.cumulative_usd += foreign
