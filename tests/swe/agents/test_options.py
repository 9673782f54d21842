"""Each option of the agents, in a real evaluation."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from inspect_ai.agent import AgentAttempts, AgentState, agent, handoff, react
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageUser,
    CompactionTrim,
    GenerateConfig,
    ModelAPI,
    get_model,
)
from inspect_ai.tool import MCPServerConfigStdio
from inspect_ai.util import store

from computeragent.artifacts import listed
from computeragent.clis import cli
from computeragent.swe.agents.working import GO_ON

from .conftest import need
from .scenes import Scene, agent_of, call, only, play, sample, say, secret_word, shell, with_usage

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


@pytest.fixture(autouse=True)
def claude(programs) -> Path:
    need("claude_code", "codex_cli")
    return listed("claude_code")[0].program


def names(scene: Scene, index: int = 0) -> set[str]:
    return {tool.name for tool in scene.asked[index][1]}


SLOW = [pytest.param(name, marks=pytest.mark.soak) for name in ("gemini_cli", "opencode")]


@pytest.mark.parametrize("name", ["claude_code", "codex_cli", *SLOW])
def test_a_prompt_that_is_too_long_for_an_argument_arrives(name: str, tmp_path: Path):
    need(name)
    text = "-" + "otter " * 40_000 + "end"
    scene = Scene([say("granny"), say("bowline")])
    again = AgentAttempts(attempts=2, incorrect_message=f"{text} of the second")
    one = only(play(scene, agent_of(name, attempts=again), tmp_path, sample(text)))
    assert one.error is None, one.error
    assert text in scene.text(0)
    assert f"{text} of the second" in scene.text(1)
    assert "granny" in scene.text(1)


def test_a_filter_answers_instead_of_the_model(tmp_path: Path):
    async def answer(_model, messages, tools, _choice, _config: GenerateConfig):
        return with_usage(say("bowline, says the filter")(tools)) if tools else None

    scene = Scene([])
    one = only(play(scene, agent_of("claude_code", filter=answer), tmp_path))
    assert one.error is None, one.error
    assert one.output.completion == "bowline, says the filter"
    assert scene.asked == []


def test_models_by_name_by_role_and_the_identity_that_is_shown(tmp_path: Path):
    # The sub-agent works in the background: when it is done, its answer comes as one more message.
    begin = call("Agent", description="tie", prompt="Tie a knot", subagent_type="general-purpose")
    scene = Scene([begin, say("bowline"), say("bowline")])
    sub = Scene([say("the knot is tied")])
    other = get_model("mockllm/other", custom_outputs=sub, memoize=False)
    solver = agent_of(
        "claude_code", model_config="claude-opus-4-5", subagent_model="mockllm/other", model_aliases={"other": other}
    )
    one = only(play(scene, solver, tmp_path))
    assert one.error is None, one.error
    assert "Opus 4.5" in scene.text(0)
    assert "Tie a knot" in sub.text(0)
    assert "the knot is tied" in scene.text(-1)
    assert set(one.model_usage) == {"mockllm/model", "mockllm/other"}
    assert one.output.completion == "bowline"


def test_a_refusal_is_asked_again(tmp_path: Path):
    scene = Scene([say("I will not", "content_filter"), say("I will not", "content_filter"), say("bowline")])
    one = only(play(scene, agent_of("claude_code", retry_refusals=2), tmp_path))
    assert one.error is None, one.error
    assert one.scores["right"].value == "C"


def test_a_refusal_that_stays_one_is_scored(tmp_path: Path):
    scene = Scene([say("I will not", "content_filter")] * 9)  # Claude Code asks again by itself
    one = only(play(scene, agent_of("claude_code", retry_refusals=None), tmp_path))
    assert one.error is None, one.error
    assert one.output.stop_reason == "content_filter"
    assert one.scores["right"].value == "I"


CRASHES = """#!/bin/sh
# The real one, but that its first end is a crash.
if [ -e crashed ]; then exec PROGRAM "$@"; fi
touch crashed
PROGRAM "$@" >/dev/null 2>&1
exit 1
"""
NEVER_WORKS = "#!/bin/sh\necho x >> launches\nexit 1\n"


def with_program(text: str, **options):
    """An agent that finds another program on its PATH; the sample's folder of our sandboxes is /workspace."""
    given = sample(**{"bin/claude": text})
    given.setup = "#!/bin/sh\nchmod +x bin/claude\n"
    env = {"PATH": "/workspace/bin:/usr/local/bin:/usr/bin:/bin", **options.pop("env", {})}
    return agent_of("claude_code", env=env, **options), given


