"""A model that plays a script in this process: no HTTP, no key, the same answers every time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from msgspec.structs import replace

from computeragent.dialects.events import ModelEvent
from computeragent.dialects.model import ModelError, ModelRequest
from computeragent.dialects.streams import response_events
from computeragent.errors import ModelCallError
from computeragent.models.script.loading import load_script
from computeragent.models.script.playing import Performance, Player
from computeragent.models.script.rules import Script

NEUTRAL = "neutral"
PREFIX = "scripted/"


class ScriptedModel:
    """A `Model` that answers from a script, given as a `Script` or the path of a script file.

    It is spoken to in no wire but the neutral model itself. Faults of the script are `ModelCallError`s, and delays are
    kept. Raises `ScriptError` for a bad script file.
    """

    def __init__(self, script: Script | str | Path, *, name: str | None = None) -> None:
        self._player = Player(script if isinstance(script, Script) else load_script(script))
        self._name = name or (script.name or "script" if isinstance(script, Script) else str(script))

    def __repr__(self) -> str:
        return f"ScriptedModel({self.name!r})"

    @property
    def name(self) -> str:
        """The script's name, or the path of its file."""
        return self._name

    @property
    def dialect(self) -> str:
        """``neutral``."""
        return NEUTRAL

    @property
    def provider(self) -> str:
        """``scripted``."""
        return "scripted"

    async def aclose(self) -> None:
        """There is nothing to let go."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """The answer's events, up to `Ended`. Raises `ModelCallError` where the script has a fault."""
        played = self._player.play(replace(request, model=self.name, stream=True))
        if played.reply.delay:
            await asyncio.sleep(played.reply.delay)
        if played.response is None:
            raise self._told(played.error or ModelError(kind="server", message="simulated error"))
        events = list(response_events(played.response, played.reply.chunk_size))
        for event in events[: _end(played, len(events))]:
            if played.reply.chunk_delay:
                await asyncio.sleep(played.reply.chunk_delay)
            yield event
        if played.broken is not None:
            cut = played.broken.how == "cut"
            message = "the stream broke off" if cut else played.broken.message
            raise self._told(ModelError(kind="incomplete" if cut else played.broken.kind, message=message))

    def _told(self, error: ModelError) -> ModelCallError:
        details = {"kind": error.kind, "status": error.status, "type": error.type, "retry_after": error.retry_after}
        told = {name: value for name, value in details.items() if value is not None}
        return ModelCallError(f"{self.name}: {error.message}", details={**told, "provider": self.provider})


def _end(played: Performance, count: int) -> int:
    """A break after more events than there are happens before the last one."""
    return count if played.broken is None else min(played.broken.after, count - 1)
