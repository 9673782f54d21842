"""The responses that a server holds: whose they are, which may be continued, and how many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from computeragent.errors import ConflictError, NotFoundError, TooManySessionsError
from computeragent.logs import Logger
from computeragent.responses.conversations import Conversation
from computeragent.responses.runs import Run

MAX_LIVE = 64
"""Responses that may be under way at a time; further ones are refused with 429."""
MAX_HELD = 1_000
MAX_BYTES = 512 * 1024 * 1024
"""What finished responses may hold, pictures included; beyond that the oldest are forgotten."""
_log = Logger("responses")


class Held:
    """Responses by id. `forget` is awaited with a conversation of which no response is held any more."""

    def __init__(self, forget: Callable[[Conversation], Coroutine[Any, Any, None]], *, most: int = MAX_LIVE) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._forget = forget
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> list[Run]:
        """Those that are under way."""
        return [run for run in self._runs.values() if not run.done.is_set()]

    @property
    def resting(self) -> list[Conversation]:
        """Conversations whose session is open while nothing of them is under way, oldest first."""
        runs = reversed(self._runs.values())
        return [*dict.fromkeys(run.conversation for run in runs if run.conversation.resting)][::-1]

    def require_room(self) -> None:
        """Raise `TooManySessionsError` where too many are under way."""
        if len(self.live) >= self._most:
            raise TooManySessionsError(f"{self._most} responses are under way", hint="Try again when one has ended.")

    def add(self, run: Run) -> None:
        """Hold a response; the oldest finished ones make room."""
        self._runs[run.id] = run
        finished = [each for each in self._runs.values() if each.done.is_set()]
        size = sum(each.size for each in self._runs.values())
        while finished and (len(self._runs) > MAX_HELD or size > MAX_BYTES):
            oldest = finished.pop(0)
            size -= oldest.size
            self.drop(oldest)

    def find(self, response_id: str, owner: str) -> Run:
        """A response of this owner's. Raises `NotFoundError`, for others' as well."""
        run = self._runs.get(response_id)
        if run is None or run.owner != owner:
            raise NotFoundError(f"there is no response {response_id[:80]!r}", hint="It was deleted, or is too old.")
        return run

    def to_continue(self, response_id: str, owner: str) -> Run:
        """The response that another one wants to go on from. Raises `NotFoundError` and `ConflictError`."""
        run = self.find(response_id, owner)
        if run.conversation.under_way:
            raise ConflictError(
                f"{run.id} or what goes on from it is still under way", hint="Wait for its end, or cancel it."
            )
        if run.id not in run.conversation.ends:
            raise ConflictError(f"{run.id} has been continued already", hint="Go on from the newest response.")
        if not run.request.store:
            raise ConflictError(f"{run.id} was not stored", hint="Leave store=false out of what is to be continued.")
        return run

    def drop(self, run: Run) -> None:
        """Forget a finished response, and its conversation with the last one of it."""
        self._runs.pop(run.id, None)
        if not any(each.conversation is run.conversation for each in self._runs.values()):
            task = asyncio.create_task(self._forget(run.conversation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop all that is under way, and forget everything."""
        await asyncio.gather(*(run.close() for run in self.live))
        for run in list(self._runs.values()):
            self.drop(run)
        if self._tasks:
            await asyncio.wait(self._tasks)
