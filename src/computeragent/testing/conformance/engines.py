"""The invariants of an engine: what it promises whoever runs it, whatever it thinks with.

The name of each function is the statement that it checks.
"""
# ruff: noqa: D103

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from computeragent.errors import SessionEndedError
from computeragent.ids import new_id
from computeragent.protocol_types import PermissionRequest
from computeragent.testing.conformance.plan import EngineCase, Plan, Say, Spend, Wait, Write
from computeragent.testing.conformance.probe import ConformanceError, Probe, check, ends, kinds, said
from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    Recorded,
    SdkMessage,
)
from computeragent.wire.requests import PermissionDecision, UserInput

Invariant = Callable[[Probe], Awaitable[None]]

HELLO = Plan(((Say("Hello."),),))
TWO = Plan(((Say("The first."),), (Say("The second."),)))
WRITE = Plan(((Write("out.txt", "written"), Say("Done.")),))
SLOW = Plan(((Wait(20.0), Say("At last.")), (Say("Quick."),)))


def engine_invariants() -> list[Invariant]:
    """Every invariant, for ``pytest.mark.parametrize``; each takes a `Probe` and raises `ConformanceError`."""
    return list(_INVARIANTS)


async def run_engine_conformance(case: EngineCase, *, limit: float = 45.0) -> list[str]:
    """Hold an engine to every invariant, each in a fresh workspace; returns the names of those that hold.

    Raises `ConformanceError` naming all that do not, each with what was seen. `limit` is in seconds per session.
    """
    held: list[str] = []
    broken: list[str] = []
    for invariant in _INVARIANTS:
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            try:
                await invariant(Probe(case, Path(folder), limit=limit))
                held.append(_name(invariant))
            except Exception as error:  # noqa: BLE001 - every failure is collected and named
                broken.append(f"{_name(invariant)}: {error or type(error).__name__}")
    if broken:
        raise ConformanceError(f"{len(broken)} of {len(_INVARIANTS)} invariants are broken:\n" + "\n".join(broken))
    return held


# ── The stream ───────────────────────────────────────────────────────────────────────────────────────────────


async def a_run_starts_with_one_session_started(probe: Probe) -> None:
    found = kinds(await probe.play(HELLO))
    check(found[0] == "ca_session_started" and found.count("ca_session_started") == 1, f"began with {found[:3]}")


async def a_run_ends_with_one_session_ended(probe: Probe) -> None:
    found = kinds(await probe.play(HELLO))
    check(found[-1] == "ca_session_ended" and found.count("ca_session_ended") == 1, f"ended with {found[-3:]}")


async def ids_are_gap_free(probe: Probe) -> None:
    events = await probe.play(TWO)
    check([recorded.id for recorded in events] == list(range(len(events))), "ids have gaps")


async def every_event_names_its_session(probe: Probe) -> None:
    events = await probe.play(HELLO, session_id="conformance")
    check({recorded.event.session_id for recorded in events} == {"conformance"}, "an event names another session")


async def the_engine_and_its_capabilities_are_announced(probe: Probe) -> None:
    started = (await probe.play(HELLO))[0].event
    check(isinstance(started, CaSessionStarted) and started.engine != "", "no engine name")


async def payloads_are_objects_with_a_type(probe: Probe) -> None:
    for recorded in await probe.play(WRITE):
        if isinstance(recorded.event, SdkMessage):
            payload: Any = recorded.event.payload
            kind: object = cast("dict[str, Any]", payload).get("type") if isinstance(payload, dict) else None
            check(isinstance(kind, str), f"a payload is {payload!r}")


async def what_the_agent_says_is_in_the_stream(probe: Probe) -> None:
    check("Hello." in said(await probe.play(HELLO)), "the text is missing")


async def unicode_survives(probe: Probe) -> None:
    text = "naïve 東京 🦑 é"
    check(text in said(await probe.play(Plan(((Say(text),),)))), "the text came out changed")


async def a_turns_result_carries_its_final_text(probe: Probe) -> None:
    last = [r.event for r in await probe.play(HELLO) if isinstance(r.event, SdkMessage) and r.event.ends_turn][-1]
    check("Hello." in str(last.payload), f"the terminating message is {last.payload!r}")


# ── Turns ────────────────────────────────────────────────────────────────────────────────────────────────────


async def each_message_starts_a_turn(probe: Probe) -> None:
    started = [r.event.turn_index for r in await probe.play(TWO) if isinstance(r.event, CaTurnStarted)]
    check(started == [0, 1], f"turns {started}")


