"""`GuardrailFilter`: bounds on what is told, and on what a run may cost or say."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from fnmatch import fnmatchcase
from typing import Literal

from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.telemetry.bounds import truncate
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.faults import said
from computeragent.telemetry.protocols import Trip

ContentFilter = Callable[[TelemetryEvent], TelemetryEvent | Awaitable[TelemetryEvent | None] | None]
"""Returns the event, another one in its place, or None where the content must not be."""

_SESSIONS = 10_000
_LIFECYCLE = frozenset({"session_started", "turn_started", "usage_snapshot", "session_ended"})
_CONTENT = frozenset({"prompt", "system_prompt", "result", "errors", "permission_denials"})
_log = Logger("guardrails")


class GuardrailFilter:
    """Guards a session.

    What shapes telemetry only, since a tap never changes messages: texts of more than `max_attribute_length`
    characters are cut (None: never), and calls of tools that no pattern of `tool_name_allowlist` matches are left out
    with their results.

    What acts on the run, with ``mode="enforce"``: a session that has cost more than `cost_ceiling_usd` is stopped, by
    the CLI's own budget and by us at the next message; so is one whose event `content_filter` answers with None, or on
    which it fails. ``mode="observe"`` only notes it, as ``guardrail`` in the payload of the event.
    """

    def __init__(
        self,
        *,
        max_attribute_length: int | None = 8192,
        tool_name_allowlist: Iterable[str] | None = None,
        cost_ceiling_usd: float | None = None,
        content_filter: ContentFilter | None = None,
        mode: Literal["enforce", "observe"] = "enforce",
    ) -> None:
        if mode not in {"enforce", "observe"}:
            raise ValidationError(f"mode {mode!r} is not known", hint='Use "enforce" or "observe".')
        if cost_ceiling_usd is not None and not cost_ceiling_usd > 0:
            raise ValidationError("cost_ceiling_usd must be above 0", hint="Give an amount in US dollars.")
        if max_attribute_length is not None and max_attribute_length < 1:
            raise ValidationError("max_attribute_length must be at least 1", hint="Use None for no limit.")
        self.mode = mode
        self.cost_ceiling_usd = cost_ceiling_usd
        self._longest = max_attribute_length
        self._tools = None if tool_name_allowlist is None else frozenset(tool_name_allowlist)
        self._content_filter = content_filter
        self._trips: OrderedDict[str, Trip] = OrderedDict()
        self._unpriced = False

    @property
    def enforced_ceiling_usd(self) -> float | None:
        """What a session may cost before it is stopped; None when it is not stopped for that."""
        return self.cost_ceiling_usd if self.mode == "enforce" else None

    def verdict(self, session_id: str) -> Trip | None:
        """Why a session has to stop, or None."""
        return self._trips.get(session_id)

    async def __call__(self, event: TelemetryEvent) -> TelemetryEvent | None:
        """Shape one event, and judge its session by it."""
        if not self._is_allowed(event):
            return None
        self._check_cost(event)
        if self._longest is not None:
            event.payload = truncate(event.payload, self._longest)
        kept = await self._filtered(event)
        if event.kind == "session_ended":
            self._trips.pop(event.session_id, None)
        return kept

    def _is_allowed(self, event: TelemetryEvent) -> bool:
        if self._tools is None or event.kind not in {"tool_use", "tool_result"}:
            return True
        name = event.payload.get("tool_name")
        return isinstance(name, str) and any(fnmatchcase(name, pattern) for pattern in self._tools)

    def _check_cost(self, event: TelemetryEvent) -> None:
        ceiling = self.cost_ceiling_usd
        if ceiling is None or event.kind != "usage_snapshot":
            return
        total = event.payload.get("total_cost_usd")
        if total is None:
            if not self._unpriced:
                self._unpriced = True
                _log.warn("cost_unknown", session=event.session_id, model=event.payload.get("model"))
        elif total > ceiling:
            self._trip(
                event, Trip("budget_exceeded", f"the session cost ${total:.4f}, above the ceiling of ${ceiling}")
            )

    async def _filtered(self, event: TelemetryEvent) -> TelemetryEvent | None:
        if self._content_filter is None:
            return event
        lifecycle = event.kind in _LIFECYCLE
        try:
            kept = self._content_filter(event)
            kept = await kept if inspect.isawaitable(kept) else kept
        except Exception as error:  # noqa: BLE001 - a filter that fails has allowed nothing
            if event.session_id not in self._trips:
                _log.error("content_filter_failed", session=event.session_id, error=said(error))
            self._trip(event, Trip("content_blocked", f"the content filter failed: {type(error).__name__}"))
            kept = None
        else:
            if kept is None:
                self._trip(event, Trip("content_blocked", "the content filter blocked what was said"))
        trip = self._trips.get(event.session_id)
        if lifecycle and (kept is None or (trip is not None and trip.kind == "content_blocked")):
            # a session's start, turns and end are told in any case, without what was said
            event.payload = {key: value for key, value in event.payload.items() if key not in _CONTENT}
            return event
        return kept

    def _trip(self, event: TelemetryEvent, trip: Trip) -> None:
        event.payload = {**event.payload, "guardrail": {"kind": trip.kind, "reason": trip.reason, "mode": self.mode}}
        if self.mode == "observe" or event.session_id in self._trips:
            return
        self._trips[event.session_id] = trip
        if len(self._trips) > _SESSIONS:
            self._trips.popitem(last=False)
