"""A session in one line: a fold over its events, kept beside the log so that listing reads no events."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from computeragent.wire.events import CaSessionEnded, CaSessionStarted, CaTurnStarted, CaUsageSnapshot, HarnessEvent
from computeragent.wire.requests import UserInput

_TITLE_LENGTH = 80


class SessionSummary(Struct, frozen=True, omit_defaults=True):
    """What a list of sessions shows. Times are epoch seconds; `status` is pending, running or an end reason."""

    session_id: str
    agent: str = ""
    engine: str = ""
    status: str = "pending"
    title: str = ""
    runs: int = 0
    turns: int = 0
    tokens: int = 0
    past_usd: float = 0.0
    cumulative_usd: float = 0.0
    delta_usd: float = 0.0
    created: float = 0.0
    updated: float = 0.0

    @property
    def cost_usd(self) -> float:
        """The session's cost so far: each run's by the rule of the usage roll-up, added up.

        An engine's running total is that of its run: a resumed engine begins at zero again.
        """
        return self.past_usd + (self.cumulative_usd or self.delta_usd)

    @property
    def live(self) -> bool:
        """Whether a run has started and not ended."""
        return self.status == "running"


def fold(summary: SessionSummary, event: HarnessEvent, at: float) -> SessionSummary:
    """The summary after one more event. Most events change nothing but the time, and are skipped."""
    if isinstance(event, CaSessionStarted):
        return replace(
            summary,
            agent=event.identity.name,
            engine=event.engine,
            status="running",
            runs=summary.runs + 1,
            past_usd=summary.cost_usd,
            cumulative_usd=0.0,
            delta_usd=0.0,
            created=summary.created or at,
            updated=at,
        )
    if isinstance(event, CaTurnStarted):
        title = summary.title or (_title(event.message) if event.message else "")
        return replace(summary, turns=max(summary.turns, event.turn_index + 1), title=title, updated=at)
    if isinstance(event, CaUsageSnapshot):
        tokens = (event.input_tokens or 0) + (event.output_tokens or 0)
        tokens += (event.cache_creation_input_tokens or 0) + (event.cache_read_input_tokens or 0)
        cost = event.cost_usd or 0.0
        if event.cost_semantic == "delta":
            return replace(summary, tokens=summary.tokens + tokens, delta_usd=summary.delta_usd + cost, updated=at)
        highest = max(summary.cumulative_usd, cost)
        return replace(summary, tokens=summary.tokens + tokens, cumulative_usd=highest, updated=at)
    if isinstance(event, CaSessionEnded):
        return replace(summary, status=event.reason, updated=at)
    return summary


def _title(message: UserInput) -> str:
    if isinstance(message.content, str):
        text = message.content
    else:
        texts = [block.get("text") for block in message.content if block.get("type") == "text"]
        text = next((part for part in texts if isinstance(part, str)), "")
    text = " ".join(text.split())
    return text if len(text) <= _TITLE_LENGTH else text[: _TITLE_LENGTH - 1] + "…"