async def each_turn_ends_once(probe: Probe) -> None:
    ended = [r.event.turn_index for r in await probe.play(TWO) if isinstance(r.event, SdkMessage) and r.event.ends_turn]
    check(ended == [0, 1], f"ended {ended}")


async def events_of_a_turn_carry_its_index(probe: Probe) -> None:
    current: int | None = None
    for recorded in await probe.play(TWO):
        event = recorded.event
        if isinstance(event, CaTurnStarted):
            current = event.turn_index
        elif isinstance(event, SdkMessage):
            check(event.turn_index == current, f"{event.turn_index} within turn {current}")
            current = None if event.ends_turn else current


async def the_second_turn_waits_for_the_first(probe: Probe) -> None:
    events = await probe.play(TWO)
    first_end = next(r.id for r in events if ends(r.event, 0))
    second_start = next(r.id for r in events if isinstance(r.event, CaTurnStarted) and r.event.turn_index == 1)
    check(first_end < second_start, "turn 1 began before turn 0 ended")


async def turns_share_a_memory(probe: Probe) -> None:
    async with probe.session(TWO) as session:
        await probe.turn(session, Plan.message(0))
        events = await probe.turn(session, Plan.message(1))
        check("The second." in str([e.payload for e in events if isinstance(e, SdkMessage)]), "turn 1 was not played")


async def an_empty_message_is_no_crash(probe: Probe) -> None:
    async with probe.session(HELLO) as session:
        await probe.turn(session, "")
        check(session.ended is None or session.ended.reason != "error", f"the run ended: {session.ended}")


async def a_large_message_is_no_crash(probe: Probe) -> None:
    async with probe.session(HELLO) as session:
        await probe.turn(session, Plan.message(0) + "\n" + "lorem ipsum " * 20_000)
        check(session.ended is None, f"the run ended: {session.ended}")


async def content_blocks_are_understood(probe: Probe) -> None:
    message = UserInput(content=[{"type": "text", "text": Plan.message(0)}])
    async with probe.session(HELLO) as session:
        events = await probe.turn(session, message)
        check("Hello." in str([e.payload for e in events if isinstance(e, SdkMessage)]), "the text was not understood")


# ── Usage ────────────────────────────────────────────────────────────────────────────────────────────────────


async def usage_comes_before_the_turn_ends(probe: Probe) -> None:
    for recorded in await probe.play(Plan(((Spend(0.001), Say("Paid.")), (Say("Paid."),)))):
        if isinstance(recorded.event, CaUsageSnapshot):
            check(recorded.event.turn_index is not None, "a snapshot came after its turn")


async def token_counts_are_not_negative(probe: Probe) -> None:
    for recorded in await probe.play(HELLO):
        event = recorded.event
        if isinstance(event, CaUsageSnapshot):
            counts = [event.input_tokens, event.output_tokens, event.cache_read_input_tokens]
            check(all(count is None or count >= 0 for count in counts), f"{counts}")


async def costs_say_how_they_add_up(probe: Probe) -> None:
    for recorded in await probe.play(Plan(((Spend(0.001), Say("Paid.")),))):
        event = recorded.event
        if isinstance(event, CaUsageSnapshot) and event.cost_usd is not None:
            check(event.cost_semantic in {"cumulative", "delta", None}, f"semantic {event.cost_semantic}")
            check(event.cost_usd >= 0, f"cost {event.cost_usd}")


async def a_budget_that_is_spent_ends_the_run(probe: Probe) -> None:
    plan = Plan(((Spend(0.02), Write("a.txt", "1"), Spend(0.03), Say("Rich.")),))
    end = (await probe.play(plan, budget_max_usd=0.000_001))[-1].event
    check(isinstance(end, CaSessionEnded) and end.reason == "budget_exceeded", f"the run ended with {end}")


# ── Permissions ──────────────────────────────────────────────────────────────────────────────────────────────


async def a_tool_call_is_asked_before_it_runs(probe: Probe) -> None:
    existed: list[bool] = []

    def answer(_: PermissionRequest) -> PermissionDecision:
        existed.append((probe.workspace / "out.txt").exists())
        return PermissionDecision(decision="allow")

    await probe.play(WRITE, answer=answer)
    check(existed == [False], f"asked {len(existed)} times, file there already: {existed}")


