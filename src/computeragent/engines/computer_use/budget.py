"""What a run costs: the price table's word, the caller's, or nobody's, which is a state of its own and told."""

from __future__ import annotations

from typing import Literal

from computeragent.dialects.model import Usage
from computeragent.engines.computer_use.options import Price
from computeragent.errors import UnknownPriceError
from computeragent.telemetry.prices import estimate

Source = Literal["free", "given", "table", "unknown"]
_FREE = frozenset({"scripted", "human"})
_TABLED = frozenset({"anthropic", "openai", "openrouter", "gemini", "google"})
_PROVIDERS = {"gemini": "google"}  # as the price table has them
_MILLION = 1e6


class Tariff:
    """What one model costs: by a price that is given, else by the table. `source` says whose word it is."""

    def __init__(self, model: str, price: Price | None = None) -> None:
        self.model = model
        self._price = price
        self._key = _key(model)
        self.source: Source = self._source(model)

    def cost(self, usage: Usage) -> float | None:
        """US dollars for one answer, None where nobody knows."""
        if self.source == "free":
            return 0.0
        if self._price is None:
            return None if self._key is None else estimate(self._key, counts(usage))
        price = self._price
        read = price.input if price.cache_read is None else price.cache_read
        written = price.input if price.cache_write is None else price.cache_write
        cached = usage.cache_read_tokens * read + usage.cache_write_tokens * written
        return (usage.input_tokens * price.input + usage.output_tokens * price.output + cached) / _MILLION

    def _source(self, model: str) -> Source:
        if self._price is not None:
            return "given"
        if model.partition("/")[0] in _FREE:
            return "free"
        return "unknown" if self._key is None or estimate(self._key, {"input_tokens": 1}) is None else "table"


class Budget:
    """The bill of a run. `ceiling` is in US dollars; over it the run ends.

    Raises `UnknownPriceError` for a ceiling where a model's price is unknown: it could never be kept.
    """

    def __init__(self, tariffs: dict[str, Tariff], ceiling: float | None) -> None:
        self._tariffs = tariffs
        self.ceiling = ceiling
        self.total: float | None = 0.0
        self.tokens = Usage()
        found = {tariff.source for tariff in tariffs.values()}
        order: tuple[Source, ...] = ("unknown", "given", "table", "free")
        self.source: Source = next(source for source in order if source in found)
        if self.source == "unknown":
            self.total = None
            if ceiling is not None:
                names = ", ".join(tariff.model for tariff in tariffs.values() if tariff.source == "unknown")
                raise UnknownPriceError(
                    f"there is a budget of ${ceiling:g}, but the price of {names} is unknown",
                    hint='Say what it costs, such as options={"price": {"input": 3.0, "output": 15.0}} '
                    "(US dollars per million tokens), or leave the budget out.",
                )

    @property
    def spent(self) -> bool:
        """Whether the run has cost more than it may."""
        return self.ceiling is not None and self.total is not None and self.total > self.ceiling

    def charge(self, model: str, usage: Usage) -> None:
        """Add one answer of a model."""
        self.tokens = added(self.tokens, usage)
        cost = self._tariffs[model].cost(usage)
        if self.total is not None and cost is not None:
            self.total += cost


def added(one: Usage, other: Usage) -> Usage:
    """The tokens of two answers."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )


def counts(usage: Usage) -> dict[str, int]:
    """Tokens by the names of Anthropic's usage object, which events and the price table have."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
    }


def _key(model: str) -> str | None:
    """A model as the price table knows it: ``provider:name``. None for servers of one's own."""
    prefix, slash, name = model.partition("/")
    if not slash:
        return model
    return f"{_PROVIDERS.get(prefix, prefix)}:{name}" if prefix in _TABLED else None
