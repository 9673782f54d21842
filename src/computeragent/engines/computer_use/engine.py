"""The engine `computer-use`: a run from its options to its end. What happens in a turn is in `loop.py`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from computeragent.dialects.anthropic.content import parse_content
from computeragent.dialects.model import Part, Text
from computeragent.engines.computer_use.budget import counts
from computeragent.engines.computer_use.loop import Turn
from computeragent.engines.computer_use.messages import system
from computeragent.engines.computer_use.setup import Setup, prepare
from computeragent.models.types import Model
from computeragent.protocol_types import EngineContext, EngineEvent
from computeragent.wire.events import Capabilities
from computeragent.wire.requests import UserInput

_NOTHING = "(no text)"  # no provider takes an empty message


class ComputerUseEngine:
    """A model that uses a computer; implements `EngineDriver`. Its options are those of `options.Options`.

    `model` answers in place of the one that the options name. `confined` holds the options to what another machine's
    caller may ask for: files of the workspace alone, no display of this machine; by default it is so unless they are
    the caller's own, in this process.
    """

    name = "computer-use"
    capabilities = Capabilities(
        streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True
    )

    def __init__(self, *, model: Model | None = None, confined: bool | None = None) -> None:
        self._model = model
        self._confined = confined

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        """See `EngineDriver.start_session`."""
        setup = prepare(ctx, model=self._model, confined=self._confined)
        status = "failed"
        try:
            async with aclosing(_run(ctx, setup)) as events:
                async for event in events:
                    yield event
            status = "cancelled" if ctx.cancel_event.is_set() else "completed"
        finally:
            await setup.close()
            if setup.trajectory is not None:
                usage = {**counts(setup.budget.tokens), "response_cost": setup.budget.total}
                await setup.trajectory.finish(usage=usage, status=status)


async def _run(ctx: EngineContext, setup: Setup) -> AsyncGenerator[EngineEvent]:
    await setup.history.recall(setup.options.history)
    yield system(
        "init",
        model=setup.options.model,
        session_id=ctx.session_id,
        tools=["computer", *(tool.name for tool in setup.functions.tools)],
        tool_format=setup.style.name,
        price=setup.budget.source,
    )
    async for message in ctx.user_message_queue:
        await setup.desk.resume()
        turn = Turn(setup)
        async with aclosing(turn.play(_parts(message))) as events:
            async for event in events:
                yield event
        await setup.desk.rest()
        yield turn.result()
        if turn.outcome.subtype == "error_max_budget_usd":
            yield EngineEvent("session_ended", reason="budget_exceeded", error_message=turn.outcome.text)
            return
        if ctx.cancel_event.is_set():
            return


def _parts(message: UserInput) -> tuple[Part, ...]:
    """What the user said, in the neutral model. Raises `ValidationError` for blocks that are none."""
    parts = parse_content(message.content, "content")
    return tuple(part for part in parts if not isinstance(part, Text) or part.text.strip()) or (Text(_NOTHING),)
