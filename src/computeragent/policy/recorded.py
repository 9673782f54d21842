"""Tool calls that were made, read back from where they are kept: a session's events, or lines of JSON.

A recording is read anew each time that it is iterated, call by call, so that it may be of any length. Rows that make no
sense are counted in its `skipped` and passed by.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
from anyio.lowlevel import checkpoint

from computeragent.errors import NotFoundError, ValidationError
from computeragent.eventlog import SessionSummary, SqliteEventLog
from computeragent.wire.encoding import from_json
from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    HarnessEvent,
    Recorded,
    SdkMessage,
    Verdict,
)

_ALL = 1_000_000
_PAGE = 512
_OPEN = 256
"""Calls of one session whose results are waited for at a time."""
_REMEMBERED = 10_000
_LONGEST_LINE = 64 * 1024 * 1024

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call and what was decided of it.

    `input` is what the engine asked for; where it was changed and only the change is on record, that. `changed` is
    what ran instead. `at` is in epoch seconds. `cwd` is the folder that relative paths start from. `ran` says whether
    a result is on record; None where results are not. `redacted` inputs may have other values than the call had.
    """

    session_id: str
    call_id: str
    tool: str
    input: Json
    decision: Verdict
    decided_by: str | None = None
    changed: Json | None = None
    policy: str | None = None
    rule: str | None = None
    code: str | None = None
    reason: str | None = None
    principal: str | None = None
    at: float | None = None
    agent: str = ""
    engine: str = ""
    model: str = ""
    cwd: str | None = None
    ran: bool | None = None
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls to read: since a time (epoch seconds), of sessions whose ids begin so, of agents, of tools. What is
    empty is not asked for.
    """

    since: float | None = None
    sessions: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    def session(self, session_id: str) -> bool:
        """Whether calls of a session are wanted."""
        return not self.sessions or session_id.startswith(self.sessions)

    def call(self, call: RecordedCall) -> bool:
        """Whether a call is."""
        return (
            self.session(call.session_id)
            and (not self.agents or call.agent in self.agents)
            and (not self.tools or call.tool.lower() in {tool.lower() for tool in self.tools})
            and (self.since is None or call.at is None or call.at >= self.since)
        )


class Recording(Protocol):
    """Calls that can be read again and again. `skipped` counts, by why, what the last reading passed by."""

    @property
    def skipped(self) -> Counter[str]:
        """What was passed by, and how often."""
        ...

    def __aiter__(self) -> AsyncIterator[RecordedCall]: ...


@dataclass(slots=True)
class GivenCalls:
    """A recording of calls that are at hand."""

    calls: list[RecordedCall]
    skipped: Counter[str] = field(default_factory=Counter[str])

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        for call in self.calls:
            yield call


# ── The event log of this machine ────────────────────────────────────────────────────────────────────────────


class LogCalls:
    """The calls in the session log of this machine, or in another file of that kind. For asyncio."""

    def __init__(self, path: str | Path | None = None, wanted: Wanted | None = None) -> None:
        self.skipped: Counter[str] = Counter()
        self._path = path
        self._wanted = wanted or Wanted()

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        self.skipped.clear()
        async with SqliteEventLog(self._path) as log:
            for summary in await log.sessions(_ALL):
                if self._relevant(summary):
                    async for call in self._session(log, summary):
                        yield call

    def _relevant(self, summary: SessionSummary) -> bool:
        wanted = self._wanted
        recent = wanted.since is None or summary.updated >= wanted.since or summary.live
        return recent and wanted.session(summary.session_id)

    async def _session(self, log: SqliteEventLog, summary: SessionSummary) -> AsyncIterator[RecordedCall]:
        calls = SessionCalls(summary.session_id, self.skipped, agent=summary.agent, engine=summary.engine)
        with suppress(NotFoundError):  # deleted meanwhile
            async for recorded in self._events(log, summary.session_id):
                for call in calls.feed(recorded.event, recorded.at):
                    if self._wanted.call(call):
                        yield call
        for call in calls.end():
            if self._wanted.call(call):
                yield call

    async def _events(self, log: SqliteEventLog, session_id: str) -> AsyncIterator[Recorded]:
        after, size, until = -1, _PAGE, -1
        while True:
            try:
                page = await log.read(session_id, after, size)
            except msgspec.DecodeError:
                if size > 1:
                    size, until = 1, after + _PAGE  # one of this page: it is found, and passed by
                    continue
                self.skipped["an event that cannot be read"] += 1
                after += 1  # ids have no gaps
                continue
            if not page:
                return
            for recorded in page:
                yield recorded
            after = page[-1].id
            if after >= until:
                size = _PAGE


_Decided = tuple[CaPermissionDecision, float | None, Json]


class SessionCalls:
    """Finds the calls among the events of one session, in order."""

    def __init__(self, session_id: str, skipped: Counter[str], *, agent: str = "", engine: str = "") -> None:
        self._session_id = session_id
        self._agent = agent
        self._engine = engine
        self._model = ""
        self._cwd: str | None = None
        self._skipped = skipped
        self._asked: OrderedDict[str, Any] = OrderedDict()
        self._open: OrderedDict[str, _Decided] = OrderedDict()
        self._tells_results = False

    def feed(self, event: HarnessEvent, at: float | None) -> Iterator[RecordedCall]:
        """Take an event; the calls of which all is known now."""
        match event:
            case CaPermissionDecision():
                yield from self._decided(event, at)
            case SdkMessage():
                raw = bytes(event.raw)
                if b'"tool_use"' in raw or b'"tool_result"' in raw or b'"init"' in raw:
                    yield from self._message(raw)
            case CaPermissionRequest():
                self._asked[event.call_id] = event.input
                self._forget()
            case CaSessionStarted():
                self._agent, self._engine, self._cwd = event.identity.name, event.engine, event.cwd
            case CaSessionEnded():
                yield from self.end()
            case _:
                pass

    def end(self) -> Iterator[RecordedCall]:
        """The calls that are left when no more comes."""
        for decided in self._open.values():
            yield self._call(decided, ran=False if self._tells_results else None)
        self._open.clear()
        self._asked.clear()

    def _decided(self, event: CaPermissionDecision, at: float | None) -> Iterator[RecordedCall]:
        asked: Any = self._asked.pop(event.call_id, None)
        given: Any = event.input
        if not event.tool_name or not isinstance(given, dict):
            self._skipped["a decision without its call"] += 1
            return
        if event.decision != "modify":
            asked = None
        elif isinstance(asked, msgspec.Raw):
            asked = from_json(bytes(asked))
        decided = (event, at, cast("Json", asked if isinstance(asked, dict) else given))
        if event.decision == "deny":
            yield self._call(decided, ran=None)
            return
        self._open[event.call_id] = decided
        if len(self._open) > _OPEN:
            yield self._call(self._open.popitem(last=False)[1], ran=None)

    def _call(self, decided: _Decided, *, ran: bool | None) -> RecordedCall:
        event, at, given = decided
        return RecordedCall(
            self._session_id,
            event.call_id,
            event.tool_name or "",
            given,
            event.decision,
            event.decided_by,
            event.input if event.decision == "modify" else None,
            event.engine,
            event.rule,
            event.code,
            event.reason,
            event.principal,
            at,
            self._agent,
            self._engine,
            self._model,
            self._cwd,
            ran,
        )

    def _message(self, raw: bytes) -> Iterator[RecordedCall]:
        try:
            said = _payloads.decode(raw)
        except msgspec.DecodeError:
            return  # a message of another shape, as engines have them
        if said.type == "system":
            self._cwd, self._model = self._cwd or said.cwd, said.model or self._model
        content = said.message.content if said.message is not None else None
        for block in content if isinstance(content, list) else ():
            if block.type == "tool_use":
                self._asked.setdefault(block.id, block.input)
                self._forget()
            elif block.type == "tool_result":
                self._tells_results = True
                decided = self._open.pop(block.tool_use_id, None)
                if decided is not None:
                    yield self._call(decided, ran=True)

    def _forget(self) -> None:
        if len(self._asked) > _OPEN:
            self._asked.popitem(last=False)


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    tool_use_id: str = ""
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    content: list[_Block] | str | None = None


class _Payload(msgspec.Struct):
    """What calls are found in, of a message that may be long."""

    type: str = ""
    cwd: str | None = None
    model: str | None = None
    message: _Message | None = None


_payloads = msgspec.json.Decoder(_Payload)


# ── Lines of JSON: of a jsonl sink, or an audit file ─────────────────────────────────────────────────────────


class FileCalls:
    """The decisions in a file of lines of JSON that a sink wrote: telemetry's events, or the rows of an audit file.

    Its values are redacted, and long ones are cut. Raises `ValidationError` when iterated where there is no such file.
    """

    def __init__(self, path: str | Path, wanted: Wanted | None = None) -> None:
        self.path = Path(path)
        self.skipped: Counter[str] = Counter()
        self._wanted = wanted or Wanted()
        self._sessions: OrderedDict[str, Json] = OrderedDict()

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        self.skipped.clear()
        self._sessions.clear()
        for number, line in enumerate(self._lines()):
            if number % 256 == 0:
                await checkpoint()
            call = self._call(line)
            if call is not None and self._wanted.call(call):
                yield call

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while line := file.readline(_LONGEST_LINE):
                    if line.endswith(b"\n") or len(line) < _LONGEST_LINE:
                        yield line
                        continue
                    self.skipped["a line that is too long"] += 1
                    while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValidationError(
                f"{self.path} cannot be read: {reason}", hint="Give a file of a jsonl sink, or an audit file."
            ) from error

    def _call(self, line: bytes) -> RecordedCall | None:
        if b'"policy_decision"' not in line and b'"session_started"' not in line:
            if line.strip() and not line.lstrip().startswith(b"{"):
                self.skipped["a line that is no JSON object"] += 1
            return None
        try:
            row: Any = from_json(line)
        except (ValueError, RecursionError):
            self.skipped["a line that is no JSON object"] += 1
            return None
        event = _object(_object(row).get("event")) or _object(row)
        payload = _object(event.get("payload"))
        session_id = str(event.get("session_id") or "")
        if event.get("kind") == "session_started":
            self._sessions[session_id] = {name: payload.get(name) for name in ("model", "cwd", "engine")}
            if len(self._sessions) > _REMEMBERED:
                self._sessions.popitem(last=False)
        if event.get("kind") != "policy_decision":
            return None
        call = self._decision(session_id, event, payload)
        if call is None:
            self.skipped["a decision without its call"] += 1
        return call

    def _decision(self, session_id: str, event: Mapping[str, Any], payload: Mapping[str, Any]) -> RecordedCall | None:
        tool, given, decision = payload.get("tool_name"), payload.get("tool_input"), payload.get("decision")
        if not isinstance(tool, str) or not isinstance(given, dict) or decision not in {"allow", "deny", "modify"}:
            return None
        session = self._sessions.get(session_id, {})
        told = cast("Json", given)
        return RecordedCall(
            session_id,
            str(payload.get("tool_use_id") or ""),
            tool,
            told,
            cast("Verdict", decision),
            decided_by=_text(payload.get("decided_by")),
            changed=told if decision == "modify" else None,
            policy=_text(payload.get("engine")),
            rule=_text(payload.get("rule")),
            code=_text(payload.get("code")),
            reason=_text(payload.get("reason")),
            principal=_text(payload.get("principal_id")),
            at=_seconds(event.get("timestamp")),
            agent=_text(event.get("agent_name")) or "",
            engine=_text(session.get("engine")) or "",
            model=_text(session.get("model")) or "",
            cwd=_text(session.get("cwd")),
            redacted=True,
        )


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
