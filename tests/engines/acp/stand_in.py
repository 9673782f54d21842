#!/usr/bin/env python3
"""A stand-in of an agent program that speaks the Agent Client Protocol over stdio, as gemini or opencode do.

It does what a plan says, a JSON file that PLAN names: a list of turns, each a list of moves, chosen by the number in
the message, or played one after another. Everything else is the protocol as the real agents speak it: permission
before a call, updates, cancellation, sessions that are loaded again from a folder (HOME).
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

plan = json.loads(Path(os.environ["PLAN"]).read_text())
faults = plan.get("faults", {})
home = Path(os.environ.get("HOME", "."))
lock = threading.Lock()
answers = {}
cancelled = threading.Event()
played = [0]
cwd = [str(Path.cwd())]


def send(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def update(session, what, **fields):
    send({"method": "session/update", "params": {"sessionId": session, "update": {"sessionUpdate": what, **fields}}})


def ask(session, call):
    event, number = threading.Event(), f"ask-{call['toolCallId']}"
    answers[number] = [event, None]
    options = plan.get("options", ["allow_once", "allow_always", "reject_once"])
    offered = [{"optionId": kind, "name": kind, "kind": kind} for kind in options]
    send(
        {
            "id": number,
            "method": "session/request_permission",
            "params": {"sessionId": session, "toolCall": call, "options": offered},
        }
    )
    event.wait()
    return answers.pop(number)[1]


def write(session, move, number):
    path, content = move["write"]
    call = {"toolCallId": f"call-{played[0]}-{number}", "kind": "edit", "title": f"Write {path}", "status": "pending"}
    call["rawInput"] = {"file_path": path, "content": content}
    update(session, "tool_call", **{**call, "rawInput": {}})
    update(session, "tool_call_update", toolCallId=call["toolCallId"], rawInput=call["rawInput"])
    outcome = {"outcome": "selected", "optionId": "allow_once"} if move.get("unasked") else ask(session, call)
    if move.get("twice"):
        outcome = ask(session, call)
    if outcome["outcome"] == "cancelled":
        raise InterruptedError
    if not outcome["optionId"].startswith("allow") and not move.get("anyhow"):
        update(session, "tool_call_update", toolCallId=call["toolCallId"], status="failed")
        return
    Path(cwd[0], path).write_text(content)
    done = [{"type": "content", "content": {"type": "text", "text": f"wrote {path}"}}]
    update(session, "tool_call_update", toolCallId=call["toolCallId"], status="completed", content=done)


def make(session, move, number):
    if "say" in move:
        for piece in re.findall(r"(?s).{1,7}", move["say"]):
            update(session, "agent_message_chunk", content={"type": "text", "text": piece})
    elif "think" in move:
        update(session, "agent_thought_chunk", content={"type": "text", "text": move["think"]})
    elif "plan" in move:
        update(session, "plan", entries=[{"content": move["plan"], "priority": "high", "status": "pending"}])
    elif "write" in move:
        write(session, move, number)
    elif "wait" in move:
        if cancelled.wait(move["wait"]):
            raise InterruptedError
    elif "deaf" in move:
        time.sleep(move["deaf"])
    elif "spend" in move:
        update(session, "usage_update", used=1, size=2, cost={"amount": move["spend"], "currency": "USD"})
    elif "noise" in move:
        with lock:
            sys.stdout.write(move["noise"] + "\n")
            sys.stdout.flush()
    elif "child" in move:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    elif "stranger" in move:
        program = ["/bin/sleep", "60"]
        stranger = subprocess.Popen(program, start_new_session=True, env={}, stdin=0, stdout=subprocess.DEVNULL)
        (home / "stranger").write_text(str(stranger.pid))
    elif "call" in move:
        update(session, **{"what": "tool_call_update", **move["call"]})
    elif "die" in move:
        sys.stderr.write(move["die"])
        sys.stderr.flush()
        os._exit(3)


def turn(number, params):
    session = params["sessionId"]
    text = "\n".join(block.get("text", "") for block in params["prompt"])
    found = re.search(r"conformance turn (\d+)", text)
    turns = plan.get("turns", [])
    index = int(found[1]) if found else played[0]
    moves = turns[index] if index < len(turns) else [{"say": f"You said: {text}"}]
    played[0] += 1
    with (home / f"{session}.log").open("a") as log:
        log.write(text + "\n")
    try:
        for place, move in enumerate(moves):
            if cancelled.is_set():
                raise InterruptedError
            if "refuse" in move:
                send({"id": number, "error": {"code": -32603, "message": move["refuse"]}})
                return
            if "answer" in move:
                send({"id": number, **move["answer"]})
                return
            make(session, move, place)
        reason = "end_turn"
    except InterruptedError:
        reason = "cancelled"
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    send({"id": number, "result": {"stopReason": reason, "usage": usage}})


def answer(number, method, params):
    if method in faults.get("mute", []):
        return
    if method in faults.get("refuse", {}):
        send({"id": number, "error": faults["refuse"][method]})
        return
    if method in faults.get("die", []):
        sys.stderr.write(f"cannot {method}: the key {os.environ.get('ANTHROPIC_API_KEY', '')} is of no use\n")
        sys.stderr.flush()
        os._exit(7)
    if method == "initialize":
        capabilities = {"loadSession": plan.get("loads", True), "promptCapabilities": {"image": False}}
        capabilities["mcpCapabilities"] = {"http": plan.get("urls", False)}
        send({"id": number, "result": {"protocolVersion": plan.get("version", 1), "agentCapabilities": capabilities}})
    elif method == "session/new":
        cwd[0] = params["cwd"]
        session = f"own-{os.getpid()}-{number}"
        (home / f"{session}.new").write_text(json.dumps(params))
        modes = [{"id": each, "name": each} for each in plan.get("modes", [])]
        state = {"modes": {"currentModeId": modes[0]["id"], "availableModes": modes}} if modes else {}
        send({"id": number, "result": {"sessionId": session, **state}})
    elif method == "session/load":
        cwd[0] = params["cwd"]
        log = home / f"{params['sessionId']}.log"
        if not log.is_file():
            send({"id": number, "error": {"code": -32002, "message": "no such session"}})
            return
        for line in log.read_text().splitlines():
            update(params["sessionId"], "agent_message_chunk", content={"type": "text", "text": f"(replayed) {line}"})
        send({"id": number, "result": {}})
    elif method == "session/set_mode":
        (home / "mode").write_text(params["modeId"])
        send({"id": number, "result": {}})
    elif method == "session/prompt":
        cancelled.clear()
        threading.Thread(target=turn, args=(number, params), daemon=True).start()
    else:
        send({"id": number, "error": {"code": -32601, "message": "Method not found"}})


sys.stderr.write("stand-in is up\n")
sys.stderr.flush()
for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        waiting = answers.get(message["id"])
        if waiting is not None:
            waiting[1] = message.get("result", {}).get("outcome", {"outcome": "cancelled"})
            waiting[0].set()
    elif message["method"] == "session/cancel":
        cancelled.set()
    elif "id" in message:
        answer(message["id"], message["method"], message["params"])
if faults.get("stays"):
    time.sleep(600)
