"""One action: asked for, done, looked at. What comes of it is told to the reader of the run and to the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from computeragent.computer.actions import (
    LOOKS,
    Action,
    CursorPosition,
    MouseDown,
    MouseUp,
    Wait,
    Zoom,
    parse_action,
    perform,
    points_of,
    to_dict,
)
from computeragent.computer.types import Button, HasNotices, Screenshot
from computeragent.dialects.model import Media, Part, Text, ToolCall
from computeragent.engines.computer_use.formats import ComputerCall, SafetyCheck, Sight
from computeragent.engines.computer_use.formats.types import TOOL, plain_result
from computeragent.engines.computer_use.history import Step
from computeragent.engines.computer_use.messages import Json, assistant, tool_result, tool_use
from computeragent.engines.computer_use.screen import Screen
from computeragent.engines.computer_use.setup import Setup
from computeragent.engines.computer_use.watch import Watch
from computeragent.errors import ComputerActionError, ComputerAgentError, ComputerUnsupportedError
from computeragent.protocol_types import EngineEvent, PermissionRequest

CHECKS = "pending_safety_checks"
SAFETY = "safety-check"
"""What a permission request names as its policy where the provider wants a person to look."""
_BETWEEN = 0.5  # seconds that a screen may take to settle between two actions of one call
_RELEASE = 2.0


class SafetyStopError(Exception):
    """Nobody has acknowledged the provider's safety checks of a call, so it was not done."""


@dataclass(slots=True)
class _Outcome:
    """What came of an action. `shot` is the screen after it, `seen` what the model is shown of it."""

    text: str = ""
    shot: Screenshot | None = None
    seen: Media | None = None
    shown: Media | None = None
    failed: bool = False
    denied: bool = False


