"""One turn: the model is asked, what it says is told, its calls are done, until it has nothing more to do.

request → stream → calls → permission → action → the screen stands still → screenshot → result, and again
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from msgspec.structs import replace

from computeragent.dialects.events import ModelEvent, PartEnded, Started, TextDelta
from computeragent.dialects.model import Message, ModelRequest, ModelResponse, Part, Text
from computeragent.dialects.streams import ResponseAssembler
from computeragent.engines.computer_use.acting import Hands, SafetyStopError
from computeragent.engines.computer_use.budget import counts
from computeragent.engines.computer_use.history import Step
from computeragent.engines.computer_use.messages import (
    Json,
    assistant,
    spoken,
    stream_started,
    system,
    text_delta,
    text_ended,
)
from computeragent.engines.computer_use.setup import Setup
from computeragent.engines.computer_use.watch import StoppedError, Watch
from computeragent.errors import ComputerAgentError, ComputerError, ModelCallError
from computeragent.protocol_types import EngineEvent

Subtype = Literal[
    "success",
    "error_max_turns",
    "error_deadline",
    "error_max_budget_usd",
    "error_safety_check",
    "error_during_execution",
]
_PAUSE = 0.5
_CACHED: Json = {"cache_control": {"type": "ephemeral"}}


@dataclass(slots=True)
class Outcome:
    """How a turn ended: `text` is the answer, or what went wrong."""

    subtype: Subtype = "success"
    text: str = ""
    error: ComputerAgentError | None = None


class Turn:
    """One turn of a run. Afterwards `outcome` says how it went."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._began = time.monotonic()
        self._steps = 0
        self._said = ""
        self._tokens_before = setup.budget.tokens
        self.outcome = Outcome()

    async def play(self, message: tuple[Part, ...]) -> AsyncGenerator[EngineEvent]:
        """The turn's events, without the one that ends it (`result`)."""
        options = self._setup.options
        await self._setup.history.hear(message)
        async with Watch(self._setup.ctx, options.deadline) as watch:
            hands = Hands(self._setup, watch)
            try:
                async with aclosing(self._work(watch, hands)) as events:
                    async for event in events:
                        yield event
            except StoppedError as stop:
                self.outcome = self._stopped(stop)
            except SafetyStopError as stop:
                text = f"The turn was stopped: nobody acknowledged a safety check of the provider. {stop}"
                self.outcome = Outcome("error_safety_check", text)
            except ComputerAgentError as error:
                self.outcome = Outcome("error_during_execution", error.message, error)
                if isinstance(error, ComputerError):
                    await self._setup.desk.leave()
            finally:
                await hands.let_go()
        if self._setup.trajectory is not None:
            await self._setup.trajectory.written()

    def result(self) -> EngineEvent:
        """The message that ends the turn."""
        setup, outcome = self._setup, self.outcome
        failed = outcome.subtype != "success"
        tokens = setup.budget.tokens
        payload: Json = {
            "type": "result",
            "subtype": outcome.subtype,
            "is_error": failed,
            "result": outcome.text,
            "num_turns": self._steps,
            "duration_ms": round((time.monotonic() - self._began) * 1000),
            "session_id": setup.ctx.session_id,
            "usage": {key: value - counts(self._tokens_before)[key] for key, value in counts(tokens).items()},
            "price": setup.budget.source,
        }
        if setup.budget.total is not None:
            payload["total_cost_usd"] = round(setup.budget.total, 10)
        if failed:
            payload["errors"] = [outcome.text]
        if outcome.error is not None:
            payload["error"] = outcome.error.to_wire()["error"]
        if setup.trajectory is not None:
            payload["trajectory"] = str(setup.trajectory.path)
        ends = outcome.subtype != "error_max_budget_usd"  # then the run's end ends the turn
        return EngineEvent("sdk_message", payload, ends_turn=ends)

    async def _work(self, watch: Watch, hands: Hands) -> AsyncGenerator[EngineEvent]:
        setup = self._setup
        for _ in range(setup.options.max_steps):
            watch.check()
            answer: ModelResponse | None = None
            async for piece in self._ask(watch):
                if isinstance(piece, ModelResponse):
                    answer = piece
                else:
                    yield piece
            assert answer is not None
            self._steps += 1
            content = answer.content if setup.privacy is None else setup.privacy.bring_back(answer.content)
            message_id = answer.id or f"msg_{uuid.uuid4().hex}"
            yield self._bill(answer)
            if blocks := spoken(content):
                yield assistant(blocks, message_id=message_id, model=setup.model.name, usage=counts(answer.usage))
            self._said = "\n".join(part.text for part in content if isinstance(part, Text)) or self._said
            step = Step(content)
            if setup.budget.spent:
                hands.give_up(step, "the budget is spent")
                await setup.history.keep(step)
                total = setup.budget.total or 0.0
                self.outcome = Outcome("error_max_budget_usd", f"the run has cost ${total:.4f}, over its budget")
                return
            hands.of(message_id)
            async with aclosing(self._act(step, hands)) as events:
                async for event in events:
                    yield event
            if not step.calls and answer.stop_reason != "pause_turn":
                self.outcome = Outcome("success", self._said)
                return
        text = f"the model was asked {setup.options.max_steps} times and has not finished"
        self.outcome = Outcome("error_max_turns", text)

    async def _act(self, step: Step, hands: Hands) -> AsyncGenerator[EngineEvent]:
        """Do the calls of an answer. However that ends, the conversation gets a step in which none is open."""
        why = "the turn ended"
        try:
            for call in step.calls:
                async with aclosing(hands.call(call, step)) as events:
                    async for event in events:
                        yield event
        except (StoppedError, SafetyStopError, ComputerAgentError) as error:
            why = f"the turn ended ({error})"
            raise
        finally:
            hands.give_up(step, why)
            await self._setup.history.keep(step)

    # ── The model ──

    async def _ask(self, watch: Watch) -> AsyncGenerator[EngineEvent | ModelResponse]:
        """Text as it is written, then the answer. What broke off midway is asked for again: nothing was done yet."""
        setup = self._setup
        request = self._request()
        if setup.trajectory is not None:
            setup.trajectory.asked(request)
        for attempt in range(setup.options.max_retries + 1):
            assembler = ResponseAssembler()
            writing = _Writing(setup.options.include_partial_messages and setup.privacy is None)
            try:
                async with aclosing(watch.each(setup.model.stream(request))) as events:
                    async for event in events:
                        assembler.add(event)
                        for told in writing.tell(event, setup.model.name):
                            yield told
                if assembler.error is not None or not assembler.ended:
                    raise _broken_off(setup.model.name, assembler)
            except ModelCallError as error:
                for told in writing.close():
                    yield told
                if attempt == setup.options.max_retries or not _may_come_right(error, assembler):
                    raise
                setup.log.info("asked_again", attempt=attempt + 1, error=error.message)
                yield system("api_retry", attempt=attempt + 1, error_status=None, error=error.message)
                await watch.sleep(_PAUSE * 2**attempt)
            else:
                answer = assembler.response
                if setup.trajectory is not None:
                    setup.trajectory.answered(answer)
                yield answer
                return

    def _request(self) -> ModelRequest:
        setup, options = self._setup, self._setup.options
        messages = setup.history.told()
        if setup.privacy is not None:
            messages = setup.privacy.hide(messages)
        is_anthropic = setup.model.dialect == "anthropic"
        if options.use_prompt_caching and is_anthropic:
            messages = _with_cache(messages)
        system_prompt = options.system_prompt
        return ModelRequest(
            model=setup.model.name,
            messages=messages,
            system=(Text(system_prompt),) if system_prompt else (),
            tools=(*setup.style.tools(setup.desk.screen.shown, setup.desk.environment), *setup.functions.tools),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            stream=True,
            dialect=setup.model.dialect,
            extra=dict(setup.style.settings),
        )

    def _bill(self, answer: ModelResponse) -> EngineEvent:
        """Charge an answer; the tokens since the last bill, and the cost so far where it is known."""
        budget = self._setup.budget
        budget.charge(self._setup.model.name, answer.usage)
        usage = answer.usage
        return EngineEvent(
            "usage_snapshot",
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_creation_input_tokens=usage.cache_write_tokens,
            cache_read_input_tokens=usage.cache_read_tokens,
            cost_usd=budget.total,
            cost_semantic="cumulative",
        )

    def _stopped(self, stop: StoppedError) -> Outcome:
        if stop.why == "deadline":
            text = f"the turn took longer than its {self._setup.options.deadline:g} seconds"
            return Outcome("error_deadline", text)
        return Outcome("error_during_execution", f"the turn was {stop.why}")


