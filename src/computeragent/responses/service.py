"""What the routes and the peers do alike: begin a response, find it, wait for it, forget it."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from computeragent.computer.pool import default_pool
from computeragent.harness import LocalHarness
from computeragent.ids import new_id
from computeragent.responses.bodies import CreateResponse
from computeragent.responses.conversations import Conversation
from computeragent.responses.held import MAX_LIVE, Held
from computeragent.responses.resolving import Offered, resolve
from computeragent.responses.runs import Run
from computeragent.server.auth import Principal


class Responses:
    """Begins responses and holds them. Each is a turn of a session; one that continues another is its next."""

    def __init__(self, harness: LocalHarness, *, offered: Offered | None = None, most: int = MAX_LIVE) -> None:
        self._harness = harness
        self._offered = offered or Offered()
        self._held = Held(self._forget, most=most)

    def start(self) -> None:
        """Make ready, in the event loop that it will run in."""
        default_pool().limit = self._offered.computers

    @property
    def live(self) -> list[Run]:
        """What is under way."""
        return self._held.live

    def create(self, request: CreateResponse, principal: Principal, *, can_ask: bool = False) -> Run:
        """Begin a response. Raises a `ComputerAgentError` for all that can be known before it runs.

        With `can_ask` an action may wait for a person's word; without, what needs one is denied at once.
        """
        self._held.require_room()
        previous: Run | None = None
        if request.previous_response_id is not None:
            previous = self._held.to_continue(request.previous_response_id, principal.id)
        conversation = (
            Conversation(new_id("session"), self._harness.open, self._make_room)
            if previous is None
            else previous.conversation
        )
        opening, message = resolve(request, self._offered, session_id=conversation.session_id, principal=principal)
        run = Run(
            request,
            owner=principal.id,
            conversation=conversation,
            previous=previous.id if previous else None,
            can_ask=can_ask,
        )
        conversation.begin()
        self._held.add(run)
        run.start(opening, message)
        return run

    async def _make_room(self) -> None:
        """Have conversations that only rest give way, the oldest first, where there are more than computers."""
        resting = self._held.resting
        held = {*resting, *(run.conversation for run in self._held.live)}
        for conversation in resting[: max(0, len(held) - self._offered.computers)]:
            await conversation.give_way()

    def find(self, response_id: str, principal: Principal) -> Run:
        """A response of the caller's. Raises `NotFoundError`."""
        return self._held.find(response_id, principal.id)

    def forget(self, run: Run) -> None:
        """Hold a finished response no more."""
        self._held.drop(run)

    async def until_done(self, run: Run, request: Request) -> bool:
        """Wait for a response's end; True, with the response stopped, where the client has gone before."""
        gone = asyncio.ensure_future(_gone(request))
        done = asyncio.ensure_future(run.done.wait())
        try:
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            if run.done.is_set():
                return False
            await run.cancel()
            return True
        finally:
            gone.cancel()
            done.cancel()

    async def leave(self) -> None:
        """Stop what is under way: the server is about to end."""
        await asyncio.gather(*(run.close() for run in self._held.live))

    async def close(self) -> None:
        """Stop and forget everything, computers included."""
        await self._held.close()
        await self._harness.close()
        await default_pool().aclose()

    async def _forget(self, conversation: Conversation) -> None:
        await conversation.close()
        await self._harness.forget(conversation.session_id, transcript=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
