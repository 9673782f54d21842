"""`ComputerAgent` as its user holds it: what it takes, what it refuses at once, its files, its telemetry, its end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, EngineError, plugins, run_task
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import (
    ComputerAgentError,
    InvalidSessionIdError,
    PathEscapeError,
    UnknownEngineError,
    UnknownLoaderError,
    UnknownStoreError,
    UnknownSubstrateError,
    UnsupportedRuntimeError,
    ValidationError,
    WorkspaceError,
)
from computeragent.eventlog import SqliteEventLog
from computeragent.protocol_types import EngineContext, EngineEvent, SubstrateHandle
from computeragent.stores.memory import MemorySessionStore
from puppets import RESULT, Puppet, kinds, scripted, until

pytestmark = pytest.mark.anyio


class Hooks:
    """Telemetry that notes what it is told; each hook may also fail, or be async."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[tuple[str, Any]] = []
        self._fails = fails

    def _note(self, hook: str, info: Any = None) -> None:
        self.told.append((hook, info))
        if self._fails:
            raise RuntimeError(f"{hook} is broken")

    def on_agent_constructed(self, info: Any) -> None:
        self._note("constructed", info)

    async def on_chat_start(self, info: Any) -> str:
        self._note("start", info)
        return "the context"

    def on_chat_end(self, info: Any, context: Any = None) -> None:
        self._note("end", info | {"context": context})

    async def on_close(self) -> None:
        self._note("close")


