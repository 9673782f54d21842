"""What each agent does in a real evaluation: tools, tool servers, skills, system prompts, attempts, cancel."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from inspect_ai.agent import AgentAttempts, BridgedToolsSpec
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.scorer import Score

from computeragent.clis import cli
from computeragent.processes import marks

from .conftest import need
from .scenes import (
    CLIS,
    MCP_SERVER,
    PROMPT,
    WITH_TOOLS,
    Scene,
    agent_of,
    call,
    cancelled,
    done,
    only,
    play,
    sample,
    secret_word,
    shell,
    stdio_server,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


MARK = "TEST_OF_THE_MATRIX"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "inspect-matrix.md"
COLUMNS = (
    "a turn with its shell",
    "a tool of the host",
    "a stdio tool server",
    "a skill",
    "system prompts",
    "three attempts, one session",
    "cancel in mid-call",
)
HEAD = f"""# What each agent has shown in Inspect

Written by `tests/swe/agents/test_matrix.py` from its run: real programs of the agents in real evaluations, offline,
with `mockllm` as the model. All rows are played in each run of CI.
What an agent does not have is "none".

| Agent | Sandbox | {" | ".join(COLUMNS)} |
|---|---|{"---|" * len(COLUMNS)}
"""
SHOWN: dict[tuple[str, str], dict[str, str]] = {}


@contextmanager
def shown(column: str, name: str, place: str) -> Iterator[None]:
    """A cell of the page: it is shown when the block passes, and not there when it skips."""
    cells = SHOWN.setdefault((name, place), {})
    try:
        yield
    except pytest.skip.Exception:
        cells[column] = "none"
        raise
    cells[column] = "yes"


@dataclass
class Played:
    name: str
    place: str
    log: EvalLog
    sample: EvalSample
    scene: Scene
    told: list[float]


def play_all(name: str, place: str, folder: Path) -> Played:
    """One conversation that shows it all: each tool, then three attempts."""
    told: list[float] = []

    async def incorrect(_state, scores: list[Score]) -> str:
        told.append(scores[0].as_float() if scores[0].value not in {"C", "I"} else float(scores[0].value == "C"))
        return f"Wrong the {('first', 'second')[len(told) - 1]} time. Once more."

    options = {
        "system_prompt": "The agent is told: be terse.",
        "attempts": AgentAttempts(attempts=3, incorrect_message=incorrect),
    }
    steps = [shell(name, "echo simulated-proof > proof.txt && cat proof.txt")]
    if name in WITH_TOOLS:
        skill = folder / "knots"
        skill.mkdir()
        (skill / "SKILL.md").write_text("---\nname: knots\ndescription: how to tie a bowline\n---\nOver, under.\n")
        options["skills"] = [skill]
        options["mcp_servers"] = [stdio_server()]
        options["bridged_tools"] = [BridgedToolsSpec(name="host", tools=[secret_word()])]
        steps += [call("secret_word", key="7"), call("do")]
    scene = Scene([*steps, done(name, "granny"), done(name, "sheepshank"), done(name, "bowline")])
    given = sample(system="The sample says: mind the otters.", **{"mcp_server.py": MCP_SERVER.read_text()})
    log = play(scene, agent_of(name, **options), folder / "logs", given, place=place)
    return Played(name, place, log, only(log), scene, told)


PLACES = [pytest.param((place, name), id=f"{name}-{place}") for place in ("bwrap", "local") for name in CLIS]


@pytest.fixture(scope="module", params=PLACES)
def played(request: pytest.FixtureRequest, machine_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Played:
    place, name = request.param
    need(name)
    return play_all(name, place, tmp_path_factory.mktemp(name))


def test_the_sample_succeeds_and_its_usage_is_in_the_log(played: Played):
    assert played.sample.error is None, played.sample.error
    assert played.log.status == "success"
    assert played.sample.model_usage["mockllm/model"].total_tokens == 15 * len(played.scene.asked)


def test_its_shell_works_in_the_sandbox(played: Played):
    with shown("a turn with its shell", played.name, played.place):
        assert "proof.txt" in played.sample.scores["right"].metadata["files"]
        results = [message.text for message in played.sample.messages if message.role == "tool"]
        assert "simulated-proof" in results[0]


def test_it_calls_a_tool_of_the_host(played: Played):
    with shown("a tool of the host", played.name, played.place):
        tools_or_skip(played)
        results = [message for message in played.sample.messages if message.role == "tool"]
        assert sum("otter-7" in message.text for message in results) == 1


def test_it_calls_a_tool_of_a_server_in_the_sandbox(played: Played):
    with shown("a stdio tool server", played.name, played.place):
        tools_or_skip(played)
        assert "touched.txt" in played.sample.scores["right"].metadata["files"]


def test_its_skills_are_offered(played: Played):
    with shown("a skill", played.name, played.place):
        tools_or_skip(played)
        offered = str([tool.description for tool in played.scene.asked[0][1]])
        assert "how to tie a bowline" in played.scene.text(0) + offered


def test_both_system_prompts_reach_the_model(played: Played):
    with shown("system prompts", played.name, played.place):
        first = played.scene.text(0)
        assert first.count("The sample says: mind the otters.") == 1
        assert first.count("The agent is told: be terse.") == 1
        assert PROMPT in first


def test_three_attempts_are_one_session(played: Played):
    with shown("three attempts, one session", played.name, played.place):
        assert played.told == [0.0, 0.0]
        assert played.sample.scores["right"].value == "C"
        last = played.scene.text(-1)
        for said in (
            PROMPT, "simulated-proof", "granny", "Wrong the first time.", "sheepshank", "Wrong the second time.",
        ):  # fmt: skip
            assert said in last, said
        assert played.sample.output.completion.strip() == "bowline"
        texts = [message.text for message in played.sample.messages]
        assert sum("Wrong the second time." in text for text in texts) == 1


def tools_or_skip(played: Played) -> None:
    if played.name not in WITH_TOOLS:
        pytest.skip("it has a shell alone: no tools of others, no skills")


@pytest.mark.parametrize("where", PLACES)
def test_cancel_ends_it_in_mid_call_and_leaves_no_process(where: tuple[str, str], tmp_path: Path):
    place, name = where
    need(name)
    with shown("cancel in mid-call", name, place):
        scene, mark = Scene([shell(name, "sleep 86399 > sleep.txt 2>&1 & echo started")]), uuid.uuid4().hex
        solver = cancelled(agent_of(name, env={MARK: mark}), scene)
        ended = only(play(scene, solver, tmp_path, place=place))
        assert ended.error is None, ended.error
        assert len(scene.asked) == 2, "the shell had run, and the model was thinking"
        assert [pid for pid, value in marks(MARK).items() if value == mark] == []


def test_the_page_shows_what_this_run_showed():
    """Rows of which every cell was played; `UPDATE_PAGES=1` writes them."""
    page = PAGE.read_text("utf-8") if PAGE.is_file() else HEAD
    rows = {line.rpartition("` |")[0]: line for line in page.splitlines() if line.count("` |")}
    now = {}
    for (name, place), cells in SHOWN.items():
        if set(cells) == set(COLUMNS):
            words = " | ".join(cells[column] for column in COLUMNS)
            row = f"| {cli(name).title} | `{place}` | {words} |"
            now[row.rpartition("` |")[0]] = row
    if os.environ.get("UPDATE_PAGES"):
        lines = sorted({**rows, **now}.values(), key=lambda line: line.split("|")[2] + line)
        PAGE.write_text(HEAD + "".join(f"{line}\n" for line in lines), "utf-8")
        return
    assert {key: rows.get(key) for key in now} == now
