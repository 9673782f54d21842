"""What a model's tokens cost where the engine does not say: the dated price table of `genai-prices`, offline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from typing import Any

TOKEN_KEYS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
"""The four counts of Anthropic's usage object; `input_tokens` is what came from no cache."""


def estimate(model: str | None, usage: Mapping[str, Any], at: datetime | None = None) -> float | None:
    """The price of one turn in US dollars, or None for a model or provider that the table does not have."""
    if not model:
        return None
    from genai_prices import Usage, calc_price

    fresh, output, read, written = (int(usage.get(key) or 0) for key in TOKEN_KEYS)
    counted = Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    provider, _, bare = model.partition(":") if ":" in model else ("", "", model)
    try:
        price = calc_price(counted, bare, provider_id=provider or None, genai_request_timestamp=at or datetime.now(UTC))
    except (LookupError, ValueError):
        return None
    return float(price.total_price)


@lru_cache(maxsize=1)
def price_table() -> str:
    """Which table the estimates are from, such as ``genai-prices 0.2.3``."""
    return f"genai-prices {metadata.version('genai-prices')}"