class Hands:
    """Does the calls of one turn."""

    def __init__(self, setup: Setup, watch: Watch) -> None:
        self._setup = setup
        self._watch = watch
        self._held: set[Button] = set()
        self._message_id = ""
        self.seen: Media | None = None
        """What the model was shown last."""

    def of(self, message_id: str) -> None:
        """The calls from here on are of this answer."""
        self._message_id = message_id

    # ── Calls ──

    async def call(self, call: ToolCall, step: Step) -> AsyncGenerator[EngineEvent]:
        """Do a call, and add what came of it to the step. Raises `SafetyStopError`, and what ends a turn."""
        if self._setup.style.claims(call):
            async for event in self._computer_call(call, step):
                yield event
        else:
            async for event in self._function_call(call, step):
                yield event

    def give_up(self, step: Step, why: str) -> None:
        """The turn ends before all calls are done: those are answered, so that the conversation can go on."""
        for call in step.open_calls:
            self._answer(step, call, [Text(f"This was not done: {why}.")], failed=True)

    async def let_go(self) -> None:
        """Let go of buttons that the model left pressed."""
        held, self._held = self._held, set()
        if held and self._setup.desk.leased:
            try:
                async with asyncio.timeout(_RELEASE):
                    computer = await self._setup.desk.computer()
                    for button in held:
                        await computer.mouse_up(button)
            except (ComputerAgentError, TimeoutError) as error:
                self._setup.log.info("button_not_released", error=str(error))

    async def _computer_call(self, call: ToolCall, step: Step) -> AsyncGenerator[EngineEvent]:
        try:
            read, screen, actions = await self._watch.run(self._read(call))
        except (ComputerActionError, ComputerUnsupportedError) as error:
            yield self._told_call(call.id, TOOL, call.input)
            text = _explained(error)
            yield tool_result(call.id, [Text(text)], failed=True)
            self._answer(step, call, [Text(text)], failed=True)
            return
        texts: list[str] = []
        outcome = _Outcome()
        acknowledged: tuple[SafetyCheck, ...] = ()
        for index, action in enumerate(actions):
            call_id = call.id if len(actions) == 1 else f"{call.id}.{index}"
            checks = read.checks if index == 0 else ()
            arguments = to_dict(action) | ({CHECKS: [check.data for check in checks]} if checks else {})
            yield self._told_call(call_id, TOOL, arguments)
            is_last = index == len(actions) - 1
            outcome = await self._asked_and_done(call_id, action, arguments, checks, screen, is_last=is_last)
            yield tool_result(call_id, _parts(outcome.text, outcome.shown), failed=outcome.failed, **_size(outcome))
            texts.append(outcome.text)
            self._note(call_id, action, outcome)
            if outcome.denied and checks:
                step.withdrawn.add(call.id)
                step.notes.append(f"[The action {to_dict(action)} was not done. {outcome.text}]")
                raise SafetyStopError(outcome.text)
            acknowledged = acknowledged or checks
            if outcome.failed:
                if not is_last:
                    texts.append(f"The {len(actions) - index - 1} actions after it were not done.")
                if index > 0 and outcome.seen is None:
                    await self._watch.run(self._look(outcome))
                break
        text = "\n".join(line for line in texts if line)
        self._answer(step, call, _parts(text, outcome.seen), failed=outcome.failed, acknowledged=acknowledged)

    async def _read(self, call: ToolCall) -> tuple[ComputerCall, Screen, list[Action]]:
        """What a call asks for, in the pixels of the computer, which is leased by now."""
        if call.malformed is not None:
            raise ComputerActionError("the arguments are no JSON object")
        setup = self._setup
        told = setup.desk.screen
        read = await setup.style.read(call, Sight(self.seen, told.shown, setup.budget.charge))
        await setup.desk.computer()
        screen = setup.desk.screen
        if screen.shown != told.shown and any(points_of(action) for action in read.actions):
            # It was not known before there was a computer; what the model meant is anybody's guess.
            raise ComputerActionError(
                f"the screen is {screen.shown.width}x{screen.shown.height} pixels", hint="Take a screenshot first."
            )
        return read, screen, [screen.to_real(action, notches=setup.style.notches) for action in read.actions]

    async def _asked_and_done(
        self,
        call_id: str,
        action: Action,
        arguments: Json,
        checks: tuple[SafetyCheck, ...],
        screen: Screen,
        *,
        is_last: bool,
    ) -> _Outcome:
        """The outcome of an action that somebody has allowed; of any other, why it was not done."""
        request = PermissionRequest(call_id, TOOL, arguments)
        if checks:
            said = "; ".join(check.message or check.code for check in checks)
            request = replace(request, policy=SAFETY, reason=said or "the provider wants a person to look at this")
        decision = await self._watch.run(self._setup.ctx.on_permission_request(request))
        self._watch.check()
        if decision.decision == "deny":
            return _Outcome(text=_denied(decision.reason), failed=True, denied=True)
        changed = ""
        try:
            if decision.input is not None:
                given = {name: value for name, value in decision.input.items() if name != CHECKS}
                action = parse_action(given)
                changed = f"It was changed before it was done, to {given}. "
            outcome = await self._watch.run(self._do(action, screen, is_last=is_last))
        except (ComputerActionError, ComputerUnsupportedError) as error:
            outcome = _Outcome(text=_explained(error), failed=True)
            if self._setup.style.needs_picture:
                await self._watch.run(self._look(outcome))
            return outcome
        outcome.text = changed + outcome.text
        return outcome

    async def _do(self, action: Action, screen: Screen, *, is_last: bool) -> _Outcome:
        computer = await self._setup.desk.computer()
        if isinstance(action, MouseDown):
            self._held.add(action.button)
        point = await perform(computer, action)
        if isinstance(action, MouseUp):
            self._held.discard(action.button)
        if isinstance(action, CursorPosition) and point is not None:
            at = screen.to_shown(point)
            outcome = _Outcome(text=f"X={at.x},Y={at.y}")
            if self._setup.style.needs_picture and is_last:
                await self._look(outcome)
            return outcome
        if not isinstance(action, LOOKS):
            await self._settle(is_last=is_last)
        outcome = _Outcome()
        if is_last:
            await self._look(outcome, action if isinstance(action, Zoom) else None)
        elif isinstance(action, Wait):
            outcome.text = f"Waited {action.seconds:g} s."
        return outcome

    async def _settle(self, *, is_last: bool) -> None:
        delay = self._setup.options.screenshot_delay
        if delay is not None:
            await asyncio.sleep(delay)
        else:
            computer = await self._setup.desk.computer()
            await (computer.settle() if is_last else computer.settle(_BETWEEN))

    async def _look(self, outcome: _Outcome, zoom: Zoom | None = None) -> None:
        """Add the screen as it is now to an outcome."""
        computer = await self._setup.desk.computer()
        shot = await computer.screenshot()
        screen = self._setup.desk.seen(shot)
        outcome.shot = shot
        if isinstance(computer, HasNotices) and (notes := computer.take_notices()):
            outcome.text = "\n".join([*([outcome.text] if outcome.text else []), *(f"Note: {note}" for note in notes)])
        if zoom is not None:
            outcome.seen = outcome.shown = await screen.closeup(shot, zoom.region)
            outcome.text = "A closer look."
            return
        outcome.seen = self.seen = await screen.picture(shot)
        outcome.shown = Media(kind="image", media_type=shot.media_type, data=shot.base64)
        size = f"The screen is {screen.shown.width}x{screen.shown.height} pixels."
        outcome.text = f"{outcome.text}\n{size}" if outcome.text else size

    async def _function_call(self, call: ToolCall, step: Step) -> AsyncGenerator[EngineEvent]:
        yield self._told_call(call.id, call.name, call.input)
        failed = True
        try:
            if call.malformed is not None:
                raise ComputerActionError("the arguments are no JSON object")
            function = self._setup.functions.find(call)
            request = PermissionRequest(call.id, call.name, call.input)
            decision = await self._watch.run(self._setup.ctx.on_permission_request(request))
            self._watch.check()
            if decision.decision == "deny":
                text = _denied(decision.reason)
            else:
                given = call.input if decision.input is None else decision.input
                text, failed = await self._watch.run(function.call(given)), False
        except ComputerActionError as error:
            text = _explained(error)
        yield tool_result(call.id, [Text(text)], failed=failed)
        self._answer(step, call, [Text(text)], failed=failed)

    # ── Telling ──

    def _told_call(self, call_id: str, name: str, arguments: dict[str, Any]) -> EngineEvent:
        self._setup.log.info("call", id=call_id, tool=name, action=arguments.get("action"))
        block = tool_use(call_id, name, arguments)
        return assistant([block], message_id=self._message_id, model=self._setup.model.name)

    def _answer(
        self,
        step: Step,
        call: ToolCall,
        parts: list[Part],
        *,
        failed: bool,
        acknowledged: tuple[SafetyCheck, ...] = (),
    ) -> None:
        """Add the answer to a call. Where only a picture is one, texts follow as notes, or the call is taken back."""
        style = self._setup.style
        if not style.claims(call):
            step.results.append(plain_result(call, parts, failed=failed))
            return
        texts = [part.text for part in parts if isinstance(part, Text)]
        if not style.needs_picture:
            step.results.append(style.result(call, parts, failed=failed, acknowledged=acknowledged))
        elif any(isinstance(part, Media) for part in parts):
            step.results.append(style.result(call, parts, failed=failed, acknowledged=acknowledged))
            if failed:
                step.notes += texts
        else:
            step.withdrawn.add(call.id)
            step.notes.append(f"[{call.input.get('action') or call.input}: {' '.join(texts)}]")

    def _note(self, call_id: str, action: Action, outcome: _Outcome) -> None:
        self._setup.log.debug("acted", id=call_id, failed=outcome.failed, text=outcome.text)
        if self._setup.trajectory is not None:
            self._setup.trajectory.acted(call_id, action, outcome.shot, failed=outcome.failed, text=outcome.text)


def _denied(reason: str | None) -> str:
    return f"This was not done: {reason or 'denied'}"


def _parts(text: str, picture: Media | None) -> list[Part]:
    parts: list[Part] = [Text(text)] if text else []
    return [*parts, picture] if picture is not None else parts or [Text("Done.")]


def _size(outcome: _Outcome) -> Json:
    if outcome.shot is None:
        return {}
    return {"screen": {"width": outcome.shot.size.width, "height": outcome.shot.size.height}}


def _explained(error: ComputerAgentError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message
