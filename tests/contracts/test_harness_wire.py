"""One suite for every placement: what a session promises does not depend on where it runs."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness_placements import PLACEMENTS, require_bwrap

from computeragent.errors import (
    ComputerAgentError,
    EventIdAheadError,
    InvalidSessionIdError,
    NotFoundError,
    PathEscapeError,
    ScriptError,
    SessionEndedError,
    SessionLiveError,
    UnknownCallError,
    UnknownEngineError,
    UnknownLoaderError,
    UnknownStoreError,
    ValidationError,
    WorkspaceError,
)
from computeragent.protocol_types import Harness, InlineSource, Session, SessionRequest
from computeragent.wire.events import (
    PROTOCOL_VERSION,
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    Recorded,
    SdkMessage,
)
from computeragent.wire.policy import RulesPolicyConfig
from computeragent.wire.requests import Attachment, PermissionDecision, UserInput

pytestmark = pytest.mark.anyio
Turn = list[dict[str, Any]]
BASH = {"tool": "Bash", "input": {"command": "ls"}, "result": "a.txt"}
ALLOW, DENY = PermissionDecision(decision="allow"), PermissionDecision(decision="deny", reason="not today")
_names = itertools.count()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


# In one run of CI those that differ; the soak has their combinations, too.
IN_SOAK = ("child process", "http, bwrap")
PLACES = [pytest.param(name, marks=pytest.mark.soak if name in IN_SOAK else ()) for name in PLACEMENTS]


@pytest.fixture(scope="module", params=PLACES)
async def harness(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harness]:
    if "bwrap" in request.param:
        require_bwrap()
    folder: Path = tmp_path_factory.mktemp("placement")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPUTERAGENT_HOME", str(folder / "home"))
        async with PLACEMENTS[request.param](folder) as made:
            yield made


def asked(*turns: Turn, **fields: Any) -> SessionRequest:
    """A request for the scripted engine on an inline agent."""
    options = fields.pop("options", {}) | {"script": list(turns)}
    manifest = {"name": "wire", "version": "1.2.3"}
    source = InlineSource(manifest=manifest, files=fields.pop("files", {}))
    chosen: dict[str, Any] = {"engine": "scripted", "identity_loader": "passthrough", "source": source}
    return SessionRequest(**(chosen | {"options": options} | fields))


@asynccontextmanager
async def opened(harness: Harness, *turns: Turn, **fields: Any) -> AsyncIterator[Session]:
    session = await harness.open(asked(*turns, **fields))
    try:
        yield session
    finally:
        await session.close()


async def say(session: Session, text: str = "go") -> int:
    return await session.send(UserInput(content=text))


async def until(session: Session, wanted: Callable[[Any], bool], after: int | None = None) -> list[Recorded]:
    """The events after an id up to one."""
    found: list[Recorded] = []
    stream = session.events(after)
    try:
        async for recorded in stream:
            found.append(recorded)
            if wanted(recorded.event):
                return found
    finally:
        stream.close()
    raise AssertionError(f"the run ended without it: {[each.event.kind for each in found]}")


async def whole(session: Session, after: int | None = None) -> list[Recorded]:
    """All events to the end of the run."""
    return [recorded async for recorded in session.events(after)]


def of(kind: type) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, kind)


def turn_over(index: int) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, SdkMessage) and event.ends_turn and event.turn_index == index


def text_of(events: list[Recorded]) -> str:
    return "".join(bytes(each.event.raw).decode() for each in events if isinstance(each.event, SdkMessage))


# ── The run ──


async def test_a_run_has_one_first_and_one_last_event_and_ids_without_a_gap(harness: Harness) -> None:
    async with opened(harness, [{"text": "One."}]) as session:
        await say(session)
        await session.end_input()
        events = await whole(session)
        first, last = events[0].event, events[-1].event
        assert isinstance(first, CaSessionStarted)
        assert isinstance(last, CaSessionEnded)
        assert sum(isinstance(each.event, (CaSessionStarted, CaSessionEnded)) for each in events) == 2
        assert [each.id for each in events] == list(range(len(events)))
        assert {each.event.session_id for each in events} == {session.id}
        assert (first.engine, first.identity.name, first.identity.version) == ("scripted", "wire", "1.2.3")
        assert first.protocol_version == PROTOCOL_VERSION
        assert first.capabilities.permission_callback
        assert not first.resumed
        assert (last.reason, session.ended) == ("complete", last)
        assert session.newest == events[-1].id


async def test_ids_given_by_nobody_are_made_and_those_that_are_given_are_kept(harness: Harness) -> None:
    async with (
        opened(harness) as one,
        opened(harness) as two,
        opened(harness, session_id=f"mine-{next(_names)}") as own,
    ):
        assert one.id.startswith("sess_")
        assert one.id != two.id
        assert own.id.startswith("mine-")


async def test_ids_that_are_none_are_refused(harness: Harness) -> None:
    for name in ("", "../x", "a/b", ".hidden", "-x", "a b", "x" * 129, "é", "a\0b"):
        with pytest.raises(InvalidSessionIdError):
            await harness.open(asked(session_id=name))


async def test_every_event_of_a_turn_names_it(harness: Harness) -> None:
    usage = {"usage": {"input_tokens": 3}}
    async with opened(harness, [{"text": "a"}, usage], [BASH], approval_timeout=0.05) as session:
        assert [await say(session), await say(session)] == [0, 1]
        await session.end_input()
        turns = {each.id: each.event.turn_index for each in await whole(session) if hasattr(each.event, "turn_index")}
        starts = [each.event for each in await whole(session) if isinstance(each.event, CaTurnStarted)]
        assert [each.turn_index for each in starts] == [0, 1]
        assert starts[0].message == UserInput(content="go")
        assert starts[0].user_text_len == 2
        events = [each.event for each in await whole(session)]
        begun = events.index(starts[0])
        assert all(getattr(event, "turn_index", None) is None for event in events[:begun])
        inside = [turns.get(number) for number in range(begun, len(events) - 1)]
        assert inside == sorted(index for index in inside if index is not None)
        assert set(inside) == {0, 1}


async def test_usage_comes_before_the_end_of_its_turn(harness: Harness) -> None:
    spent = {"input_tokens": 5, "output_tokens": 2, "cost_usd": 0.25, "cost_semantic": "cumulative"}
    async with opened(harness, [{"text": "a"}, {"usage": spent}]) as session:
        await say(session)
        events = [each.event for each in await until(session, turn_over(0))]
        (usage,) = [event for event in events if isinstance(event, CaUsageSnapshot)]
        assert events.index(usage) < len(events) - 1
        assert (usage.input_tokens, usage.output_tokens, usage.cost_usd) == (5, 2, 0.25)
        assert session.cost_so_far == 0.25


async def test_messages_wait_for_their_turn(harness: Harness) -> None:
    async with opened(harness, *[[{"text": "{message}!"}]] * 3) as session:
        turns = await asyncio.gather(*(say(session, word) for word in ("x", "y", "z")))
        assert sorted(turns) == [0, 1, 2]
        await session.end_input()
        said = text_of(await whole(session))
        assert all(f"{word}!" in said for word in "xyz")


async def test_content_blocks_arrive_as_they_are(harness: Harness) -> None:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": "grün 🌲 \u2028"}, {"type": "image", "source": {"x": [1]}}]
    async with opened(harness) as session:
        await session.send(UserInput(content=blocks))
        events = await until(session, turn_over(0))
        (start,) = [each.event for each in events if isinstance(each.event, CaTurnStarted)]
        assert start.message == UserInput(content=blocks)
        assert "You said: grün 🌲 \u2028" in text_of(events).replace("\\u2028", "\u2028")


@pytest.mark.parametrize(
    ("steps", "reason", "told"),
    [
        ([{"raise": "the engine broke"}], "error", "the engine broke"),
        ([{"end": "budget_exceeded"}], "budget_exceeded", ""),
        ([{"end": "cancelled"}], "cancelled", ""),
    ],
)
async def test_a_run_ends_as_its_engine_does(harness: Harness, steps: Turn, reason: str, told: str) -> None:
    async with opened(harness, [{"text": "x"}, *steps]) as session:
        await say(session)
        last = (await whole(session))[-1].event
        assert isinstance(last, CaSessionEnded)
        assert last.reason == reason
        assert told in (last.error_message or "")


async def test_a_run_that_costs_too_much_is_ended(harness: Harness) -> None:
    async with opened(harness, [{"usage": {"cost_usd": 2.0}}, {"text": "x"}], budget_max_usd=1.0) as session:
        await say(session)
        last = (await whole(session))[-1].event
        assert isinstance(last, CaSessionEnded)
        assert last.reason == "budget_exceeded"


async def test_a_run_that_is_over_takes_no_more_messages(harness: Harness) -> None:
    async with opened(harness) as session:
        await session.end_input()
        with pytest.raises(SessionEndedError):
            await say(session)
        await whole(session)
        with pytest.raises(SessionEndedError):
            await say(session)
        await session.end_input()  # again: nothing
        await session.cancel()
        assert session.ended is not None
        assert session.ended.reason == "complete"


async def test_the_end_of_input_lets_what_waits_be_done(harness: Harness) -> None:
    async with opened(harness, [{"delay": 0.1}, {"text": "1"}], [{"text": "2"}]) as session:
        await say(session)
        await say(session)
        await session.end_input()
        ends = [each.event.turn_index for each in await whole(session) if getattr(each.event, "ends_turn", False)]
        assert ends == [0, 1]


async def test_a_live_id_is_taken(harness: Harness) -> None:
    name = f"live-{next(_names)}"
    async with opened(harness, session_id=name) as session:
        with pytest.raises(SessionLiveError):
            await harness.open(asked(session_id=name))
        await say(session, "still here")
        assert "still here" in text_of(await until(session, turn_over(0)))


async def test_a_finished_id_starts_its_next_run_and_ids_go_on(harness: Harness) -> None:
    name = f"again-{next(_names)}"
    first = await harness.open(asked([{"text": "one"}], session_id=name))
    await say(first)
    await first.end_input()
    before = await whole(first)
    async with opened(harness, [{"text": "two"}], session_id=name) as second:
        turn = await say(second)
        await second.end_input()
        after = await whole(second)
        assert [each.id for each in after] == list(range(len(before), len(before) + len(after)))
        assert isinstance(after[0].event, CaSessionStarted)  # without an id a stream begins at the current run
        assert turn == 1
        assert "one" not in text_of(after)


# ── Interrupt and cancel ──


async def test_an_interrupt_ends_the_turn_and_the_session_goes_on(harness: Harness) -> None:
    async with opened(harness, [{"text": "a"}, {"delay": 60}, {"text": "b"}], [{"text": "c"}]) as session:
        await say(session)
        await until(session, of(SdkMessage))
        await until(session, lambda event: isinstance(event, SdkMessage) and event.turn_index == 0)
        assert await session.interrupt() is False
        turn = await until(session, turn_over(0))
        assert '"b"' not in text_of(turn)
        assert session.ended is None
        await say(session)
        assert '"c"' in text_of(await until(session, turn_over(1)))


async def test_a_turn_that_waits_can_be_taken_back_and_leaves_no_trace(harness: Harness) -> None:
    async with opened(harness, [{"delay": 60}], [{"text": "{message}"}]) as session:
        running, waiting = await say(session, "first"), await say(session, "second")
        await until(session, of(CaTurnStarted))
        assert await session.interrupt(waiting) is True
        assert await session.interrupt(waiting) is False
        await session.interrupt(running)
        await say(session, "third")
        await session.end_input()
        events = await whole(session)
        turns = [each.event.turn_index for each in events if isinstance(each.event, CaTurnStarted)]
        assert turns == [0, 2]
        assert "second" not in text_of(events)


async def test_cancel_ends_the_run_and_denies_what_waits(harness: Harness) -> None:
    async with opened(harness, [BASH, {"text": "late"}]) as session:
        await say(session)
        await say(session, "never reached")
        request = (await until(session, of(CaPermissionRequest)))[-1].event
        assert isinstance(request, CaPermissionRequest)
        await session.cancel()
        events = await whole(session)
        last = events[-1].event
        assert isinstance(last, CaSessionEnded)
        assert last.reason == "cancelled"
        assert session.ended is not None
        (decision,) = [each.event for each in events if isinstance(each.event, CaPermissionDecision)]
        assert (decision.call_id, decision.decision) == (request.call_id, "deny")
        assert "late" not in text_of(events)
        assert "never reached" not in str([each.data for each in events])
        with pytest.raises(UnknownCallError):
            await session.decide(request.call_id, ALLOW)
        await session.cancel()  # again: nothing


async def test_closing_ends_what_runs(harness: Harness) -> None:
    session = await harness.open(asked([{"delay": 60}]))
    await say(session)
    await until(session, of(CaTurnStarted))
    reading = asyncio.create_task(whole(session))
    await session.close()
    assert isinstance((await reading)[-1].event, CaSessionEnded)
    assert session.ended is not None
    with pytest.raises((SessionEndedError, NotFoundError)):
        await say(session)


# ── Permissions ──


async def test_the_first_answer_wins_and_later_ones_are_refused(harness: Harness) -> None:
    async with opened(harness, [BASH, {"text": "done"}]) as session:
        await say(session)
        request = (await until(session, of(CaPermissionRequest)))[-1].event
        assert isinstance(request, CaPermissionRequest)
        assert (request.tool_name, request.input, request.turn_index) == ("Bash", {"command": "ls"}, 0)
        assert request.risk is not None
        answers = await asyncio.gather(
            *(session.decide(request.call_id, each) for each in (DENY, ALLOW, ALLOW)), return_exceptions=True
        )
        assert sum(isinstance(each, UnknownCallError) for each in answers) == 2
        events = await until(session, turn_over(0))
        assert sum(isinstance(each.event, CaPermissionDecision) for each in events) == 1
        with pytest.raises(UnknownCallError):
            await session.decide(request.call_id, ALLOW)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (ALLOW, "a.txt"),
        (DENY, "not today"),
        (PermissionDecision(decision="modify", input={"command": "pwd"}), "a.txt"),
    ],
    ids=["allow", "deny", "modify"],
)
async def test_an_answer_is_recorded_and_does_what_it_says(
    harness: Harness, answer: PermissionDecision, shown: str
) -> None:
    async with opened(harness, [BASH]) as session:
        await say(session)
        request = (await until(session, of(CaPermissionRequest)))[-1].event
        assert isinstance(request, CaPermissionRequest)
        await session.decide(request.call_id, answer)
        events = await until(session, turn_over(0))
        (decision,) = [each.event for each in events if isinstance(each.event, CaPermissionDecision)]
        assert (decision.call_id, decision.decision, decision.tool_name) == (request.call_id, answer.decision, "Bash")
        assert decision.reason == answer.reason
        assert shown in text_of(events)
        kinds = [each.event.kind for each in events]
        assert kinds.index("ca_permission_request") < kinds.index("ca_permission_decision")


async def test_a_modified_input_is_what_runs(harness: Harness) -> None:
    write = {"tool": "Write", "input": {"file_path": "a.txt", "content": "asked for"}}
    async with opened(harness, [write]) as session:
        await say(session)
        request = (await until(session, of(CaPermissionRequest)))[-1].event
        assert isinstance(request, CaPermissionRequest)
        changed = {"file_path": "b.txt", "content": "allowed"}
        await session.decide(request.call_id, PermissionDecision(decision="modify", input=changed))
        await until(session, turn_over(0))
        assert await session.files.read("b.txt") == b"allowed"
        with pytest.raises(NotFoundError):
            await session.files.read("a.txt")


async def test_what_nobody_answers_is_denied(harness: Harness) -> None:
    async with opened(harness, [BASH, {"text": "on"}], approval_timeout=0.1) as session:
        await say(session)
        events = await until(session, turn_over(0))
        (decision,) = [each.event for each in events if isinstance(each.event, CaPermissionDecision)]
        assert decision.decision == "deny"
        assert "nobody answered" in (decision.reason or "")
        assert '"on"' in text_of(events)


async def test_an_interrupt_denies_the_call_that_waits(harness: Harness) -> None:
    async with opened(harness, [BASH, {"text": "late"}], [{"text": "next"}]) as session:
        await say(session)
        await until(session, of(CaPermissionRequest))
        await session.interrupt()
        events = await until(session, turn_over(0))
        assert [each.event.decision for each in events if isinstance(each.event, CaPermissionDecision)] == ["deny"]
        await say(session)
        assert "next" in text_of(await until(session, turn_over(1)))


async def test_an_answer_to_a_call_that_never_was_is_refused(harness: Harness) -> None:
    async with opened(harness) as session:
        for name in ("nope", "a/b", "a b", "%2e%2e", "ü"):
            with pytest.raises(UnknownCallError):
                await session.decide(name, ALLOW)


# ── The stream ──


async def test_a_stream_goes_on_after_an_id(harness: Harness) -> None:
    async with opened(harness, [{"text": f"line {number}"} for number in range(30)]) as session:
        await say(session)
        await session.end_input()
        events = await whole(session)
        for after in (0, 1, 17, len(events) - 2):
            rest = await whole(session, after)
            assert [(each.id, each.data) for each in rest] == [(each.id, each.data) for each in events[after + 1 :]]
        assert await whole(session, events[-1].id) == []
        assert await whole(session, 10_000) == []


async def test_an_id_that_has_not_happened_is_refused_while_the_run_lives(harness: Harness) -> None:
    async with opened(harness) as session:
        with pytest.raises(EventIdAheadError):
            session.events(10_000)


async def test_all_readers_see_the_same(harness: Harness) -> None:
    async with opened(harness, [{"text": f"line {number}"} for number in range(100)]) as session:
        readers = [asyncio.create_task(whole(session)) for _ in range(5)]
        await say(session)
        await session.end_input()
        found = [[(each.id, each.data) for each in await reader] for reader in readers]
        assert all(each == found[0] for each in found)


async def test_a_reader_that_leaves_stops_nobody(harness: Harness) -> None:
    async with opened(harness, [{"text": "a"}, {"delay": 0.1}, {"text": "b"}]) as session:
        await say(session)
        await until(session, of(CaTurnStarted))
        assert '"b"' in text_of(await until(session, turn_over(0)))


async def test_events_that_come_fast_and_are_big_all_come(harness: Harness) -> None:
    big = "w" * 200_000
    async with opened(harness, [{"text": "{message}"}] * 20) as session:
        await say(session, big)
        await session.end_input()
        events = await whole(session)
        assert sum(big in bytes(each.data).decode() for each in events) >= 20


# ── Files ──


async def test_files_travel_both_ways(harness: Harness) -> None:
    async with opened(harness) as session:
        files = session.files
        assert await files.write("notes/a.bin", b"one two one\0\xff") == 13
        assert await files.read("notes/a.bin") == b"one two one\0\xff"
        await files.write("notes/t.txt", b"one two one")
        assert await files.edit("notes/t.txt", "one", "1") == 1
        assert await files.edit("notes/t.txt", "1", "2", replace_all=True) == 1
        assert await files.read("notes/t.txt") == b"2 two one"
        await files.mkdir("deep/er", parents=True)
        await files.move("notes/t.txt", "deep/er/t.txt")
        tree = {entry.path: entry.type for entry in await files.tree(".", depth=3)}
        assert {"notes": "dir", "notes/a.bin": "file", "deep/er/t.txt": "file"}.items() <= tree.items()
        assert {entry.path for entry in await files.tree("deep", depth=0)} == {"er"}
        await files.delete("deep", recursive=True)
        for missing in (files.read("deep/er/t.txt"), files.delete("deep"), files.move("nope", "x")):
            with pytest.raises(NotFoundError):
                await missing
        with pytest.raises(WorkspaceError):
            await files.read("notes")
        with pytest.raises(WorkspaceError):
            await files.edit("notes/a.bin", "absent", "x")
        with pytest.raises(WorkspaceError):
            await files.delete(".", recursive=True)


async def test_no_path_leaves_the_workspace(harness: Harness) -> None:
    async with opened(harness) as session:
        files = session.files
        await files.write("a.txt", b"x")
        for path in ("../x", "/etc/passwd", "a/../../x", "..", "/"):
            for escape in (
                files.read(path),
                files.write(path, b"x"),
                files.edit(path, "a", "b"),
                files.mkdir(path),
                files.move("a.txt", path),
                files.move(path, "b.txt"),
                files.delete(path, recursive=True),
                files.tree(path),
            ):
                with pytest.raises(PathEscapeError):
                    await escape


async def test_the_agent_and_its_caller_see_the_same_files(harness: Harness) -> None:
    steps = [
        {"tool": "Read", "input": {"file_path": "in.txt"}},
        {"tool": "Write", "input": {"file_path": "out/put.txt", "content": "from within"}},
        {"tool": "Read", "input": {"file_path": "../../../../etc/hostname"}},
    ]
    async with opened(harness, steps) as session:
        await session.files.write("in.txt", b"from outside")
        answering = asyncio.create_task(_allow_all(session))
        await say(session)
        events = await until(session, turn_over(0))
        answering.cancel()
        assert "from outside" in text_of(events)
        assert "parent traversal is not allowed" in text_of(events)
        assert await session.files.read("out/put.txt") == b"from within"


async def _allow_all(session: Session) -> None:
    async for recorded in session.events():
        if isinstance(recorded.event, CaPermissionRequest):
            await session.decide(recorded.event.call_id, ALLOW)


async def test_attachments_and_inline_files_are_there_from_the_start(harness: Harness) -> None:
    attachments = [
        Attachment(path="given/a.txt", content="grün"),
        Attachment(path="b.bin", content=base64.b64encode(b"\0\xff").decode(), encoding="base64"),
        Attachment(path="README.md", content="over"),
    ]
    async with opened(harness, attachments=attachments, files={"README.md": "under", "src/x.py": "pass"}) as session:
        assert await session.files.read("given/a.txt") == "grün".encode()
        assert await session.files.read("b.bin") == b"\0\xff"
        assert await session.files.read("README.md") == b"over"
        assert await session.files.read("src/x.py") == b"pass"


async def test_what_a_request_gets_wrong_is_told_at_once(harness: Harness) -> None:
    wrong: list[tuple[dict[str, Any], type[ComputerAgentError]]] = [
        ({"engine": "nope"}, UnknownEngineError),
        ({"identity_loader": "nope"}, UnknownLoaderError),
        ({"session_store": "nope"}, UnknownStoreError),
        ({"attachments": [Attachment(path="../x", content="")]}, PathEscapeError),
        ({"attachments": [Attachment(path="/x", content="")]}, PathEscapeError),
        ({"attachments": [Attachment(path="x", content="!", encoding="base64")]}, ValidationError),
        ({"files": {"../x": ""}}, ComputerAgentError),
        ({"files": {"a/../../x": ""}}, ComputerAgentError),
    ]
    for fields, error in wrong:
        with pytest.raises(error) as caught:
            await harness.open(asked(**fields))
        assert caught.value.hint


async def test_a_script_that_is_none_is_the_end_of_its_run(harness: Harness) -> None:
    async with opened(harness, [{"nonsense": 1}]) as session:
        last = (await whole(session))[-1].event
        assert isinstance(last, CaSessionEnded)
        assert (last.reason, last.error_code) == ("error", ScriptError.code)


async def test_many_sessions_at_once_keep_apart(harness: Harness) -> None:
    async def one(number: int) -> None:
        async with opened(harness, [{"text": "{message}"}], files={"own.txt": f"file-{number}"}) as session:
            await say(session, f"word-{number}")
            said = text_of(await until(session, turn_over(0)))
            assert f"word-{number}" in said
            assert await session.files.read("own.txt") == f"file-{number}".encode()
            assert not any(f"word-{other}" in said for other in range(6) if other != number)

    await asyncio.gather(*(one(number) for number in range(6)))


# ── Policies ──

RULES = """
version: 1
default: allow
rules:
  - name: no-secrets
    effect: deny
    reason: secrets are not written
    match: {tool: Write, paths: ["**/*.secret"]}
  - name: late
    effect: ask
    reason: who is there?
    match: {tool: Bash}
