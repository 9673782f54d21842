"""Who answers a tool call: the caller's callback, a person at the terminal, or the library default."""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
import termios
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TextIO, cast

import msgspec

from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.policy.answers import Approver, called
from computeragent.policy.principals import user_name
from computeragent.protocol_types import PermissionRequest, ToolCallback
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.requests import PermissionDecision

_ORDER = ["low", "medium", "high", "destructive"]
_SHOWN = 400
# The one argument that says what these tools are about to do; of any other tool the whole input is shown.
_TELLING = {"Bash": "command", "Read": "file_path", "Write": "file_path", "Edit": "file_path"}
_log = Logger("approval")


def tty_approval(
    *,
    risk_gate: Literal["low", "medium", "high", "destructive", "none"] = "destructive",
    default_decision: Literal["allow", "deny"] = "deny",
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> Callable[[PermissionRequest], Awaitable[PermissionDecision]]:
    """An `on_tool_call` that asks at the terminal.

    Calls of a risk strictly below `risk_gate` are allowed unasked; ``none`` asks for every call. A call without a
    risk is asked for, and so is one for which a policy wants a person's word. Answers: ``a`` allow, ``d`` deny,
    ``m`` modify (then one line of JSON), Enter for `default_decision`; the end of input denies. One call is asked at
    a time. What was typed before the question was shown is no answer to it, and a question that is no longer open
    (the turn was interrupted) is taken back.
    """
    _one_of("risk_gate", risk_gate, [*_ORDER, "none"])
    _one_of("default_decision", default_decision, ["allow", "deny"])
    return _AtTerminal(risk_gate, default_decision, stdin, stdout)


def describe(request: PermissionRequest) -> str:
    """A call in one line: a shell command, a file, or else the whole input as JSON; cut to 400 characters.

    What a terminal would obey or hide (escape sequences, reversed text) is spelled out, and so are line breaks: behind
    one, the words after a ``#`` are a command.
    """
    shown = request.input.get(_TELLING.get(request.tool_name, "")) or to_json(request.input).decode()
    lines = [" ".join(line.split()) for line in str(shown).strip().split("\n")]
    text = printable(r" \n ".join(lines))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… (and {len(text) - _SHOWN:,} characters more)"


def printable(text: str) -> str:
    """Text in which characters that cannot be seen are spelled out, as in a Python string."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _one_of(name: str, value: str, known: list[str]) -> None:
    if value not in known:
        raise ValidationError(f"{name} cannot be {value!r}", hint=f"Use one of: {', '.join(known)}.")


def _below(risk: str | None, gate: str) -> bool:
    return risk is not None and gate != "none" and _ORDER.index(risk) < _ORDER.index(gate)


class _AtTerminal(Approver):
    """Asks at the terminal, and says who was there."""

    def __init__(self, gate: str, default: str, stdin: TextIO | None, stdout: TextIO | None) -> None:
        self._gate = gate
        self._default = default
        self._stdin = stdin
        self._stdout = stdout
        self._turn = asyncio.Lock()

    async def answered(self, request: PermissionRequest) -> tuple[PermissionDecision, str]:
        """The answer, and who gave it: the user at the terminal, or nobody where it was not asked for."""
        if request.policy is None and _below(request.risk, self._gate):
            return PermissionDecision(decision="allow"), "callback"
        async with self._turn:
            terminal = _Terminal(self._stdin or sys.stdin, self._stdout or sys.stdout)
            asking = asyncio.ensure_future(asyncio.to_thread(_prompt, request, self._default, terminal))
            try:
                return await asyncio.shield(asking), f"terminal:{user_name()}"
            except asyncio.CancelledError:
                terminal.hang_up()
                await asyncio.wait({asking}, timeout=1)
                raise


class _Terminal:
    """Where a question is asked. `hang_up` ends the wait for an answer, as the end of input does."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._gone = threading.Event()

    def hang_up(self) -> None:
        self._gone.set()

    def forget(self) -> None:
        """Drop what was typed already."""
        if self._stdin.isatty():
            with contextlib.suppress(termios.error, OSError):
                termios.tcflush(self._stdin, termios.TCIFLUSH)

    def say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._stdout, flush=True)

    def ask(self, question: str) -> str:
        """The line that is typed; empty at the end of input."""
        self.say(question, end="")
        while self._stdin.isatty() and not select.select([self._stdin], [], [], 0.1)[0]:
            if self._gone.is_set():
                self.say("")
                return ""
        return self._stdin.readline()


def _prompt(request: PermissionRequest, default: str, terminal: _Terminal) -> PermissionDecision:
    terminal.forget()
    terminal.say(f"\n{printable(request.tool_name)} ({request.risk or 'unknown'} risk): {describe(request)}")
    if request.reason:
        terminal.say(f"{printable(request.policy or 'policy')}: {printable(request.reason)}")
    while True:
        line = terminal.ask(f"[a]llow, [d]eny, [m]odify (Enter: {default})? ")
        answer = line.strip().lower() or default
        if not line:
            return PermissionDecision(decision="deny", reason="no answer at the terminal")
        if answer in {"a", "allow"}:
            return PermissionDecision(decision="allow")
        if answer in {"d", "deny"}:
            return PermissionDecision(decision="deny", reason="denied at the terminal")
        if answer in {"m", "modify"}:
            changed = _read_input(terminal)
            if changed is not None:
                return PermissionDecision(decision="modify", input=changed)


def _read_input(terminal: _Terminal) -> dict[str, Any] | None:
    try:
        value = from_json(terminal.ask("new input as one line of JSON: "))
    except msgspec.DecodeError as error:
        terminal.say(f"not JSON: {error}")
        return None
    if not isinstance(value, dict):
        terminal.say("the input must be a JSON object")
        return None
    return cast("dict[str, Any]", value)


async def default_answer(request: PermissionRequest, callback: ToolCallback | None) -> tuple[PermissionDecision, str]:
    """The answer when nobody answered by hand: the callback's, else the library default.

    A callback that raises or returns nonsense denies. The default allows, except where a policy wants a person's
    word and except calls of risk class `destructive`.
    """
    if callback is not None:
        return await called(callback, request)
    if request.policy is not None:
        return PermissionDecision(decision="deny", reason="the policy asks, and nobody answers"), "default"
    if request.risk == "destructive":
        reason = "destructive calls are denied by default; pass on_tool_call= or policy= to decide them"
        return PermissionDecision(decision="deny", reason=reason), "default"
    return PermissionDecision(decision="allow"), "default"
