"""The usage roll-up: nothing is counted twice, and the costs of turns add up to the cost of the session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.wire.events import CaUsageSnapshot
from computeragent.wire.usage import UsageRollup

CENTS = st.integers(0, 10_000).map(lambda cents: cents / 100)


def spent(*costs: tuple[str | None, float], baseline: float = 0.0) -> float | None:
    rollup = UsageRollup(baseline=baseline)
    for semantic, cost in costs:
        rollup.absorb(CaUsageSnapshot(session_id="s", cost_usd=cost, cost_semantic=semantic))  # type: ignore[arg-type]
    return rollup.cost_usd


def test_tokens_sum_whatever_the_cost_means():
    rollup = UsageRollup()
    for semantic in ("cumulative", "delta", None):
        rollup.absorb(
            CaUsageSnapshot(
                session_id="s",
                input_tokens=1,
                output_tokens=2,
                cache_creation_input_tokens=3,
                cache_read_input_tokens=4,
                cost_semantic=semantic,
            )
        )
    assert (rollup.input_tokens, rollup.output_tokens) == (3, 6)
    assert (rollup.cache_creation_input_tokens, rollup.cache_read_input_tokens) == (9, 12)
    assert rollup.total_tokens == 30


def test_a_cumulative_cost_is_the_largest_seen():
    assert spent(("cumulative", 0.04), ("cumulative", 0.03)) == 0.04


def test_delta_costs_sum():
    assert spent(("delta", 0.25), ("delta", 0.5)) == 0.75


def test_a_missing_semantic_counts_as_cumulative():
    assert spent((None, 0.25), (None, 0.5)) == 0.5


def test_cumulative_wins_over_delta():
    assert spent(("delta", 0.25), ("cumulative", 0.1)) == 0.1
    assert spent((None, 0.1), ("delta", 0.25)) == 0.1


def test_without_a_cost_there_is_none():
    assert spent() is None
    rollup = UsageRollup()
    rollup.absorb(CaUsageSnapshot(session_id="s", input_tokens=5))
    assert rollup.cost_usd is None


def test_a_free_run_costs_zero_not_none():
    assert spent(("cumulative", 0.0)) == 0.0
    assert spent(("delta", 0.0)) == 0.0


def test_a_total_below_the_baseline_costs_nothing():
    assert spent(("cumulative", 0.1), baseline=0.3) == 0.0


@given(st.lists(CENTS, min_size=1))
def test_deltas_cost_their_sum_in_any_order(costs):
    assert spent(*(("delta", cost) for cost in costs)) == pytest.approx(sum(costs))


@given(st.lists(st.tuples(CENTS, st.booleans()), min_size=1, max_size=12))
def test_the_costs_of_two_readers_of_one_running_total_add_up_to_it(steps):
    """However the turns of two handles interleave, each growth of the total is charged to exactly one of them."""
    mine, theirs, total = UsageRollup(), UsageRollup(), 0.0
    for growth, is_mine in steps:
        total += growth
        snapshot = CaUsageSnapshot(session_id="s", cost_usd=total, cost_semantic="cumulative")
        mine.absorb(snapshot) if is_mine else mine.skip(snapshot)
        theirs.skip(snapshot) if is_mine else theirs.absorb(snapshot)
    assert (mine.cost_usd or 0.0) + (theirs.cost_usd or 0.0) == pytest.approx(total)


@given(st.lists(st.lists(CENTS, max_size=3), max_size=6))
def test_the_costs_of_turns_in_a_row_add_up_to_the_total(turns):
    total, charged = 0.0, 0.0
    for growths in turns:
        rollup = UsageRollup(baseline=total)
        for growth in growths:
            total += growth
            rollup.absorb(CaUsageSnapshot(session_id="s", cost_usd=total, cost_semantic="cumulative"))
        charged += rollup.cost_usd or 0.0
    assert charged == pytest.approx(total)


def test_a_delta_of_another_turn_is_not_ours():
    rollup = UsageRollup(baseline=1.0)
    rollup.skip(CaUsageSnapshot(session_id="s", cost_usd=5.0, cost_semantic="delta"))
    rollup.skip(CaUsageSnapshot(session_id="s", input_tokens=5))
    assert (rollup.baseline, rollup.cost_usd, rollup.input_tokens) == (1.0, None, 0)