def test_a_crash_is_resumed_where_it_was(tmp_path: Path, claude: Path):
    scene = Scene([shell("claude_code", "echo one > first.txt"), say("granny"), say("bowline")])
    solver, given = with_program(CRASHES.replace("PROGRAM", str(claude)), version="sandbox")
    one = only(play(scene, solver, tmp_path, given))
    assert one.error is None, one.error
    assert one.output.completion == "bowline"
    assert GO_ON in scene.text(-1)
    assert "granny" in scene.text(-1)


def test_a_crash_is_one_whatever_it_says_of_the_name_of_the_model(tmp_path: Path, claude: Path):
    # With a model that it does not know Claude Code says so on stderr, each time.
    text = CRASHES.replace("2>&1\nexit 1", "\necho said >> said.txt\nexit 1").replace("PROGRAM", str(claude))
    solver, given = with_program(text, version="sandbox")
    scene = Scene([say("granny"), say("bowline")])
    one = only(play(scene, solver, tmp_path, given))
    assert one.error is None, one.error
    assert one.output.completion == "bowline"
    assert GO_ON in scene.text(-1)
    assert "said.txt" in one.scores["right"].metadata["files"]


def test_a_program_that_crashes_for_ever_is_an_error_of_the_sample(tmp_path: Path):
    solver, given = with_program(NEVER_WORKS, retry_uncaught_errors=2)
    log = play(Scene([]), solver, tmp_path, given)
    error = only(log).error
    assert error is not None
    assert "Claude Code ended with status 1, without a word of what failed, 3 times" in error.message
    assert "asked the model nothing" in error.message
    assert only(log).scores in (None, {})


def test_what_it_said_is_in_the_error_without_secrets(tmp_path: Path):
    text = '#!/bin/sh\necho "bad thing with $MY_API_KEY and $ANTHROPIC_AUTH_TOKEN" >&2\nexit 7\n'
    solver, given = with_program(text, env={"MY_API_KEY": "s3cret-of-mine-1234567"})
    error = only(play(Scene([]), solver, tmp_path, given)).error
    assert error is not None
    assert "status 7" in error.message
    assert "bad thing with" in error.message
    assert "s3cret-of-mine" not in error.message
    assert "Bearer" not in error.message
    assert "sk-" not in error.message


def test_a_program_that_asks_nothing_is_an_error_and_no_success(tmp_path: Path):
    solver, given = with_program("#!/bin/sh\necho all fine\n")
    error = only(play(Scene([]), solver, tmp_path, given)).error
    assert error is not None
    assert "without asking the model anything: all fine" in error.message


def test_a_tool_of_the_host_that_never_reaches_the_model_is_an_error(tmp_path: Path):
    solver = agent_of("claude_code", bridged_tools=[secret_word()], disallowed_tools=["mcp__tools__secret_word"])
    one = only(play(Scene([say("bowline")]), solver, tmp_path))
    assert one.error is not None
    assert "did not offer the model" in one.error.message
    assert "secret_word" in one.error.message
    assert not one.scores


@pytest.mark.parametrize("name", ["claude_code", "codex_cli", *SLOW])
def test_a_tool_server_that_does_not_start_is_an_error(name: str, tmp_path: Path):
    need(name)
    server = MCPServerConfigStdio(name="not-there", command="/no/such/server")
    one = only(play(Scene([say("bowline")] * 2), agent_of(name, mcp_servers=[server]), tmp_path))
    assert one.error is not None
    assert "not-there" in one.error.message
    assert "mcp_servers" in one.error.message
    assert not one.scores


def test_auto_mode_is_its_permission_mode(tmp_path: Path):
    solver, given = with_program('#!/bin/sh\necho "$@" >&2\nexit 3\n', auto_mode=True)
    error = only(play(Scene([]), solver, tmp_path, given)).error
    assert error is not None
    assert "--permission-mode auto" in error.message
    assert "--dangerously-skip-permissions" not in error.message
    scene = Scene([say("bowline")])
    assert only(play(scene, agent_of("claude_code", auto_mode=True), tmp_path)).scores["right"].value == "C"