class _Writing:
    """Text as it is written, where that is told."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._id = ""
        self._open: int | None = None

    def tell(self, event: ModelEvent, model: str) -> list[EngineEvent]:
        """What an event of the model's says to a reader."""
        if not self._wanted:
            return []
        if isinstance(event, Started):
            self._id = event.id
            return [stream_started(event.id, model)]
        if isinstance(event, TextDelta) and event.text:
            closed = self.close() if self._open not in {None, event.index} else []
            self._open = event.index
            return [*closed, text_delta(self._id, event.text)]
        return self.close() if isinstance(event, PartEnded) and event.index == self._open else []

    def close(self) -> list[EngineEvent]:
        """No more of this text comes."""
        if self._open is None:
            return []
        self._open = None
        return [text_ended(self._id)]


def _with_cache(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Messages with a mark at the end, up to which the provider keeps them."""
    if not messages or not messages[-1].content:
        return messages
    last = messages[-1]
    marked: Any = last.content[-1]
    if not hasattr(marked, "extra"):
        return messages
    marked = replace(marked, extra={**marked.extra, **_CACHED})
    return (*messages[:-1], replace(last, content=(*last.content[:-1], marked)))


def _broken_off(model: str, assembler: ResponseAssembler) -> ModelCallError:
    failed = assembler.error
    if failed is None:
        return ModelCallError(f"{model}: the answer broke off", details={"kind": "incomplete"})
    return ModelCallError(f"{model}: {failed.message}", details={"kind": failed.kind})


def _may_come_right(error: ModelCallError, assembler: ResponseAssembler) -> bool:
    """Whether an answer that had begun may be complete the next time; what failed before was tried again already."""
    details = error.details if isinstance(error.details, dict) else {}
    begun = bool(assembler.response.id or assembler.response.content)
    return begun and details.get("kind") in {"incomplete", "overloaded", "server", "timeout", "rate_limit"}