async def a_request_names_call_tool_and_input(probe: Probe) -> None:
    seen: list[PermissionRequest] = []
    await probe.play(WRITE, answer=lambda request: seen.append(request) or PermissionDecision(decision="deny"))
    check(seen and seen[0].call_id and seen[0].tool_name, "no request")
    check("written" in str(seen[0].input), f"the input is {seen[0].input!r}")


async def an_allowed_call_runs(probe: Probe) -> None:
    await probe.play(WRITE)
    path = probe.workspace / "out.txt"
    check(path.is_file() and path.read_text("utf-8") == "written", "the file was not written")


async def a_denied_call_leaves_no_trace(probe: Probe) -> None:
    await probe.play(WRITE, answer=lambda _: PermissionDecision(decision="deny", reason="not today"))
    check(not (probe.workspace / "out.txt").exists(), "the file was written all the same")


async def a_denial_tells_the_agent_why(probe: Probe) -> None:
    events = await probe.play(WRITE, answer=lambda _: PermissionDecision(decision="deny", reason="not today"))
    check("not today" in said(events), "the reason did not reach the conversation")


async def a_denial_does_not_end_the_turn(probe: Probe) -> None:
    events = await probe.play(WRITE, answer=lambda _: PermissionDecision(decision="deny"))
    check("Done." in said(events), "the agent did not go on")


async def a_modified_input_is_what_runs(probe: Probe) -> None:
    def answer(request: PermissionRequest) -> PermissionDecision:
        changed = {k: "changed" if v == "written" else v for k, v in request.input.items()}
        return PermissionDecision(decision="modify", input=changed)

    await probe.play(WRITE, answer=answer)
    check((probe.workspace / "out.txt").read_text("utf-8") == "changed", "the old input ran")


async def every_request_gets_a_recorded_decision(probe: Probe) -> None:
    events = await probe.play(Plan(((Write("a.txt", "1"), Write("b.txt", "2"), Say("Done.")),)))
    asked = [r.event.call_id for r in events if isinstance(r.event, CaPermissionRequest)]
    decided = [r.event.call_id for r in events if isinstance(r.event, CaPermissionDecision)]
    check(asked == decided and len(set(asked)) == 2, f"asked {asked}, decided {decided}")


async def an_unanswered_call_is_denied_at_the_time_limit(probe: Probe) -> None:
    events = await probe.play(WRITE, answer=lambda _: None, approval_timeout=0.2)
    decisions = [r.event for r in events if isinstance(r.event, CaPermissionDecision)]
    check([d.decision for d in decisions] == ["deny"], f"decisions {decisions}")
    check(not (probe.workspace / "out.txt").exists(), "the file was written all the same")


async def a_policy_that_fails_denies(probe: Probe) -> None:
    async def broken(_: PermissionRequest) -> Any:
        raise RuntimeError("the policy broke")

    await probe.play(WRITE, policy=broken)
    check(not (probe.workspace / "out.txt").exists(), "the file was written all the same")


# ── Interrupt, cancel, end ───────────────────────────────────────────────────────────────────────────────────


async def an_interrupt_ends_the_turn_and_only_the_turn(probe: Probe) -> None:
    async with probe.session(SLOW) as session:
        await session.send(UserInput(content=Plan.message(0)))
        await probe.until(session, "ca_turn_started")
        await session.interrupt()
        check(session.ended is None, f"the run ended: {session.ended}")
        events = await probe.turn(session, Plan.message(1))
        check("Quick." in str([e.payload for e in events if isinstance(e, SdkMessage)]), "the next turn did not run")


async def an_interrupt_denies_what_waits(probe: Probe) -> None:
    async with probe.session(WRITE) as session:
        await session.send(UserInput(content=Plan.message(0)))
        await probe.until(session, "ca_permission_request")
        await session.interrupt()
        decision = await probe.until(session, "ca_permission_decision")
        check(isinstance(decision, CaPermissionDecision) and decision.decision == "deny", f"{decision}")
        check(not (probe.workspace / "out.txt").exists(), "the file was written all the same")


async def a_cancelled_run_says_so(probe: Probe) -> None:
    async with probe.session(SLOW) as session:
        stream = session.events()
        await session.send(UserInput(content=Plan.message(0)))
        await probe.until(session, "ca_turn_started")
        await session.cancel()
        end = [recorded async for recorded in stream][-1].event
        check(isinstance(end, CaSessionEnded) and end.reason == "cancelled", f"the run ended with {end}")


