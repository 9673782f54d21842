"""The tools: their names, what they take, which computers have them, and what they do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from computeragent.computer import actions
from computeragent.computer.actions import perform
from computeragent.computer.keys import keys, split_combo
from computeragent.computer.types import (
    Computer,
    HasClipboard,
    HasFiles,
    HasPages,
    HasShell,
    HasWindows,
    Screenshot,
)
from computeragent.desk.mcp import params
from computeragent.errors import ComputerUnsupportedError

Answer = str | Screenshot
Do = Callable[[Any, Any], Awaitable[str]]
"""Does it, given the computer and the arguments; returns what to say."""
_MOST = 30_000
_LOOK: dict[str, Any] = {
    "type": "boolean",
    "default": True,
    "description": "Answer with a screenshot once the screen has settled.",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `needs` is the protocol of a computer that has it; `guarded` ones need `--allow-shell`.

    With `looks`, the answer has a screenshot unless `look` is false.
    """

    name: str
    description: str
    takes: Any
    do: Do
    needs: Any = None
    guarded: bool = False
    looks: bool = False
    reads: bool = False
    """Changes nothing."""

    @property
    def schema(self) -> dict[str, Any]:
        """What it takes, as a JSON schema."""
        return params.schema_of(self.takes, hidden=("action",), **({"look": _LOOK} if self.looks else {}))

    async def call(self, computer: Computer, arguments: dict[str, Any]) -> list[Answer]:
        """Do it. Raises `ComputerAgentError`."""
        given = dict(arguments)
        looks = self.looks and given.pop("look", True) is not False
        if self.needs is not None and not isinstance(computer, self.needs):
            raise ComputerUnsupportedError(f"this computer of kind {computer.kind} has no {self.name}")
        if issubclass(self.takes, actions.Action):
            given["action"] = self.takes.__struct_config__.tag
            value: Any = actions.parse_action(given)
        else:
            value = params.parse(given, self.takes)
        said = await self.do(computer, value)
        if not looks:
            return [said] if said else ["Done."]
        await computer.settle()
        return [*([said] if said else ()), await computer.screenshot()]


def offered(kind: str, *, allow_shell: bool) -> list[Tool]:
    """The tools of a kind of computer."""
    made = _class_of(kind)
    return [
        tool
        for tool in TOOLS
        if (allow_shell or not tool.guarded) and (tool.needs is None or made is None or issubclass(made, tool.needs))
    ]


def _class_of(kind: str) -> type | None:
    """The class of a kind; None where it cannot be told before it is there."""
    where = {"x11": "X11Computer", "browser": "BrowserComputer", "remote": "RemoteComputer"}
    try:
        return getattr(import_module(f"computeragent.computer.{kind}"), where[kind])
    except Exception:  # noqa: BLE001 - what is missing is told when the computer is opened
        return None


# ── What they do ──


async def _act(computer: Computer, action: actions.Action) -> str:
    await perform(computer, action)
    return ""


async def _key(computer: Computer, given: params.Key) -> str:
    pressed = split_combo(given.keys) if isinstance(given.keys, str) else keys(given.keys)
    await computer.keypress(pressed, repeat=given.repeat)
    return ""


async def _where(computer: Computer, given: object) -> str:
    del given
    x, y = await computer.cursor_position()
    return f"The pointer is at ({x}, {y})."


async def _nothing(computer: Computer, given: object) -> str:
    del computer, given
    return ""


async def _url(computer: Computer, given: object) -> str:
    del given
    return await computer.current_url() or "There is no address."


async def _windows(computer: HasWindows, given: object) -> str:
    del given
    found = await computer.windows()
    lines = (
        f"{each.id}{' (active)' if each.active else ''}: {each.title!r} of {each.program}, "
        f"{each.width}x{each.height} at ({each.x}, {each.y})"
        for each in found
    )
    return _lines(lines, "There are no windows.")


async def _window(computer: HasWindows, given: params.WindowAction) -> str:
    await computer.window_act(given.id, given.act)
    return ""


async def _get_clipboard(computer: HasClipboard, given: object) -> str:
    del given
    return _short(await computer.get_clipboard()) or "The clipboard is empty."


