"""Recorded calls: from the session log, from files of sinks, and from a server; with rows that make no sense."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest
from tests.policy.recordings import all_of, record, step
from tests.server.conftest import TOKEN, serving

from computeragent.client import HarnessClient
from computeragent.client.recorded_calls import ServerCalls
from computeragent.errors import ValidationError
from computeragent.policy.recorded import FileCalls, LogCalls, Wanted
from computeragent.protocol_types import PermissionRequest, PolicyVerdict
from computeragent.telemetry.config import configure, shutdown
from computeragent.telemetry.sinks.audit_file import AuditFileSink
from computeragent.telemetry.sinks.jsonl import JsonlSink

pytestmark = pytest.mark.anyio
WRITE = step("Write", file_path="a.txt", content="x")
RULES = "version: 1\nrules:\n- {name: no-rm, effect: deny, reason: no, match: {tool: Bash, commands: [rm]}}\n"
RULES += "- {name: rest, effect: allow}\n"


async def test_calls_of_sessions_come_back_with_what_was_decided(tmp_path: Path) -> None:
    policy = {"kind": "rules", "text": RULES}
    session = await record(
        tmp_path / "shop", WRITE, step("Bash", command="rm -r build"), policy=policy, principal="ann", model="m1"
    )
    wrote, removed = sorted(await all_of(LogCalls()), key=lambda call: call.tool, reverse=True)
    assert (wrote.tool, wrote.input, wrote.decision, wrote.ran) == ("Write", WRITE["input"], "allow", True)
    assert (wrote.session_id, wrote.engine, wrote.model) == (session, "scripted", "m1")
    assert (wrote.cwd, wrote.principal) == (str(tmp_path / "shop"), "ann")
    assert (wrote.policy, wrote.rule, wrote.decided_by) == ("rules", "rest", "policy")
    assert wrote.at is not None
    assert abs(wrote.at - time.time()) < 60
    assert (removed.decision, removed.rule, removed.reason, removed.ran) == ("deny", "no-rm", "no", None)


async def test_a_changed_call_comes_with_the_input_that_was_asked_for(tmp_path: Path) -> None:
    async def change(request: PermissionRequest) -> PolicyVerdict:
        safe = request.input | {"content": "safe"}
        return PolicyVerdict("allow") if request.input == safe else PolicyVerdict("modify", input=safe)

    await record(tmp_path / "shop", WRITE, policy=change)
    (call,) = await all_of(LogCalls())
    assert call.decision == "modify"
    assert call.input == WRITE["input"]
    assert call.changed == {"file_path": "a.txt", "content": "safe"}
    assert (tmp_path / "shop" / "a.txt").read_text() == "safe"


async def test_calls_are_chosen_by_time_session_agent_and_tool(tmp_path: Path) -> None:
    first = await record(tmp_path / "one", WRITE)
    await record(tmp_path / "two", WRITE, step("Read", file_path="a.txt"))

    async def found(**wanted: object) -> list[tuple[str, str]]:
        return sorted([(call.agent, call.tool) for call in await all_of(LogCalls(None, Wanted(**wanted)))])  # type: ignore[arg-type]

    assert await found() == [("one", "Write"), ("two", "Read"), ("two", "Write")]
    assert await found(sessions=(first[:-4],)) == [("one", "Write")]
    assert await found(agents=("two",)) == [("two", "Read"), ("two", "Write")]
    assert await found(tools=("read",)) == [("two", "Read")]
    assert await found(since=time.time() - 60) == await found()
    assert await found(since=time.time() + 60) == []


async def test_a_recording_can_be_read_again_and_odd_rows_are_counted(tmp_path: Path, state_folder: Path) -> None:
    for number in range(2):
        await record(tmp_path / f"w{number}", WRITE, WRITE, WRITE)
    with sqlite3.connect(state_folder / "sessions.db") as db:
        rows = db.execute("SELECT session_id, id, data FROM log_events").fetchall()
        ids = [row[:2] for row in rows if b"ca_permission_decision" in row[2]]
        for data, place in zip((b"{not json", b'{"kind":"ca_permission_decision"}'), ids[:2], strict=True):
            db.execute("UPDATE log_events SET data = ? WHERE session_id = ? AND id = ?", (data, *place))
        nameless = b'{"kind":"ca_permission_decision","sessionId":"s","callId":"c","decision":"allow"}'
        db.execute("UPDATE log_events SET data = ? WHERE session_id = ? AND id = ?", (nameless, *ids[2]))
    calls = LogCalls()
    for _ in range(2):
        assert len(await all_of(calls)) == 3
        assert calls.skipped == {"an event that cannot be read": 2, "a decision without its call": 1}


async def test_a_session_of_many_pages_is_read_whole(tmp_path: Path) -> None:
    await record(tmp_path / "shop", *[step("Bash", command=f"echo {n}") for n in range(600)])
    calls = await all_of(LogCalls())
    assert [call.input["command"] for call in calls] == [f"echo {n}" for n in range(600)]


async def test_a_call_without_a_result_did_not_run(tmp_path: Path, state_folder: Path) -> None:
    await record(tmp_path / "shop", WRITE, step("Bash", command="ls"))
    with sqlite3.connect(state_folder / "sessions.db") as db:
        rows = db.execute("SELECT session_id, id, data FROM log_events ORDER BY id").fetchall()
        last = [row for row in rows if b'"tool_result"' in row[2]][-1]
        cut = last[2].replace(b"tool_result", b"tool_vanish")
        db.execute("UPDATE log_events SET data = ? WHERE session_id = ? AND id = ?", (cut, *last[:2]))
    assert [(call.tool, call.ran) for call in await all_of(LogCalls())] == [("Write", True), ("Bash", False)]


async def test_files_of_sinks_hold_the_same_calls_redacted(tmp_path: Path) -> None:
    lines, audit = tmp_path / "events.jsonl", tmp_path / "audit.jsonl"
    mail = step("Write", file_path="a.txt", content="write to bob@example.com")
    configure(sinks=[JsonlSink(lines), AuditFileSink(audit)])
    try:
        await record(tmp_path / "shop", mail, step("Bash", command="ls"))
    finally:
        await shutdown()
    for file in (lines, audit):
        calls = FileCalls(file)
        wrote, listed = await all_of(calls)
        assert (wrote.tool, wrote.decision, wrote.engine, wrote.redacted) == ("Write", "allow", "scripted", True)
        assert wrote.input == {"file_path": "a.txt", "content": "write to [REDACTED:EMAIL]"}
        assert (listed.input, listed.cwd) == ({"command": "ls"}, str(tmp_path / "shop"))
        assert not calls.skipped
        assert not await all_of(FileCalls(file, Wanted(since=time.time() + 60)))


async def test_lines_that_make_no_sense_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    told = {"kind": "policy_decision", "session_id": "s", "timestamp": "soon", "payload": {}}
    good = {"tool_name": "Bash", "tool_input": {"command": "ls"}, "decision": "allow"}
    rows = [
        json.dumps(told | {"payload": good}),
        json.dumps(told),
        json.dumps(told | {"payload": good | {"decision": "perhaps"}}),
        json.dumps(told | {"payload": [1]}),
        '{"kind": "policy_decision"',
        "oops",
        "",
        json.dumps({"kind": "usage_snapshot", "payload": 5}),
    ]
    file.write_text("\n".join(rows))
    calls = FileCalls(file)
    (call,) = await all_of(calls)
    assert (call.tool, call.at, call.cwd) == ("Bash", None, None)
    assert calls.skipped == {"a decision without its call": 3, "a line that is no JSON object": 2}
    with pytest.raises(ValidationError, match="cannot be read: No such file"):
        await all_of(FileCalls(tmp_path / "none.jsonl"))


async def test_a_server_tells_the_calls_of_ones_own_sessions(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        own = {"policy": {"kind": "rules", "text": RULES}}
        kept = own | {"sessionStore": {"kind": "sqlite"}}
        one = await server.open([WRITE], [step("Bash", command="ls")], sessionId="one", **own)
        for text in ("go", "on"):
            await server.say(one, text)
        await server.events(one, lambda event: event["kind"] == "ca_permission_decision" and event["turnIndex"] == 1)
        two = await server.open([step("Read", file_path="b")], [], sessionId="two", **kept)
        await server.say(two, "go")
        await server.client.post("/v1/sessions/two/end-input")
        await server.events(two)
        await server.open([], [step("Glob", pattern="*")], sessionId="two", **kept)
        await server.say(two, "again")
        await server.events(two, lambda event: event["kind"] == "ca_permission_decision")
        async with HarnessClient(base_url=server.url, token=TOKEN) as client:
            calls = ServerCalls(client)
            found = await all_of(calls)
            only = await all_of(ServerCalls(client, Wanted(sessions=("one",), tools=("Bash",))))
    assert sorted((call.session_id, call.tool) for call in found) == [
        ("one", "Bash"),
        ("one", "Write"),
        ("two", "Glob"),
        ("two", "Read"),
    ]
    assert {call.agent for call in found} == {"tester"}
    assert all(call.at is None and call.cwd for call in found)
    assert [call.tool for call in only] == ["Bash"]
    assert not calls.skipped


async def test_what_a_policy_asked_people_is_on_record(tmp_path: Path) -> None:
    policy = {"kind": "rules", "text": "version: 1\nrules: [{name: look, effect: ask, match: {tool: Write}}]\n"}
    await record(tmp_path / "shop", WRITE, policy=policy, on_tool_call=lambda _: True)
    (call,) = await all_of(LogCalls())
    assert (call.decision, call.decided_by, call.rule) == ("allow", "callback", "look")
