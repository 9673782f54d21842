"""The work itself: launches until one ends well, and attempts until one is right or none is left."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any, cast

from inspect_ai.agent import AgentState
from inspect_ai.model import ChatMessage
from inspect_ai.scorer import Score, score
from inspect_ai.util import store, trace_message

from computeragent.clis import Run
from computeragent.errors import CliFailedError, ValidationError
from computeragent.swe.agents.launching import Ended, run, start
from computeragent.swe.agents.options import Settings, is_text
from computeragent.swe.agents.places import Place
from computeragent.swe.bridge import Bridge
from computeragent.swe.sandboxes.types import unwrapped
from computeragent.telemetry.redaction import Redactor, credentials_in

GO_ON = "You were interrupted. Go on where you left off."
"""What an agent is told that is resumed after a crash."""

_SHOWN = 2000
_log = getLogger(__name__)


class Session:
    """Whether a sample has a session of this agent, and what it knows. It is kept in the sample's store, so in the log.

    `id` is its name, `system` the system prompt that it was given last, `seen` the ids of messages that it has seen.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        kept: dict[str, Any] = store().get(key, {})
        self.id = str(kept.get("id", ""))
        self.system = str(kept.get("system", ""))
        self.seen = frozenset[str](kept.get("seen", ()))

    @property
    def known(self) -> bool:
        """Whether there is one to go on with."""
        return bool(self.id)

    def begin(self, *, resume: bool) -> str:
        """The id of the session to go on with, or of a new one."""
        if not resume:
            self.id = str(uuid.uuid4())
        return self.id

    def tell(self, system: str, messages: Sequence[ChatMessage]) -> None:
        """It is told, or has seen, all of this."""
        self.system, self.seen = system, self.seen | {message.id for message in messages if message.id}

    def keep(self) -> None:
        """There is one now."""
        store().set(self._key, {"id": self.id or "latest", "system": self.system, "seen": sorted(self.seen)})


@dataclass(kw_only=True)
class Work:
    """What an agent does in one sample."""

    settings: Settings
    place: Place
    program: str
    bridge: Bridge
    session: Session

    async def attempts(self, first: Run) -> None:
        """Launch until an attempt is right, or none is left."""
        allowed, now = self.settings.attempts, first
        for attempt in range(1, allowed.attempts + 1):
            now = await self._attempt(now)
            if attempt == allowed.attempts:
                return
            scores = await score(self.bridge.state)
            if scores and allowed.score_value(scores[0].value) == 1.0:
                return
            now = replace(now, resume=True, prompt=await self._again(scores))

    async def _again(self, scores: list[Score]) -> str:
        message = self.settings.attempts.incorrect_message
        if isinstance(message, str):
            return message
        said = cast("Callable[[AgentState, list[Score]], str | Awaitable[str]]", message)(self.bridge.state, scores)
        text = said if isinstance(said, str) else await said
        if not is_text(text) or not text.strip():
            raise ValidationError("attempts: incorrect_message gives no text", hint="What it gives is the next prompt.")
        return text

    async def _attempt(self, now: Run) -> Run:
        """Launch until it ends well. The run that did, for the next attempt to go on with."""
        left = self.settings.retry_uncaught_errors or 0
        while True:
            asked = self.bridge.requests
            ended = await self._launch(now)
            told = self.bridge.requests > asked
            if told:
                self.session.tell(self.session.system, self.bridge.state.messages)
                self.session.keep()
                self._refuse_missing_tools()
            if told and (ended.status == 0 or self.bridge.refused):
                await self._take_answer(now)
                return now  # whether the model would not is for the scorer to judge
            if not self._is_crash(ended) or left <= 0:
                raise self._failed(ended, told=told)
            left -= 1
            _log.warning("%s ended with status 1 and said nothing; it is resumed", self.settings.row.title)
            now = self._resumed(now, told=told)

    async def _take_answer(self, now: Run) -> None:
        path = self.settings.row.answer_in(now)
        if not path:
            return
        try:
            answer = self.settings.row.answer(await unwrapped(self.place.sandbox).read_file(path))
        except FileNotFoundError:
            return
        if answer.strip() and self.bridge.state.output.choices:
            output = self.bridge.state.output.model_copy(deep=True)
            output.completion = answer
            self.bridge.state.output = output

    async def _launch(self, now: Run) -> Ended:
        row = self.settings.row
        await self.place.write(row.files(now))
        process = await start(
            self.place.sandbox,
            (self.program, *row.arguments(now)),
            cwd=self.place.cwd,
            env={**row.environment(now), **self.settings.env},
            user=self.place.user,
            given=row.given(now),
        )
        return await run(process, self._trace)

    def _is_crash(self, ended: Ended) -> bool:
        exits = self.settings.row.exits
        said = [line for line in ended.stderr.splitlines() if line.strip() and not re.fullmatch(exits.chatter, line)]
        return exits.crash_when_silent and ended.status == 1 and not said

    def _resumed(self, now: Run, *, told: bool) -> Run:
        if told:
            return replace(now, resume=True, prompt=GO_ON)
        if now.resume or not now.session_id:
            return now
        # It has asked nothing, so there may be no session to go on with, or half of one: another is begun.
        return replace(now, session_id=self.session.begin(resume=False))

    def _refuse_missing_tools(self) -> None:
        missing, row = list(self.bridge.missing_tools), self.settings.row
        if not row.requires_servers:
            missing += [
                f"any tool of {server.name}"
                for server in self.settings.mcp_servers
                if server.tools != () and not self.bridge.offered(server.name)
            ]
        if missing:
            raise CliFailedError(
                f"{row.title} did not offer the model {', '.join(missing)}",
                hint="Tools that the model never sees make another task of it: look whether the servers of mcp_servers "
                "start in the sandbox, at disallowed_tools, at the agent's own settings, and at debug=True.",
            )

    def _failed(self, ended: Ended, *, told: bool) -> CliFailedError:
        row, retries = self.settings.row, self.settings.retry_uncaught_errors or 0
        hint = "debug=True has it say more; version= chooses another one of it."
        if not told:
            hint = f"It asked the model nothing: look at env, mcp_servers and its own settings. {hint}"
        if ended.status == 0:
            what = "ended without asking the model anything"
        else:
            how = f"status {ended.status}" if ended.status > 0 else f"signal {-ended.status}"
            often = f", without a word of what failed, {retries + 1} times" if self._is_crash(ended) and retries else ""
            what = f"ended with {how}{often}"
        said = (ended.stderr.strip() or ended.stdout.strip())[-_SHOWN:]
        last = f" The last error that it was given by the model: {self._last_error()}" if self.bridge.last_error else ""
        return CliFailedError(
            f"{row.title} {what}: {self._redactor().redact_text(said) or 'it printed nothing'}.{last}",
            hint=" ".join((hint, *row.exits.notes)),
        )

    def _last_error(self) -> str:
        return self._redactor().redact_text(str(self.bridge.last_error))[:_SHOWN]

    def _trace(self, name: str, text: str) -> None:
        if self.settings.debug:
            trace_message(_log, self.settings.row.title, "%s: %s", name, self._redactor().redact_text(text))

    def _redactor(self) -> Redactor:
        known = [self.bridge.api_key, *credentials_in(dict(self.settings.env))]
        for server in self.settings.mcp_servers:
            known += credentials_in({"headers": dict(server.headers), "env": dict(server.env)})
        return Redactor(known_values=known)