async def _set_clipboard(computer: HasClipboard, given: params.Text) -> str:
    await computer.set_clipboard(given.text)
    return "Done."


async def _run(computer: HasShell, given: params.Command) -> str:
    done = await computer.run_command(given.command, timeout=given.timeout)
    parts = [f"exit status {done.returncode}", _short(done.stdout)]
    return "\n".join(part for part in (*parts, f"stderr:\n{_short(done.stderr)}" if done.stderr else "") if part)


async def _launch(computer: HasWindows, given: params.Program) -> str:
    await computer.launch(given.program, given.arguments)
    return ""


async def _list(computer: HasFiles, given: params.Path) -> str:
    found = await computer.list_dir(given.path)
    return _lines((f"{each.name}/" if each.is_dir else f"{each.name} {each.size}" for each in found), "It is empty.")


async def _read(computer: HasFiles, given: params.Reading) -> str:
    data = await computer.read_file(given.path, offset=given.offset, length=given.length)
    return data.decode("utf-8", "replace")


async def _write(computer: HasFiles, given: params.Writing) -> str:
    await computer.write_file(given.path, given.text.encode("utf-8", "replace"), append=given.append)
    return "Done."


async def _delete(computer: HasFiles, given: params.Path) -> str:
    await computer.delete_file(given.path)
    return "Done."


def _lines(lines: Iterable[str], none: str) -> str:
    return _short("\n".join(lines)) or none


def _short(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}\n… {len(text) - _MOST} more characters"


def _action(kind: Any, name: str, description: str, **more: Any) -> Tool:
    return Tool(name, description, kind, cast("Do", _act), looks=True, **more)


TOOLS: tuple[Tool, ...] = (
    Tool(
        "screenshot",
        "Look at the screen. Every x and y of the other tools is a pixel of this picture, from its top left.",
        params.Nothing,
        _nothing,
        looks=True,
        reads=True,
    ),
    _action(actions.Click, "click", "Click, with count 2 or 3 a double or triple click, while keys are held."),
    _action(actions.Move, "move", "Move the pointer."),
    _action(actions.Drag, "drag", "Press at the first point [x, y] of path, let go at the last."),
    _action(actions.Scroll, "scroll", "Turn the wheel: dx and dy in pixels, positive to the right and down."),
    _action(actions.Type, "type", "Type text, in any script; a newline is Enter."),
    Tool("key", 'Press keys together: "ctrl+c", "Return", ["shift", "Tab"].', params.Key, _key, looks=True),
    _action(actions.Wait, "wait", "Wait, then look.", reads=True),
    Tool("cursor_position", "Where the pointer is.", params.Nothing, _where, reads=True),
    _action(actions.Goto, "goto", "Open an address.", needs=HasPages),
    _action(actions.Back, "back", "Go back in the history.", needs=HasPages),
    Tool("current_url", "The address that the browser shows.", params.Nothing, _url, needs=HasPages, reads=True),
    Tool("windows", "The windows, front to back.", params.Nothing, _windows, needs=HasWindows, reads=True),
    Tool("window", "Do something with a window.", params.WindowAction, _window, needs=HasWindows, looks=True),
    Tool("get_clipboard", "The text in the clipboard.", params.Nothing, _get_clipboard, needs=HasClipboard, reads=True),
    Tool("set_clipboard", "Put text into the clipboard.", params.Text, _set_clipboard, needs=HasClipboard),
    Tool("run_command", "Run a shell command to its end.", params.Command, _run, needs=HasShell, guarded=True),
    Tool("launch", "Start a program.", params.Program, _launch, needs=HasWindows, guarded=True, looks=True),
    Tool("list_dir", "What is in a directory.", params.Path, _list, needs=HasFiles, guarded=True, reads=True),
    Tool("read_file", "A file's text.", params.Reading, _read, needs=HasFiles, guarded=True, reads=True),
    Tool("write_file", "Write a text file.", params.Writing, _write, needs=HasFiles, guarded=True),
    Tool("delete_file", "Delete a file.", params.Path, _delete, needs=HasFiles, guarded=True),
)
"""All of them. `run_task` is the server's own."""
