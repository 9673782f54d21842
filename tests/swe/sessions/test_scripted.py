"""Agents of ours in evaluations, with the engine that plays a script: all but the model."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import AgentAttempts, BridgedToolsSpec, as_solver
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ContentAudio, ContentText
from inspect_ai.solver import user_message

from computeragent.errors import ComputerAgentError, UnknownEngineError, UnknownSubstrateError, ValidationError
from computeragent.eventlog import SqliteEventLog
from computeragent.settings import home
from computeragent.swe.sessions import computeragent_agent

from .evaluating import Turn, evaluate, has_file, only


def scripted(*turns: Turn, **given: Any) -> Any:
    return computeragent_agent(engine="scripted", options={"script": list(turns)}, **given)


def texts(sample: EvalSample) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in sample.messages]


def write(path: str, content: str = "x") -> dict[str, Any]:
    return {"tool": "Write", "input": {"file_path": path, "content": content}}


READ = {"tool": "Read", "input": {"file_path": "a.txt"}}
ANSWER = {"text": "It is 42."}
SOUND = "data:audio/mp3;base64,AAAA"


def test_events_become_messages_output_and_usage(tmp_path: Path) -> None:
    turn = [{"text": "I look."}, READ, {"usage": {"input_tokens": 3, "output_tokens": 4, "cost_usd": 0.5}}, ANSWER]
    log = evaluate(tmp_path, scripted(turn), samples=[Sample(input="hi", target="42", files={"a.txt": "data"})])
    sample = only(log)
    assert log.status == "success"
    assert texts(sample) == [
        ("user", "hi"),
        ("assistant", "I look."),
        ("assistant", ""),
        ("tool", "data"),
        ("assistant", "It is 42."),
    ]
    called = sample.messages[2]
    assert isinstance(called, ChatMessageAssistant)
    assert called.tool_calls is not None
    assert (called.tool_calls[0].function, called.tool_calls[0].arguments) == ("Read", {"file_path": "a.txt"})
    assert sample.messages[3].model_dump()["tool_call_id"] == called.tool_calls[0].id
    assert sample.scores is not None
    assert sample.scores["includes"].value == "C"
    assert sample.output.usage is not None
    assert (sample.output.usage.total_tokens, sample.output.usage.total_cost) == (7, 0.5)
    assert sample.store["ComputerAgentRun:session_id"].startswith("sess_")
    assert sample.store["ComputerAgentRun:cost_usd"] == 0.5


def test_system_messages_and_all_questions_reach_the_agent(tmp_path: Path) -> None:
    asked = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="What is"),
        ChatMessageUser(content="the answer?"),
    ]
    agent = scripted(system_prompt="Be kind.")
    sample = only(evaluate(tmp_path, agent, samples=[Sample(input=asked, target="42")]))
    assert sample.output.completion == "You said: Be brief.\n\nBe kind.\n\nWhat is\n\nthe answer?"


def test_a_source_is_copied_into_the_sandbox_and_the_samples_files_win(tmp_path: Path) -> None:
    source = tmp_path / "agent"
    (source / "notes").mkdir(parents=True)
    (source / "agent.yaml").write_text("spec_version: '0.1.0'\nname: helper\nversion: 1.0.0\ndescription: Helps.\n")
    (source / "a.txt").write_text("the agent's")
    (source / "notes" / "b.txt").write_text("kept")
    agent = scripted([READ, {"tool": "Read", "input": {"file_path": "notes/b.txt"}}, write("out.txt")], source=source)
    samples = [Sample(input="hi", target="x", files={"a.txt": "the sample's"})]
    sample = only(evaluate(tmp_path / "logs", agent, samples=samples, scorer=has_file("out.txt", "x")))
    assert [text for role, text in texts(sample) if role == "tool"][:2] == ["the sample's", "kept"]
    assert sample.scores is not None
    assert sample.scores["has_file"].value == "C"
    assert sorted(path.name for path in source.iterdir()) == ["a.txt", "agent.yaml", "notes"]


def test_a_source_is_not_copied_through_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "agent" / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "agent" / "notes" / "b.txt").write_text("x")
    (tmp_path / "outside").mkdir()
    samples = [Sample(input="hi", target="42", files={"a": "x"}, setup=f"ln -s {tmp_path / 'outside'} notes")]
    sample = only(evaluate(tmp_path / "logs", scripted([ANSWER], source=tmp_path / "agent"), samples=samples))
    assert sample.error is None, sample.error
    assert list((tmp_path / "outside").iterdir()) == []


def test_without_a_sandbox_the_agent_has_a_folder_of_its_own(tmp_path: Path) -> None:
    turn = [write("a.txt", "mine"), READ, ANSWER]
    sample = only(evaluate(tmp_path, scripted(turn), sandbox=None))
    assert ("tool", "mine") in texts(sample)


def test_a_denied_call_is_seen_in_messages_store_and_transcript_and_did_not_happen(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    deny = "{name: no-writing, effect: deny, match: {tool: Write}}"
    rules.write_text(f"version: 1\nrules:\n  - {deny}\n  - {{name: rest, effect: allow}}\n")
    agent = scripted([write("out.txt"), ANSWER], policy=str(rules))
    sample = only(evaluate(tmp_path / "logs", agent, scorer=has_file("out.txt", "no such file")))
    assert sample.scores is not None
    assert sample.scores["has_file"].value == "C"
    refused = sample.messages[2].model_dump()
    assert refused["error"]["type"] == "approval"
    denied = sample.store["ComputerAgentRun:denied"]
    assert [(each["tool"], each["rule"], each["decided_by"]) for each in denied] == [("Write", "no-writing", "policy")]
    told = [event.data for event in sample.events if event.event == "info"]
    assert [(each["permission"], each["tool"]) for each in told] == [("deny", "Write")]  # type: ignore[index, call-overload]


def test_a_wrong_answer_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    agent = scripted([{"text": "It is 41."}], [{"text": "After “{message}”: 42."}], [{"text": "Too many."}], attempts=3)
    sample = only(evaluate(tmp_path, agent))
    wrong = AgentAttempts().incorrect_message
    assert texts(sample) == [
        ("user", "hi"),
        ("assistant", "It is 41."),
        ("user", wrong),
        ("assistant", f"After “{wrong}”: 42."),
    ]
    assert sample.store["ComputerAgentRun:turns"] == 2


def test_each_answer_is_scored_by_its_files_beside_another_sandbox_too(tmp_path: Path) -> None:
    agent = scripted([write("out.txt", "41")], [write("out.txt", "42")], [write("out.txt", "43")], attempts=3)
    log = evaluate(tmp_path, agent, sandbox="bwrap", scorer=has_file("out.txt", "42"))
    sample = only(log)
    assert sample.error is None, sample.error
    assert sample.store["ComputerAgentRun:turns"] == 2
    assert sample.scores is not None
    assert sample.scores["has_file"].explanation == "42"


@pytest.mark.parametrize("setup", ["ln -s /usr/bin/env odd", "mkfifo odd"])
def test_what_does_not_travel_is_named_with_a_remedy(tmp_path: Path, setup: str) -> None:
    samples = [Sample(input="hi", target="42", files={"a": "x"}, setup=setup)]
    error = only(evaluate(tmp_path, scripted([ANSWER]), samples=samples, sandbox="bwrap")).error
    assert error is not None
    assert "files cannot be carried out of the sandbox: './odd'" in error.message
    assert "hint: Links that lead out" in error.message


def test_what_is_said_to_a_wrong_answer_may_depend_on_it(tmp_path: Path) -> None:
    async def tell(state: Any, scores: Any) -> str:
        return f"{scores[0].value}: not {state.output.completion}"

    agent = scripted([{"text": "41"}], [{"text": "{message}, so 42"}], attempts=AgentAttempts(2, tell))
    assert only(evaluate(tmp_path, agent)).output.completion == "I: not 41, so 42"


def test_a_later_agent_of_the_sample_goes_on_with_the_session(tmp_path: Path) -> None:
    agent = scripted([write("a.txt", "first")], [READ, {"text": "I remember: {user}; 42"}])
    solver = [as_solver(agent), user_message("and now?"), as_solver(agent)]
    sample = only(evaluate(tmp_path, solver))
    assert sample.error is None
    assert texts(sample)[-2:] == [("tool", "first"), ("assistant", "I remember: hi; 42")]


def test_a_key_in_what_an_engine_says_of_its_failure_is_in_no_log(tmp_path: Path) -> None:
    key = "sk-ant-api03-" + "Ab3dEf6h" * 8
    log = evaluate(tmp_path, scripted([{"raise": f"401: {key} is no key"}]))
    error = only(log).error
    assert error is not None
    assert "is no key" in error.message
    assert key not in log.model_dump_json()


def test_an_agent_that_fails_is_an_error_of_the_sample(tmp_path: Path) -> None:
    log = evaluate(tmp_path, scripted([{"text": "so far"}, {"raise": "the engine broke"}]))
    assert log.status == "error"
    sample = only(log)
    assert sample.error is not None
    assert "the engine broke" in sample.error.message
    assert ("assistant", "so far") in texts(sample)


@pytest.mark.parametrize(("limit", "kind"), [({"token_limit": 10}, "token"), ({"message_limit": 4}, "message")])
def test_limits_of_the_sample_hold_for_an_engine_with_a_provider_of_its_own(
    tmp_path: Path, limit: dict[str, int], kind: str
) -> None:
    step = {"usage": {"input_tokens": 4, "output_tokens": 2}}
    turn = [write("out.txt", "kept"), step, step, {"text": "more"}, {"text": "42"}]
    log = evaluate(tmp_path, scripted(turn), scorer=has_file("out.txt", "kept"), **limit)
    sample = only(log)
    assert sample.limit is not None
    assert sample.limit.type == kind
    assert "42" not in sample.output.completion
    assert sample.scores is not None  # what was done until then is scored
    assert sample.scores["has_file"].value == "C"


def test_a_spent_budget_is_a_limit(tmp_path: Path) -> None:
    agent = scripted([{"usage": {"cost_usd": 2.0}}, ANSWER], budget_max_usd=1.0)
    sample = only(evaluate(tmp_path, agent))
    assert sample.limit is not None
    assert (sample.limit.type, sample.limit.limit) == ("cost", 1.0)


@pytest.mark.parametrize(
    ("given", "limits", "kind"),
    [({}, {"token_limit": 10}, "token"), ({"budget_max_usd": 1.0}, {}, "cost")],
)
def test_limits_and_the_budget_are_those_of_the_sample_not_of_each_run_in_it(
    tmp_path: Path, given: dict[str, Any], limits: dict[str, Any], kind: str
) -> None:
    step = {"usage": {"input_tokens": 4, "output_tokens": 2, "cost_usd": 0.7}}
    agent = scripted([step, {"text": "one"}], [step, {"text": "two"}], **given)
    solver = [as_solver(agent), user_message("and now?"), as_solver(agent)]
    sample = only(evaluate(tmp_path, solver, **limits))
    assert sample.limit is not None
    assert sample.limit.type == kind
    assert ("assistant", "one") in texts(sample)


def test_a_sample_that_runs_out_of_time_ends_the_agent(tmp_path: Path) -> None:
    sample = only(evaluate(tmp_path, scripted([{"text": "I wait."}, {"delay": 300}]), time_limit=1))
    assert sample.limit is not None
    assert sample.limit.type == "time"
    assert ("assistant", "I wait.") in texts(sample)


def test_parallel_samples_have_sessions_and_folders_of_their_own(tmp_path: Path) -> None:
    samples = [Sample(id=n, input=f"I am {n}", target=f"{n}: I am {n}", files={"a.txt": str(n)}) for n in range(1, 5)]
    agent = scripted([READ, write("a.txt", "changed"), {"delay": 0.1}, {"text": "{message}"}])
    log = evaluate(tmp_path, agent, samples=samples, max_samples=4)
    assert log.status == "success"
    assert log.samples is not None
    assert [next(m.text for m in each.messages if m.role == "tool") for each in log.samples] == ["1", "2", "3", "4"]
    assert len({each.store["ComputerAgentRun:session_id"] for each in log.samples}) == 4


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    source = {"type": "inline", "manifest": {"name": "x", "version": "1.0.0", "description": "x"}}
    evaluate(tmp_path / "logs", scripted([write("a.txt"), ANSWER], source=source))
    gc.collect()
    assert list(scratch.glob("computeragent-*")) == []
    assert list(home("work").iterdir()) == []


def test_sessions_are_recorded_where_asked(tmp_path: Path) -> None:
    log = SqliteEventLog()
    sample = only(evaluate(tmp_path, scripted([ANSWER], event_log=log)))
    recorded = asyncio.run(log.sessions(9))
    asyncio.run(log.close())
    assert [each.session_id for each in recorded] == [sample.store["ComputerAgentRun:session_id"]]


def test_no_secret_reaches_inspects_log(tmp_path: Path) -> None:
    options = {"script": [[ANSWER]], "mcp_servers": {"x": {"headers": {"Authorization": "Bearer hunter2-hunter2"}}}}
    policy = {"kind": "rules", "text": "version: 1\nrules: [{name: all, effect: allow}]\n# Bearer hunter3-hunter3\n"}
    manifest = {"name": "x", "version": "1.0.0", "description": "x"}
    agent = computeragent_agent(
        engine="scripted",
        options=options,
        policy=policy,
        envs={"MY_KEY": "sesame-open-123"},
        source={"type": "inline", "manifest": manifest, "files": {"a.txt": "plain-of-the-source"}},
        attachments=[{"path": "b.txt", "content": "plain-of-the-attachment"}],
    )
    log = evaluate(tmp_path, agent, log_format="json")
    assert log.status == "success"
    written = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert "MY_KEY=***" in written
    assert "sesame-open-123" not in written
    assert "hunter2-hunter2" not in written
    assert "hunter3-hunter3" not in written
    assert "plain-of-the" not in written
    assert "b.txt" in written


def test_the_user_of_an_ssh_address_is_no_key() -> None:
    computeragent_agent(source="ssh://git@host.example/x.git")


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"engine": "clode"}, UnknownEngineError, "clode"),
        ({"engine": "scripted", "attempts": 0}, ValidationError, "attempts must be 1 or more"),
        ({"engine": "scripted", "bridged_tools": [BridgedToolsSpec("x", [])]}, ValidationError, "bridged_tools need"),
        ({"runtime": "nosuch"}, UnknownSubstrateError, "nosuch"),
        ({"policy": {"kind": "nosuch"}}, ValidationError, "policy.kind names no kind"),
        ({"session_store": {"kind": 1}}, ValidationError, "not a session store"),
        ({"attachments": [{"path": "x"}]}, ValidationError, "not an attachment"),
        ({"source": {"type": "nosuch"}}, ValidationError, "source type 'nosuch' is not known"),
        ({"source": "https://me:secret@host/x.git"}, ValidationError, "has a key in it"),
        ({"source": {"type": "git", "url": "https://secret@host/x.git"}}, ValidationError, "has a key in it"),
        ({"source": "ssh://git:secret@host/x.git"}, ValidationError, "has a key in it"),
    ],
)
def test_what_cannot_work_is_refused_when_the_agent_is_made(
    given: dict[str, Any], kind: type[ComputerAgentError], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised:
        computeragent_agent(**given)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize(
    ("messages", "given", "said"),
    [
        ([ChatMessageUser(content="x"), ChatMessageAssistant(content="y")], {}, "ends with the assistant's message"),
        ([ChatMessageUser(content=[ContentAudio(audio=SOUND, format="mp3")])], {}, "else than text: audio"),
        (
            [ChatMessageUser(content=[ContentText(text="x"), ContentAudio(audio=SOUND, format="mp3")])],
            {},
            "else than text: audio",
        ),
        ([ChatMessageUser(content="x")], {"cwd": "nowhere"}, "'nowhere' is no folder"),
        ([ChatMessageUser(content="x")], {"source": "/no/such/folder"}, "does not exist"),
        ([ChatMessageUser(content="x")], {"sandbox": "other"}, "other"),
    ],
)
def test_what_only_the_sample_shows_is_an_error_of_it(
    tmp_path: Path, messages: list[Any], given: dict[str, Any], said: str
) -> None:
    log = evaluate(tmp_path, scripted([ANSWER], **given), samples=[Sample(input=messages, target="42")])
    assert log.status == "error"
    error = only(log).error
    assert error is not None
    assert said in error.message
