"""Who answers a tool call: the caller's callback, a person at the terminal, or the library default."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TextIO, cast

import msgspec

from computeragent.harness.permissions import parse_decision
from computeragent.logs import Logger
from computeragent.protocol_types import PermissionRequest, ToolCallback
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.requests import PermissionDecision

_ORDER = ["low", "medium", "high", "destructive"]
_SHOWN = 400
_log = Logger("approval")


def tty_approval(
    *,
    risk_gate: Literal["low", "medium", "high", "destructive", "none"] = "destructive",
    default_decision: Literal["allow", "deny"] = "deny",
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> Callable[[PermissionRequest], Awaitable[PermissionDecision]]:
    """An `on_tool_call` that asks at the terminal.

    Calls of a risk strictly below `risk_gate` are allowed unasked; ``none`` asks for every call, as does a call
    without a risk. Answers: ``a`` allow, ``d`` deny, ``m`` modify (then one line of JSON), Enter for
    `default_decision`; the end of input denies. One call is asked at a time.
    """
    turn = asyncio.Lock()

    async def ask(request: PermissionRequest) -> PermissionDecision:
        if _below(request.risk, risk_gate):
            return PermissionDecision(decision="allow")
        async with turn:
            return await asyncio.to_thread(_prompt, request, default_decision, stdin or sys.stdin, stdout or sys.stdout)

    return ask


def describe(request: PermissionRequest) -> str:
    """A call in one line: the shell command, the file, or the input as JSON; cut to 400 characters."""
    shown = request.input.get("command") or request.input.get("file_path") or to_json(request.input).decode()
    text = " ".join(str(shown).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _below(risk: str | None, gate: str) -> bool:
    return risk is not None and gate != "none" and _ORDER.index(risk) < _ORDER.index(gate)


def _prompt(request: PermissionRequest, default: str, stdin: TextIO, stdout: TextIO) -> PermissionDecision:
    print(f"\n{request.tool_name} ({request.risk or 'unknown'} risk): {describe(request)}", file=stdout)
    while True:
        print(f"[a]llow, [d]eny, [m]odify (Enter: {default})? ", end="", file=stdout, flush=True)
        line = stdin.readline()
        answer = line.strip().lower()
        if not line:
            return PermissionDecision(decision="deny", reason="no answer at the terminal")
        if not answer:
            answer = default
        if answer in {"a", "allow"}:
            return PermissionDecision(decision="allow")
        if answer in {"d", "deny"}:
            return PermissionDecision(decision="deny", reason="denied at the terminal")
        if answer in {"m", "modify"}:
            changed = _read_input(stdin, stdout)
            if changed is not None:
                return PermissionDecision(decision="modify", input=changed)


def _read_input(stdin: TextIO, stdout: TextIO) -> dict[str, Any] | None:
    print("new input as one line of JSON: ", end="", file=stdout, flush=True)
    try:
        value = from_json(stdin.readline())
    except msgspec.DecodeError as error:
        print(f"not JSON: {error}", file=stdout)
        return None
    if not isinstance(value, dict):
        print("the input must be a JSON object", file=stdout)
        return None
    return cast("dict[str, Any]", value)


async def default_answer(
    request: PermissionRequest, callback: ToolCallback | None, *, policy_bound: bool
) -> tuple[PermissionDecision, str]:
    """The answer when nobody answered by hand: the callback's, else the library default.

    A callback that raises or returns nonsense denies. The default allows, except where a policy left the call
    open and except calls of risk class `destructive`.
    """
    if callback is not None:
        try:
            answer: Any = callback(request)
            if inspect.isawaitable(answer):
                answer = await answer
            return parse_decision(answer), "callback"
        except Exception as error:  # noqa: BLE001 - a failing callback denies
            _log.error("on_tool_call_failed", tool=request.tool_name, error=repr(error))
            return PermissionDecision(decision="deny", reason=f"on_tool_call failed: {type(error).__name__}"), "fault"
    if policy_bound:
        return PermissionDecision(decision="deny", reason="the policy asks, and nobody answers"), "default"
    if request.risk == "destructive":
        reason = "destructive calls are denied by default; pass on_tool_call= or policy= to decide them"
        return PermissionDecision(decision="deny", reason=reason), "default"
    return PermissionDecision(decision="allow"), "default"