# ── What is refused at once ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("option", "error", "message", "hint"),
    [
        (
            {"engine": "claude"},
            UnknownEngineError,
            "engine 'claude' is not registered",
            'Did you mean "claude-agent-sdk"? Available: acp, claude-agent-sdk, computer-use, scripted.',
        ),
        (
            {"harness": "scriptd"},
            UnknownEngineError,
            "engine 'scriptd' is not registered",
            'Did you mean "scripted"? Available: acp, claude-agent-sdk, computer-use, scripted.',
        ),
        (
            {"identity_loader": "gpa"},
            UnknownLoaderError,
            "identity loader 'gpa' is not registered",
            'Did you mean "gap"? Available: gap, gitagentprotocol, passthrough.',
        ),
        (
            {"session_store": "sqlite3"},
            UnknownStoreError,
            "session store 'sqlite3' is not registered",
            f'Did you mean "sqlite"? Available: {", ".join(plugins.stores.names())}.',
        ),
        (
            {"session_store": {"kind": "flie"}},
            UnknownStoreError,
            "session store 'flie' is not registered",
            f'Did you mean "file"? Available: {", ".join(plugins.stores.names())}.',
        ),
        (
            {"runtime": "bubble"},
            UnknownSubstrateError,
            "runtime 'bubble' is not registered",
            f"Available: {', '.join(plugins.substrates.names())}.",
        ),
        (
            {"session_id": "../x"},
            InvalidSessionIdError,
            "session id '../x' is not valid",
            "Use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'.",
        ),
        (
            {"session_id": ""},
            InvalidSessionIdError,
            "session id '' is not valid",
            "Use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'.",
        ),
        (
            {"engine": "scripted", "harness": "claude-agent-sdk"},
            ValidationError,
            "engine='scripted' and harness='claude-agent-sdk' name two engines",
            "Give one of them; they mean the same.",
        ),
        (
            {"envs": {"A": 1}},
            ValidationError,
            "envs['A'] must be text, got int",
            "Use str(value).",
        ),
        (
            {"base_url": "example.com/v1"},
            ValidationError,
            "base_url 'example.com/v1' is not an http(s) URL",
            "Such as https://host/path.",
        ),
        (
            {"base_url": "http://[oops"},
            ValidationError,
            "base_url 'http://[oops' is not an http(s) URL",
            "Such as https://host/path.",
        ),
        (
            {"policy": "allow"},
            ValidationError,
            "allow is no policy file that is known here",
            "Use a .yaml or .cedar file. A .rego file is for an OPA server: {'kind': 'opa', 'url': …}.",
        ),
        (
            {"attachments": [{"path": "a"}]},
            ValidationError,
            "not an attachment: Object missing required field `content`",
            'Use {"path": "notes.txt", "content": "…", "encoding": "utf8"}.',
        ),
        (
            {"session_store": {"options": {}}},
            ValidationError,
            "not a session store: Object missing required field `kind`",
            'Use a name, {"kind": "sqlite", "options": {…}}, or a store.',
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_can_be_seen_to_be_wrong_is_refused_at_once_with_a_hint(
    option: dict[str, Any], error: Any, message: str, hint: str, tmp_path: Path
):
    with pytest.raises(error) as caught:
        ComputerAgent(**({"source": tmp_path, "harness": None} | option))
    assert (caught.value.message, caught.value.hint) == (message, hint)


class Older:
    """A session store of the shape before upstream's."""

    async def create(self, session_id: str) -> None: ...
    async def append(self, session_id: str, entry: Any) -> None: ...
    async def load(self, session_id: str) -> list[Any]: ...


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"engine": 42}, r"42 has no method start_session\(\)"),
        ({"runtime": object()}, r"has no method boot\(\)"),
        ({"identity_loader": 42}, r"42 has no method load\(\)"),
        ({"session_store": 42}, r"42 is no session store; it needs the protocol claude_agent_sdk\.SessionStore"),
        ({"session_store": Older()}, "Older is a session store of the older create/load/append shape"),
        ({"session_store": MemorySessionStore}, "session_store is the class MemorySessionStore; pass an object of it"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_object_of_the_wrong_kind_is_a_type_error_at_once(option: dict[str, Any], says: str, tmp_path: Path):
    with pytest.raises(TypeError, match=says):
        ComputerAgent(source=tmp_path, **option)


def test_making_an_agent_needs_no_loop_and_touches_nothing(tmp_path: Path, state_folder: Path):
    agent = scripted(tmp_path, session_id="mine")
    assert agent.session_id == "mine"
    assert list(state_folder.iterdir()) == list(tmp_path.iterdir()) == []


def test_harness_is_another_word_for_engine(tmp_path: Path):
    assert ComputerAgent(source=tmp_path, harness="scripted", engine="scripted")


# ── What reaches the engine ──────────────────────────────────────────────────────────────────────────────────


async def options_of(folder: Path, **agent: Any) -> EngineContext:
    seen: list[EngineContext] = []

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        seen.append(ctx)
        async for _ in ctx.user_message_queue:
            yield RESULT

    await run_task(message="hi", source=folder, engine=Puppet(play), **agent)
    return seen[0]


async def test_the_model_of_the_options_stands_above_the_argument_and_that_above_agent_yaml(tmp_path: Path):
    (tmp_path / "agent.yaml").write_text(
        "name: a\nversion: 0.1.0\ndescription: d\nspec_version: '0.1.0'\nmodel:\n  preferred: from-yaml\n"
    )
    assert (await options_of(tmp_path)).options["model"] == "from-yaml"
    assert (await options_of(tmp_path, model="argument")).options["model"] == "argument"
    both = await options_of(tmp_path, model="argument", options={"model": "options"})
    assert both.options["model"] == "options"


async def test_the_temperature_of_the_options_stands_above_the_argument(tmp_path: Path):
    assert (await options_of(tmp_path, temperature=0.2)).options["temperature"] == 0.2
    both = await options_of(tmp_path, temperature=0.2, options={"temperature": 0.9})
    assert both.options["temperature"] == 0.9


async def test_the_base_url_is_an_environment_variable_that_envs_override(tmp_path: Path):
    url = "https://gateway.example/v1"
    assert (await options_of(tmp_path, base_url=url)).envs["ANTHROPIC_BASE_URL"] == url
    given = await options_of(tmp_path, base_url=url, envs={"ANTHROPIC_BASE_URL": "http://other"})
    assert given.envs["ANTHROPIC_BASE_URL"] == "http://other"


async def test_the_caller_s_options_are_not_changed(tmp_path: Path):
    options, envs = {"model": "m"}, {"A": "b"}
    await options_of(tmp_path, options=options, envs=envs, temperature=1.0, base_url="http://x")
    assert (options, envs) == ({"model": "m"}, {"A": "b"})


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_another_agent_of_the_same_session_remembers(tmp_path: Path):
    store = MemorySessionStore()
    options = {"session_id": "shared", "session_store": store}
    async with scripted(tmp_path, **options) as one:
        await one.chat("first")
    async with scripted(tmp_path, [[], [{"text": "{user}"}]], **options) as two:
        assert two.session_id == "shared"
        assert (await two.chat("second")).text == "first"


async def test_an_agent_lives_on_over_the_end_of_its_loop(tmp_path: Path):
    def work() -> list[str]:
        agent = scripted(tmp_path)
        return [asyncio.run(one(agent)) for _ in range(2)]

    async def one(agent: ComputerAgent) -> str:
        return (await agent.chat("hi")).text

    assert await asyncio.to_thread(work) == ["You said: hi"] * 2


async def test_agents_in_two_threads_share_one_log_file(tmp_path: Path):
    log = tmp_path / "log.db"
    outcomes: list[Any] = []

    def work(name: str) -> None:
        async def run() -> str:
            sessions = SqliteEventLog(log)
            async with scripted(tmp_path, event_log=sessions, session_id=name) as agent:
                said = [(await agent.chat(str(number))).text[-1] for number in range(10)]
            await sessions.close()
            return "".join(said)

        outcomes.append(asyncio.run(run()))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert outcomes == ["0123456789"] * 2


async def test_run_task_is_one_turn_of_an_agent_made_for_it(tmp_path: Path):
    result = await run_task(message="hi", source=tmp_path, engine=ScriptedEngine())
    assert (result.text, result.ended.reason) == ("You said: hi", "complete")


async def test_run_task_raises_what_the_turn_raises(tmp_path: Path):
    with pytest.raises(EngineError, match="RuntimeError: boom") as caught:
        await run_task(message="hi", source=tmp_path, engine=ScriptedEngine([[{"raise": "boom"}]]))
    assert caught.value.result.ended.reason == "error"


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_disposed_agent_says_so_and_may_be_disposed_again(tmp_path: Path):
    agent = scripted(tmp_path)
    await agent.chat("hi")
    await asyncio.gather(agent.dispose(), agent.dispose())
    await agent.dispose()
    for attempt in (agent.chat("hi").result, lambda: agent.fetch_artifact("x")):
        with pytest.raises(ValidationError, match="this agent was disposed"):
            await attempt()


async def test_disposing_ends_a_turn_that_runs(tmp_path: Path):
    agent = scripted(tmp_path, [[{"delay": 60}]])
    handle = agent.chat("hi")
    async for event in handle:
        if event.kind == "ca_turn_started":
            break
    await agent.dispose()
    assert (await handle).ended.reason == "cancelled"


async def test_disposing_while_a_session_opens_leaves_nothing_running(tmp_path: Path):
    booting, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow:
        async def boot(self, *, workspace: Path, **_: Any) -> SubstrateHandle:
            booting.set()
            await go_on.wait()
            return SubstrateHandle(workspace_path=workspace, close=self._close)

        async def _close(self) -> None:
            closed.set()

    agent = scripted(tmp_path, runtime=Slow())
    reader = asyncio.create_task(agent.chat("hi").result())
    await booting.wait()
    disposing = asyncio.create_task(agent.dispose())
    await asyncio.sleep(0)
    go_on.set()
    await disposing
    assert closed.is_set()
    outcome = await asyncio.gather(reader, return_exceptions=True)
    assert isinstance(outcome[0], ComputerAgentError) or outcome[0].ended.reason in {"complete", "cancelled"}


async def test_an_agent_that_is_left_alone_leaves_no_task_behind(tmp_path: Path):
    before = asyncio.all_tasks()
    async with scripted(tmp_path, [[{"delay": 60}]]) as agent:
        async for event in agent.chat("hi"):
            if event.kind == "ca_turn_started":
                break
    await until(lambda: asyncio.all_tasks() == before)


def test_under_trio_a_chat_says_that_it_needs_asyncio(tmp_path: Path):
    import trio

    async def chat() -> None:
        await scripted(tmp_path).chat("hi")

    with pytest.raises(UnsupportedRuntimeError, match=r"^ComputerAgent runs under asyncio only$") as caught:
        trio.run(chat)
    assert caught.value.hint == "Under trio use computeragent.query, or run the agent in a thread with asyncio.run()."


async def test_an_agent_that_is_forgotten_does_not_keep_the_program_from_ending(tmp_path: Path):
    code = (
        "import asyncio, sys\nfrom computeragent import ComputerAgent\n"
        "async def main():\n    print((await ComputerAgent(source=sys.argv[1], engine='scripted').chat('hi')).text)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("You said: hi\n", "")


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_files_are_written_read_and_listed(tmp_path: Path):
    async with scripted(tmp_path) as agent:
        assert await agent.write_artifact("out/höflich.txt", "grüezi") == 7
        assert await agent.write_artifact("raw.bin", b"\xff\0") == 2
        assert await agent.fetch_artifact("raw.bin") == b"\xff\0"
        assert await agent.fetch_artifact_text("out/höflich.txt") == "grüezi"
        assert await agent.fetch_artifact_text("raw.bin") == "�\0"
        assert [(entry.path, entry.type) for entry in await agent.list_workdir()] == [
            *(("out", "dir"), ("out/höflich.txt", "file"), ("raw.bin", "file"))
        ]
        assert [entry.path for entry in await agent.list_workdir("out", depth=0)] == ["höflich.txt"]


async def test_a_file_that_is_not_there_is_none(tmp_path: Path):
    async with scripted(tmp_path) as agent:
        assert await agent.fetch_artifact("none") is None
        assert await agent.fetch_artifact_text("none") is None


async def test_files_stay_in_the_working_directory(tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    async with scripted(folder) as agent:
        for attempt in (
            agent.fetch_artifact("../secret"),
            agent.write_artifact("../new", "x"),
            agent.list_workdir(".."),
        ):
            with pytest.raises(PathEscapeError):
                await attempt
        with pytest.raises(WorkspaceError):
            await agent.fetch_artifact(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "work"]


async def test_looking_at_files_first_takes_nothing_from_the_first_turn(tmp_path: Path):
    async with scripted(tmp_path) as agent:
        await agent.list_workdir()
        events = [event async for event in agent.chat("hi")]
        assert kinds(events)[0] == "ca_session_started"


async def test_attachments_are_written_once_and_not_again_over_the_agent_s_work(tmp_path: Path):
    script = [[{"tool": "Write", "input": {"file_path": "a.txt", "content": "edited"}}, {"raise": "broken"}]]
    async with scripted(tmp_path, script, attachments=[{"path": "a.txt", "content": "original"}]) as agent:
        assert await agent.fetch_artifact_text("a.txt") == "original"
        with pytest.raises(EngineError):
            await agent.chat("1")
        await agent.chat("2")
        assert await agent.fetch_artifact_text("a.txt") == "edited"


async def test_an_attachment_that_leaves_the_directory_fails_the_chat_and_writes_nothing(tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    async with scripted(folder, attachments=[{"path": "../escaped.txt", "content": "x"}]) as agent:
        for _ in range(2):
            with pytest.raises(PathEscapeError):
                await agent.chat("hi")
    assert not (tmp_path / "escaped.txt").exists()


# ── Telemetry ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hooks_are_told_of_the_agent_each_turn_and_the_end(tmp_path: Path):
    hooks = Hooks()
    async with scripted(tmp_path, [[{"usage": {"input_tokens": 3}}, {"text": "yes"}]], telemetry=hooks) as agent:
        await agent.chat("hi")
        session_id = agent.session_id
    assert [hook for hook, _ in hooks.told] == ["constructed", "start", "end", "close"]
    told = dict(hooks.told)
    assert told["constructed"]["engine"] == "scripted"
    assert told["constructed"]["source"] == {"type": "local", "path": str(tmp_path)}
    assert told["start"] == {"session_id": session_id, "message": "hi"}
    end = told["end"]
    assert (end["session_id"], end["ok"], end["error"], end["reply"]) == (session_id, True, None, "yes")
    assert (end["usage"].input_tokens, end["context"]) == (3, "the context")
    assert end["duration_ms"] >= 0


async def test_hooks_hear_of_failures(tmp_path: Path):
    hooks = Hooks()
    async with scripted(tmp_path, [[{"raise": "broken"}]], telemetry=hooks) as agent:
        with pytest.raises(EngineError):
            await agent.chat("hi")
    end = dict(hooks.told)["end"]
    assert (end["ok"], end["error"]) == (False, "RuntimeError: broken")


async def test_hooks_that_fail_are_logged_and_break_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    hooks = Hooks(fails=True)
    async with scripted(tmp_path, telemetry=hooks) as agent:
        assert (await agent.chat("hi")).text == "You said: hi"
    assert [hook for hook, _ in hooks.told] == ["constructed", "start", "end", "close"]
    failed = [record.ca_fields["hook"] for record in caplog.records if record.ca_event == "telemetry_hook_failed"]  # type: ignore[attr-defined]
    assert failed == ["on_agent_constructed", "on_chat_start", "on_chat_end", "on_close"]


async def test_hooks_take_no_event_from_the_reader(tmp_path: Path):
    async with scripted(tmp_path, telemetry=Hooks()) as agent, scripted(tmp_path) as plain:
        watched = [event.kind async for event in agent.chat("hi")]
        assert watched == [event.kind async for event in plain.chat("hi")]


async def test_telemetry_may_have_no_hook_at_all(tmp_path: Path):
    assert (await run_task(message="hi", source=tmp_path, engine=ScriptedEngine(), telemetry=object())).text


@pytest.mark.anyio
async def test_files_of_a_run_that_has_ended_can_still_be_fetched(tmp_path: Path) -> None:
    script = [[{"tool": "Write", "input": {"file_path": "a.txt", "content": "kept"}}, {"end": "budget_exceeded"}]]
    async with ComputerAgent(source=tmp_path, engine="scripted", options={"script": script}) as agent:
        result = await agent.chat("write")
        assert result.ended.reason == "budget_exceeded"
        assert await agent.fetch_artifact("a.txt") == b"kept"
        events = [event async for event in agent.chat("again")]
    assert [event.kind for event in events].count("ca_session_started") == 1


@pytest.mark.anyio
async def test_a_session_that_cannot_come_back_leaves_nothing_in_the_shared_store(tmp_path: Path) -> None:
    from computeragent.stores.memory import shared_memory_store

    async with ComputerAgent(source=tmp_path, engine="scripted") as agent:
        session_id = (await agent.chat("hello")).session_id
        key = {"project_key": "computeragent", "session_id": session_id}
        assert await shared_memory_store().load(key)
    assert await shared_memory_store().load(key) is None
