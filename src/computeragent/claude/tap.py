"""The tap: sees what passes between a caller and upstream, and never touches it.

Everything here that a message waits for is one append to the pipeline's lane. What the messages mean is worked out
behind it, on the pipeline's thread.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from computeragent.errors import GuardrailError
from computeragent.logs import Logger
from computeragent.settings import setting
from computeragent.telemetry.config import get_config, get_pipeline
from computeragent.telemetry.described import credential_holders, described
from computeragent.telemetry.event import TelemetryEvent, new_session_id
from computeragent.telemetry.faults import said
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.recorded import decision_payload
from computeragent.telemetry.seen import from_upstream, read_block
from computeragent.telemetry.steps import Step
from computeragent.telemetry.story import Story
from computeragent.telemetry.trace_context import current_parent, ids_of, span_as_current
from computeragent.wire.events import CaPermissionDecision

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

_NAME_LENGTH = 80
_log = Logger("telemetry")

Prompt = str | AsyncIterable[dict[str, Any]] | None


class Tap:
    """One session of the drop-in: a `query`, or a client from connect to disconnect."""

    def __init__(self, pipeline: Pipeline, options: ClaudeAgentOptions | None, prompt: Prompt) -> None:
        self.trip: Trip | None = None
        self.ended = False
        self._error: BaseException | None = None
        config = get_config()
        self._pipeline = pipeline
        self._options = options
        self._parent = current_parent()
        self._first_turn = uuid.uuid4().hex
        self._next_turn: str | None = self._first_turn
        self._story = Story(
            new_session_id(),
            agent_name=_agent_name(options) or config.agent_name,
            agent_id=getattr(options, "agent_id", None) or config.agent_id or setting("agent_id"),
            agent_description=getattr(options, "agent_description", None),
        )
        pipeline.watch(self.session_id, self)
        self._begin(prompt)

    @classmethod
    def open(cls, options: ClaudeAgentOptions | None, prompt: Prompt) -> Tap | None:
        """A tap for a session that begins now; None where nobody listens, or where telemetry itself is broken."""
        try:
            pipeline = get_pipeline()
            return cls(pipeline, options, prompt) if pipeline.active else None
        except Exception as error:  # noqa: BLE001 - telemetry never breaks a run
            _log.error("tap_failed", error=said(error))
            return None

    @property
    def session_id(self) -> str:
        """The session's id in telemetry."""
        return self._story.session_id

    # ── What passes by ──

    def message(self, message: object) -> None:
        """A message of upstream's, on its way to the caller."""
        if not self.ended:
            self._error = None
            self._pipeline.offer(Step(time.time_ns(), partial(self._read, message), source=message))

    def prompt(self, text: str | None) -> None:
        """The caller says something."""
        if self.ended:
            return
        event_id, self._next_turn = self._next_turn, None
        parent = self._parent if event_id is not None else current_parent() or self._parent
        tell = partial(self._story.prompt, text=text, event_id=event_id, parent=parent)
        self._pipeline.offer(Step(time.time_ns(), tell, vital=True, source=text))

    def decided(self, event: CaPermissionDecision) -> None:
        """A policy has judged a call."""
        if not self.ended:
            tell = partial(self._story.decision, payload=decision_payload(event))
            self._pipeline.offer(Step(time.time_ns(), tell, vital=True))

    def watched(self, prompt: Prompt) -> Prompt:
        """The prompt to pass on: a text as it is, a stream as one that tells what goes through it."""
        return _observed(self, prompt) if isinstance(prompt, AsyncIterable) else prompt

    def fail(self, error: BaseException) -> None:
        """The caller was shown an error. It is what the session ended with, unless it goes on."""
        self._error = error

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        """The session is over; only the first call counts. With `cancelled`, the caller left."""
        if self.ended:
            return
        self.ended = True
        error, self._error = error or self._error, None
        self._pipeline.offer(Step(time.time_ns(), partial(self._finish, error, cancelled), vital=True))

    async def settle(self) -> None:
        """Wait, at most as long as was configured, until what was told is safe."""
        await self._pipeline.settle()

    # ── What acts on the run ──

    def stop(self, trip: Trip) -> None:
        """Called on the pipeline's thread when a guard trips; takes effect at the next message."""
        if self.trip is None:
            self.trip = trip

    def leave(self) -> None:
        """The pipeline closes for good: the session ends here, as far as it is told."""
        self.end(cancelled=True)

    def abandon(self) -> None:
        """After a fork, in the child: the parent tells the rest."""
        self.ended = True

    def __del__(self) -> None:
        """A client that was never disconnected has gone."""
        if not self.ended and hasattr(self, "_story"):
            self.end(cancelled=True)

    def refusal(self) -> GuardrailError:
        """The error for a caller whose run was stopped."""
        assert self.trip is not None
        return GuardrailError(
            self.trip.reason,
            hint="Raise the limit of the GuardrailFilter, or give it mode='observe'.",
            details={"kind": self.trip.kind, "session_id": self.session_id},
        )

    def options(self) -> ClaudeAgentOptions | None:
        """The options to pass on: the caller's own object, unless a cost ceiling has to go with them."""
        ceiling = self._pipeline.cost_ceiling_usd
        if ceiling is None:
            return self._options
        from claude_agent_sdk import ClaudeAgentOptions

        options = copy.copy(self._options or ClaudeAgentOptions())
        own: Any = options.max_budget_usd
        if own is not None and (not isinstance(own, (int, float)) or own <= ceiling):
            return self._options
        options.max_budget_usd = ceiling
        return options

    def span(self) -> AbstractContextManager[Any]:
        """The first turn's span as the current one, so that the CLI and hooks are its children.

        Only where that span is exported: nothing must hang on one that nobody ever sees.
        """
        if not self._pipeline.traced:
            return nullcontext()
        trace_id, span_id = ids_of(self._first_turn)
        sampled = self._parent.sampled if self._parent else True
        return span_as_current(self._parent.trace_id if self._parent else trace_id, span_id, sampled)

    # ── On the pipeline's thread ──

    def _read(self, message: object, at: int) -> list[TelemetryEvent]:
        seen = from_upstream(message)
        return [] if seen is None else self._story.read(at, seen, raw=message)

    def _start(self, options: dict[str, Any], at: int) -> list[TelemetryEvent]:
        self._story.start(at, described(options))
        self._pipeline.learned(self.session_id, credential_holders(options))
        return []

    def _finish(self, error: BaseException | None, cancelled: bool, at: int) -> list[TelemetryEvent]:
        return self._story.end(at, error=error, cancelled=cancelled, stopped=self.trip)

    def _begin(self, prompt: Prompt) -> None:
        given = dict(vars(self._options)) if self._options is not None else {}  # as they are now
        self._pipeline.offer(Step(time.time_ns(), partial(self._start, given), vital=True))
        if isinstance(prompt, str):
            self.prompt(prompt)


def _agent_name(options: Any) -> str | None:
    given = getattr(options, "agent_name", None)
    if given:
        return str(given)
    system = getattr(options, "system_prompt", None)
    if isinstance(system, str) and system.strip():
        return system.strip().splitlines()[0][:_NAME_LENGTH]
    return None


async def _observed(tap: Tap, prompt: AsyncIterable[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    async for message in prompt:
        if tap.trip is not None:
            raise tap.refusal()
        if _is_said(message):
            tap.prompt(_said(message))
        yield message


def _is_said(message: Any) -> bool:
    """Whether it is for the model, and no control message to the CLI, or junk."""
    return isinstance(message, Mapping) and cast("Mapping[str, Any]", message).get("type", "user") == "user"


def _said(message: Any) -> str | None:
    """The text of a user message in upstream's streaming form."""
    if not isinstance(message, Mapping):
        return None
    given = cast("Mapping[str, Any]", message)
    inner = given.get("message")
    content: Any = cast("Mapping[str, Any]", inner).get("content") if isinstance(inner, Mapping) else given.get("text")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        blocks = cast("list[Any]", content)
        return "".join(block.text for block in map(read_block, blocks) if block.kind == "text")
    return None
