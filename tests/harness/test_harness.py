"""`LocalHarness`: what a request opens, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import (
    IdentityError,
    InvalidSessionIdError,
    PathEscapeError,
    SessionLiveError,
    UnknownEngineError,
    ValidationError,
)
from computeragent.harness import LocalHarness
from computeragent.protocol_types import (
    AgentManifest,
    Attachment,
    EngineContext,
    EngineEvent,
    SubstrateHandle,
    UserInput,
)
from computeragent.wire.events import CaSessionStarted
from puppets import RESULT, Puppet, drain, kinds, request

pytestmark = pytest.mark.anyio


class Seen(Puppet):
    """An engine that keeps the context it was given."""

    def __init__(self) -> None:
        super().__init__(self._play)
        self.contexts: list[EngineContext] = []

    async def _play(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        self.contexts.append(ctx)
        async for _ in ctx.user_message_queue:
            yield RESULT

    @property
    def ctx(self) -> EngineContext:
        return self.contexts[-1]


class Booth:
    """A substrate that counts."""

    def __init__(self) -> None:
        self.open = 0
        self.booted: list[dict[str, Any]] = []

    async def boot(self, **given: Any) -> SubstrateHandle:
        self.open += 1
        self.booted.append(given)
        return SubstrateHandle(workspace_path=given["workspace"], close=self._close)

    async def _close(self) -> None:
        self.open -= 1


@pytest.fixture
async def harness() -> AsyncIterator[LocalHarness]:
    made = LocalHarness()
    yield made
    await made.close()


@pytest.fixture
def engine() -> Seen:
    return Seen()


async def started(session: Any) -> CaSessionStarted:
    event = (await anext(session.events())).event
    assert isinstance(event, CaSessionStarted)
    return event


async def test_a_run_tells_who_runs_and_what_it_can_do(harness: LocalHarness, tmp_path: Path):
    (tmp_path / "agent.yaml").write_text("name: triage\nversion: 1.2.3\ndescription: d\nspec_version: '0.1.0'\n")
    event = await started(await harness.open(request(tmp_path)))
    assert (event.engine, event.identity.name, event.identity.version) == ("scripted", "triage", "1.2.3")
    assert event.capabilities == ScriptedEngine.capabilities
    assert event.resumed is False


async def test_a_session_gets_an_id_of_its_own(harness: LocalHarness, tmp_path: Path):
    one, two = await harness.open(request(tmp_path)), await harness.open(request(tmp_path))
    assert one.id.startswith("sess_")
    assert one.id != two.id
    assert harness.session(one.id) is one


async def test_a_live_session_cannot_be_opened_again(harness: LocalHarness, tmp_path: Path):
    await harness.open(request(tmp_path, session_id="s"))
    with pytest.raises(SessionLiveError, match="session s is live already"):
        await harness.open(request(tmp_path, session_id="s"))


async def test_of_two_that_open_one_session_at_once_one_gets_it(harness: LocalHarness, tmp_path: Path):
    tries = [harness.open(request(tmp_path, session_id="s")) for _ in range(2)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LocalSession", "SessionLiveError"]


async def test_a_finished_session_starts_its_next_run_with_ids_that_go_on(harness: LocalHarness, tmp_path: Path):
    for _ in range(2):
        session = await harness.open(request(tmp_path, session_id="again"))
        await session.send(UserInput(content="hi"))
        await session.end_input()
        await session.wait()
    found = await harness.log.read("again")
    assert [recorded.id for recorded in found] == list(range(len(found)))
    starts = [recorded.event for recorded in found if isinstance(recorded.event, CaSessionStarted)]
    assert [start.resumed for start in starts] == [False, True]


@pytest.mark.parametrize("bad", ["../evil", "a/b", "", ".hidden", "-x", "a b", "x" * 129, "é", "a\n", "a\0"])
async def test_a_session_id_that_could_be_a_path_is_refused(bad: str, harness: LocalHarness, tmp_path: Path):
    if bad:
        with pytest.raises(InvalidSessionIdError):
            await harness.open(request(tmp_path, session_id=bad))


async def test_an_engine_that_is_unknown_is_refused_before_anything_starts(harness: LocalHarness, tmp_path: Path):
    booth = Booth()
    with pytest.raises(UnknownEngineError):
        await LocalHarness(substrate=booth).open(request(tmp_path, "scriptd"))
    assert booth.booted == []


async def test_options_go_by_precedence_and_the_manifest_has_the_last_word(
    harness: LocalHarness, engine: Seen, tmp_path: Path
):
    class Loader:
        async def load(self, **given: Any) -> AgentManifest:
            assert given["target_engine"] == "puppet"
            return AgentManifest(
                name="n",
                options={"model": "manifest", "maxTurns": 3, "color": "red"},
                harden=lambda merged: merged | {"color": "blue"},
            )

    async def options(**fields: Any) -> Any:
        await harness.open(request(tmp_path, engine, identity_loader=Loader(), **fields))
        await asyncio.sleep(0)
        return engine.ctx.options

    assert await options() == {"model": "manifest", "max_turns": 3, "color": "blue"}
    assert (await options(model="argument"))["model"] == "argument"
    assert (await options(model="argument", options={"model": "option", "maxTurns": 5}))["model"] == "option"
    assert engine.ctx.options["max_turns"] == 5


async def test_git_s_secrets_never_reach_the_engine(engine: Seen, tmp_path: Path):
    booth = Booth()
    harness = LocalHarness(substrate=booth)
    envs = {"GITHUB_TOKEN": "secret", "GIT_TOKEN": "secret", "OTHER": "fine"}
    await harness.open(request(tmp_path, engine, envs=envs))
    await asyncio.sleep(0)
    assert engine.ctx.envs == {"OTHER": "fine"}
    assert booth.booted[0]["envs"] == {"OTHER": "fine"}
    await harness.close()


async def test_a_local_source_is_used_in_place_and_trusted_in_library_mode(
    harness: LocalHarness, engine: Seen, tmp_path: Path
):
    await harness.open(request(tmp_path, engine))
    await asyncio.sleep(0)
    assert engine.ctx.workspace_path.samefile(tmp_path)
    assert (engine.ctx.trusted, engine.ctx.library_mode) == (True, True)


async def test_elsewhere_a_local_source_is_copied_and_not_trusted(engine: Seen, tmp_path: Path):
    (tmp_path / "file").write_text("original")
    harness = LocalHarness(library_mode=False)
    session = await harness.open(request(tmp_path, engine))
    await asyncio.sleep(0)
    assert (engine.ctx.trusted, engine.ctx.library_mode) == (False, False)
    await session.files.write("file", b"changed")
    assert (tmp_path / "file").read_text() == "original"
    await harness.close()


async def test_attachments_are_there_before_the_engine_starts(harness: LocalHarness, engine: Seen, tmp_path: Path):
    attachments = [
        Attachment(path="in/notes.txt", content="höflich"),
        Attachment(path="in/data.bin", content=base64.b64encode(b"\0\xff").decode(), encoding="base64"),
    ]
    await harness.open(request(tmp_path, engine, attachments=attachments))
    assert (tmp_path / "in/notes.txt").read_text("utf-8") == "höflich"
    assert (tmp_path / "in/data.bin").read_bytes() == b"\0\xff"


@pytest.mark.parametrize("path", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "link/out.txt"])
async def test_an_attachment_cannot_leave_the_working_directory(path: str, harness: LocalHarness, tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(PathEscapeError):
        await harness.open(request(folder, attachments=[Attachment(path=path, content="x")], session_id="s"))
    assert not (tmp_path / "out.txt").exists()
    await harness.open(request(folder, session_id="s"))  # the failed opening holds nothing


async def test_an_attachment_that_is_not_base64_is_refused(harness: LocalHarness, tmp_path: Path):
    with pytest.raises(ValidationError, match=r"^attachment 'a' is not valid base64$"):
        await harness.open(request(tmp_path, attachments=[Attachment(path="a", content="!!", encoding="base64")]))


async def test_what_was_booted_is_closed_when_the_run_ends(tmp_path: Path):
    booth = Booth()
    harness = LocalHarness(substrate=booth)
    session = await harness.open(request(tmp_path))
    assert booth.open == 1
    await session.cancel()
    assert booth.open == 0
    await harness.close()


async def test_what_was_booted_is_closed_when_the_opening_fails_after_it(tmp_path: Path):
    booth = Booth()
    harness = LocalHarness(substrate=booth)
    with pytest.raises(PathEscapeError):
        await harness.open(request(tmp_path, attachments=[Attachment(path="../x", content="x")]))
    assert booth.open == 0
    await harness.close()


async def test_a_failed_opening_leaves_no_event_and_no_claim(harness: LocalHarness, tmp_path: Path):
    with pytest.raises(IdentityError):
        await harness.open(request(tmp_path, session_id="s", identity_loader="gap"))
    session = await harness.open(request(tmp_path, session_id="s"))
    await session.close()
    assert kinds(await harness.log.read("s"))[0] == "ca_session_started"


async def test_closing_the_harness_ends_every_session(tmp_path: Path):
    harness = LocalHarness()
    sessions = [await harness.open(request(tmp_path)) for _ in range(3)]
    await harness.close()
    assert all(session.ended for session in sessions)


async def test_a_private_folder_goes_with_a_session_that_nobody_can_resume(
    harness: LocalHarness, engine: Seen, tmp_path: Path
):
    session = await harness.open(request(tmp_path, engine))
    await asyncio.sleep(0)
    state_dir = engine.ctx.state_dir
    assert state_dir.is_dir()
    assert state_dir.stat().st_mode & 0o077 == 0
    await session.close()
    assert not state_dir.exists()
    kept = await harness.open(request(tmp_path, engine, session_id="s"))
    await asyncio.sleep(0)
    await kept.close()
    assert engine.ctx.state_dir.is_dir()


async def test_many_sessions_run_side_by_side_and_stay_apart(harness: LocalHarness, tmp_path: Path):
    async def run(number: int) -> str:
        session = await harness.open(request(tmp_path))
        await session.send(UserInput(content=f"message {number}"))
        await session.end_input()
        events = await drain(session.events())
        assert [recorded.id for recorded in events] == list(range(len(events)))
        await session.close()
        return events[-2].event.payload["result"]  # type: ignore[union-attr]

    answers = await asyncio.gather(*(run(number) for number in range(50)))
    assert answers == [f"You said: message {number}" for number in range(50)]