def test_cwd_env_and_denied_tools(tmp_path: Path):
    scene = Scene([shell("claude_code", "pwd; echo given=$GIVEN"), say("bowline")])
    solver = agent_of("claude_code", cwd="sub", env={"GIVEN": "yes"}, disallowed_tools=["WebSearch"])
    one = only(play(scene, solver, tmp_path, sample(**{"sub/file.txt": "x"})))
    assert one.error is None, one.error
    assert "/workspace/sub\ngiven=yes" in scene.text(-1)
    assert "Bash" in names(scene)
    assert "WebSearch" not in names(scene)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    error = only(play(Scene([]), agent_of("claude_code", cwd="/no/such"), tmp_path)).error
    assert error is not None
    assert "there is no folder /no/such" in error.message


def test_debug_traces_what_it_says(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("INSPECT_TRACE_FILE", str(tmp_path / "trace.log"))
    solver, given = with_program('#!/bin/sh\necho "$@"\nexit 3\n', debug=True)
    error = only(play(Scene([]), solver, tmp_path, given)).error
    assert error is not None
    assert "--debug" in error.message


def test_codex_has_the_tools_that_it_is_let_have(tmp_path: Path):
    scene = Scene([say("bowline")])
    assert only(play(scene, agent_of("codex_cli"), tmp_path)).error is None
    assert {"web_search", "get_goal", "view_image"} <= names(scene)
    scene = Scene([shell("codex_cli", "ls -a .mine"), say("bowline")])
    solver = agent_of(
        "codex_cli",
        goals=False,
        web_search="disabled",
        home_dir=".mine",
        config_overrides={"tools.view_image": "false"},
        model_config="gpt-5.1",
        system_prompt="From AGENTS.md",
    )
    one = only(play(scene, solver, tmp_path))
    assert one.error is None, one.error
    assert names(scene).isdisjoint({"web_search", "get_goal"})
    assert "config.toml" in scene.text(-1)
    assert "AGENTS.md" in scene.text(-1)
    assert "From AGENTS.md" in scene.text(0)


@agent
def twice(of):
    async def execute(state: AgentState) -> AgentState:
        state = await of(state)
        state.messages.append(ChatMessageUser(content="And which knot now?"))
        state = await of(state)
        store().set("messages", [message.text for message in state.messages])
        return state

    return execute


def test_a_second_turn_goes_on_with_the_session(tmp_path: Path):
    scene = Scene([shell("claude_code", "echo remembered"), say("granny"), say("bowline")])
    one = only(play(scene, twice(agent_of("claude_code")), tmp_path))
    assert one.error is None, one.error
    assert one.output.completion == "bowline"
    last = scene.text(-1)
    assert "remembered" in last
    assert "granny" in last
    assert "And which knot now?" in last
    assert "The conversation so far" not in last


@agent
def criticised(of, critic, *then):
    """An agent, a critic of its work, and agents that work on."""

    async def execute(state: AgentState) -> AgentState:
        state = await of(state)
        for follower in then or (of,):
            state.messages.append(ChatMessageAssistant(content=critic))
            state.messages.append(ChatMessageUser(content="Do as the critic says"))
            state = await follower(state)
        return state

    return execute


def test_a_session_that_goes_on_is_told_what_others_said_meanwhile(tmp_path: Path):
    scene = Scene([say("granny"), say("bowline")])
    one = only(play(scene, criticised(agent_of("claude_code"), "A granny slips."), tmp_path))
    assert one.error is None, one.error
    last = scene.text(-1)
    assert "What was said since:\n\nAssistant: A granny slips.\n\nThe message to answer now:" in last
    assert last.count("Please write the proof") == 1


@pytest.mark.soak
def test_a_session_that_goes_on_is_told_another_system_prompt(tmp_path: Path):
    need("opencode")
    planner = agent_of("opencode", system_prompt="You plan.")
    worker = agent_of("opencode", system_prompt="You work.")
    scene = Scene([say("granny"), say("sheepshank"), say("bowline")])
    one = only(play(scene, criticised(planner, "No.", worker, worker), tmp_path))
    assert one.error is None, one.error
    assert "granny" in scene.text(1), "it is the same session"
    assert [scene.text(index).count("You work.") for index in range(3)] == [0, 1, 1]


def test_a_conversation_can_be_handed_off_to_an_agent(tmp_path: Path):
    hand = call("transfer_to_claude_code")
    scene = Scene([hand, say("a bowline it is"), hand, say("still a bowline"), call("submit", answer="bowline")])
    one = only(play(scene, react(tools=[handoff(agent_of("claude_code"))]), tmp_path))
    assert one.error is None, one.error
    assert one.scores["right"].value == "C"
    assert "User: Please write the proof" in scene.text(1)
    assert "a bowline it is" in scene.text(3), "its session goes on"
    assert "[Claude Code] still a bowline" in scene.text(4)


@pytest.mark.parametrize("model", ["inspect", "inspect/mockllm/model", "grader"])
def test_a_model_has_the_names_that_the_bridge_knows(model: str, tmp_path: Path):
    other = Scene([say("bowline")])
    roles = {"grader": get_model("mockllm/grader", custom_outputs=other, memoize=False)}
    scene = Scene([say("bowline")])
    one = only(play(scene, agent_of("claude_code", model=model), tmp_path, model_roles=roles))
    assert one.error is None, one.error
    assert len((other if model == "grader" else scene).asked) == 1


def test_a_home_of_codex_is_where_it_works(tmp_path: Path):
    scene = Scene([shell("codex_cli", "ls .mine"), say("bowline")])
    solver = agent_of("codex_cli", cwd="sub", home_dir=".mine", system_prompt="From AGENTS.md")
    one = only(play(scene, solver, tmp_path, sample(**{"sub/file.txt": "x"})))
    assert one.error is None, one.error
    assert "From AGENTS.md" in scene.text(0)
    assert "config.toml" in scene.text(-1)


def test_a_conversation_of_somebody_else_is_told(tmp_path: Path):
    given = sample()
    given.input = [
        ChatMessageUser(content="Which knot?"),
        ChatMessageAssistant(content="A granny."),
        ChatMessageUser(content="A better one?"),
    ]
    scene = Scene([say("bowline")])
    one = only(play(scene, agent_of("claude_code"), tmp_path, given))
    assert one.error is None, one.error
    assert "User: Which knot?\n\nAssistant: A granny." in scene.text(0)
    ends = sample()
    ends.input = given.input[:2]
    error = only(play(Scene([]), agent_of("claude_code"), tmp_path, ends)).error
    assert error is not None
    assert "ends with the assistant's message" in error.message


def test_versions_that_are_not_there_are_errors_of_the_sample(tmp_path: Path):
    for version, says in (("9.9.9", "this machine is offline"), ("sandbox", "not installed in the sandbox")):
        error = only(play(Scene([]), agent_of("claude_code", version=version), tmp_path)).error
        assert error is not None
        assert says in error.message, error.message


def test_a_damaged_program_is_no_success(tmp_path: Path, monkeypatch, claude: Path):
    folder = tmp_path / "home" / "cache" / "artifacts" / "codex_cli" / "0.0.1_linux-x64"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "codex").write_text("#!/bin/sh\n")
    files = {"bin/codex": ["0" * 64, 10]}
    (folder / "artifact.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "name": "codex_cli",
                "version": "0.0.1",
                "platform": "linux-x64",
                "program": "bin/codex",
                "files": files,
            }
        )
    )
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(tmp_path / "home"))
    error = only(play(Scene([]), agent_of("codex_cli", version="0.0.1"), tmp_path, place="local")).error
    assert error is not None
    assert "0.0.1" in error.message
    assert "offline" in error.message, "what is damaged is removed, and cannot be fetched again"
    assert not folder.exists()
    shutil.rmtree(tmp_path / "home")


def test_mini_says_what_it_submitted_and_takes_compaction(tmp_path: Path, monkeypatch):
    async def count(_self, text: str) -> int:  # Inspect's own count would be downloaded
        return len(text) // 4

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)
    need("mini_swe_agent")
    finish = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo bowline && echo two lines"
    steps = [*[shell("mini_swe_agent", "seq 1 3000")] * 4, shell("mini_swe_agent", finish)]
    scene = Scene(steps, tokens=5000)
    solver = agent_of("mini_swe_agent", compaction=CompactionTrim(threshold=4000, preserve=0.3))
    one = only(play(scene, solver, tmp_path))
    assert one.error is None, one.error
    assert one.output.completion.split("\n")[:2] == ["bowline", "two lines"]
    sizes = [len(messages) for messages, _ in scene.asked]
    assert any(later <= earlier for earlier, later in pairwise(sizes)), sizes
    assert cli("mini_swe_agent").skills == ""