async def cancelling_denies_what_waits(probe: Probe) -> None:
    async with probe.session(WRITE) as session:
        await session.send(UserInput(content=Plan.message(0)))
        await probe.until(session, "ca_permission_request")
        await session.cancel()
        check(not (probe.workspace / "out.txt").exists(), "the file was written all the same")


async def cancelling_twice_is_the_same(probe: Probe) -> None:
    async with probe.session(SLOW) as session:
        await session.send(UserInput(content=Plan.message(0)))
        await asyncio.gather(session.cancel(), session.cancel())
        await session.cancel()
        check(session.ended is not None and session.ended.reason == "cancelled", f"{session.ended}")


async def the_end_of_input_completes_the_run(probe: Probe) -> None:
    end = (await probe.play(HELLO))[-1].event
    check(isinstance(end, CaSessionEnded) and end.reason == "complete", f"the run ended with {end}")


async def a_run_without_a_message_completes(probe: Probe) -> None:
    end = (await probe.play(Plan(())))[-1].event
    check(isinstance(end, CaSessionEnded) and end.reason == "complete", f"the run ended with {end}")


async def an_ended_run_takes_no_message(probe: Probe) -> None:
    async with probe.session(HELLO) as session:
        await session.cancel()
        try:
            await session.send(UserInput(content="too late"))
        except SessionEndedError:
            return
        raise ConformanceError("the message was taken and lost")


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────────


async def two_sessions_do_not_mix(probe: Probe) -> None:
    async def one(session_id: str) -> list[Recorded]:
        return await probe.play(Plan(((Say(f"I am {session_id}."),),)), session_id=session_id)

    red, blue = await asyncio.gather(one("red"), one("blue"))
    check("I am blue." not in said(red) and "I am red." not in said(blue), "one session heard the other")


async def a_session_resumes_from_its_store(probe: Probe) -> None:
    plan = Plan(((Say("Noted."),), (Say("Back again."),)))
    memory = {"session_id": new_id("session"), "session_store": "memory"}
    async with probe.session(plan, **memory) as session:
        capable = session.capabilities.sessions
        await probe.turn(session, Plan.message(0))
    async with probe.session(plan, **memory) as session:
        started = await probe.until(session, "ca_session_started")
        check(isinstance(started, CaSessionStarted) and started.resumed == capable, f"resumed: {started}")
        events = await probe.turn(session, Plan.message(1))
        check("Back again." in str([e.payload for e in events if isinstance(e, SdkMessage)]), "it did not go on")


_INVARIANTS: tuple[Invariant, ...] = (
    a_run_starts_with_one_session_started,
    a_run_ends_with_one_session_ended,
    ids_are_gap_free,
    every_event_names_its_session,
    the_engine_and_its_capabilities_are_announced,
    payloads_are_objects_with_a_type,
    what_the_agent_says_is_in_the_stream,
    unicode_survives,
    a_turns_result_carries_its_final_text,
    each_message_starts_a_turn,
    each_turn_ends_once,
    events_of_a_turn_carry_its_index,
    the_second_turn_waits_for_the_first,
    turns_share_a_memory,
    an_empty_message_is_no_crash,
    a_large_message_is_no_crash,
    content_blocks_are_understood,
    usage_comes_before_the_turn_ends,
    token_counts_are_not_negative,
    costs_say_how_they_add_up,
    a_budget_that_is_spent_ends_the_run,
    a_tool_call_is_asked_before_it_runs,
    a_request_names_call_tool_and_input,
    an_allowed_call_runs,
    a_denied_call_leaves_no_trace,
    a_denial_tells_the_agent_why,
    a_denial_does_not_end_the_turn,
    a_modified_input_is_what_runs,
    every_request_gets_a_recorded_decision,
    an_unanswered_call_is_denied_at_the_time_limit,
    a_policy_that_fails_denies,
    an_interrupt_ends_the_turn_and_only_the_turn,
    an_interrupt_denies_what_waits,
    a_cancelled_run_says_so,
    cancelling_denies_what_waits,
    cancelling_twice_is_the_same,
    the_end_of_input_completes_the_run,
    a_run_without_a_message_completes,
    an_ended_run_takes_no_message,
    two_sessions_do_not_mix,
    a_session_resumes_from_its_store,
)


def _name(invariant: Invariant) -> str:
    return getattr(invariant, "__name__", repr(invariant))