"""


async def test_a_policy_judges_wherever_the_engine_runs(harness: Harness) -> None:
    write = {"tool": "Write", "input": {"file_path": "a.secret", "content": "x"}}
    policy = RulesPolicyConfig(text=RULES)
    async with opened(harness, [write, BASH], policy=policy) as session:
        await say(session)
        events = await until(session, of(CaPermissionRequest))
        (denied,) = [each.event for each in events if isinstance(each.event, CaPermissionDecision)]
        assert (denied.decision, denied.engine, denied.rule, denied.decided_by) == (
            "deny", "rules", "no-secrets", "policy",
        )  # fmt: skip
        assert denied.principal
        asks = events[-1].event
        assert isinstance(asks, CaPermissionRequest)
        assert (asks.policy, asks.reason, asks.tool_name) == ("rules", "who is there?", "Bash")
        await session.decide(asks.call_id, ALLOW)
        await until(session, turn_over(0), after=events[-1].id)
        with pytest.raises(ComputerAgentError):
            await session.files.read("a.secret")


async def test_a_policy_that_cannot_be_read_opens_no_session(harness: Harness) -> None:
    with pytest.raises(ValidationError):
        await harness.open(asked([BASH], policy=RulesPolicyConfig(text="version: 1\nrules: nonsense")))
