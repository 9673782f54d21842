"""What each agent does in a real evaluation: tools, tool servers, skills, system prompts, attempts, cancel."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from inspect_ai.agent import AgentAttempts, BridgedToolsSpec
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.scorer import Score

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


@dataclass
class Played:
    name: str
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
    return Played(name, log, only(log), scene, told)


@pytest.fixture(scope="module", params=CLIS)
def played(request: pytest.FixtureRequest, machine_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Played:
    need(request.param)
    return play_all(request.param, "bwrap", tmp_path_factory.mktemp(request.param))


def test_the_sample_succeeds_and_its_usage_is_in_the_log(played: Played):
    assert played.sample.error is None, played.sample.error
    assert played.log.status == "success"
    assert played.sample.model_usage["mockllm/model"].total_tokens == 15 * len(played.scene.asked)


def test_its_shell_works_in_the_sandbox(played: Played):
    assert "proof.txt" in played.sample.scores["right"].metadata["files"]
    results = [message.text for message in played.sample.messages if message.role == "tool"]
    assert "simulated-proof" in results[0]


def test_it_calls_a_tool_of_the_host(played: Played):
    if played.name not in WITH_TOOLS:
        pytest.skip("it has a shell alone")
    results = [message for message in played.sample.messages if message.role == "tool"]
    assert sum("otter-7" in message.text for message in results) == 1


def test_it_calls_a_tool_of_a_server_in_the_sandbox(played: Played):
    if played.name not in WITH_TOOLS:
        pytest.skip("it has a shell alone")
    assert "touched.txt" in played.sample.scores["right"].metadata["files"]


def test_its_skills_are_offered(played: Played):
    if played.name not in WITH_TOOLS:
        pytest.skip("it has no skills")
    assert "how to tie a bowline" in played.scene.text(0) + str([tool.description for tool in played.scene.asked[0][1]])


def test_both_system_prompts_reach_the_model(played: Played):
    first = played.scene.text(0)
    assert first.count("The sample says: mind the otters.") == 1
    assert first.count("The agent is told: be terse.") == 1
    assert PROMPT in first


def test_three_attempts_are_one_session(played: Played):
    assert played.told == [0.0, 0.0]
    assert played.sample.scores["right"].value == "C"
    last = played.scene.text(-1)
    for said in (PROMPT, "simulated-proof", "granny", "Wrong the first time.", "sheepshank", "Wrong the second time."):
        assert said in last, said
    assert played.sample.output.completion.strip() == "bowline"
    texts = [message.text for message in played.sample.messages]
    assert sum("Wrong the second time." in text for text in texts) == 1


@pytest.fixture(scope="module")
def stopped(machine_cache: None, tmp_path_factory: pytest.TempPathFactory):
    """Runs an agent that is cancelled in mid-call, once per agent and place."""

    def stop(name: str, place: str) -> tuple[EvalSample, Scene, set[int]]:
        need(name)
        scene = Scene([shell(name, "sleep 86399 > sleep.txt 2>&1 & echo started")])
        solver = cancelled(agent_of(name, env={MARK: (mark := uuid.uuid4().hex)}), scene)
        ended = only(play(scene, solver, tmp_path_factory.mktemp(f"stopped-{name}"), place=place))
        return ended, scene, {pid for pid, value in marks(MARK).items() if value == mark}

    return stop


@pytest.mark.parametrize("name", CLIS)
def test_cancel_ends_it_in_mid_call_and_leaves_no_process(name: str, stopped):
    ended, scene, left = stopped(name, "bwrap")
    assert ended.error is None, ended.error
    assert len(scene.asked) == 2, "the shell had run, and the model was thinking"
    assert left == set()
