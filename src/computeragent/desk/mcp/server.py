"""The MCP server: which tools there are, what a call answers, and the bounds of a session."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server

from computeragent._version import __version__
from computeragent.computer.kinds import open_computer
from computeragent.computer.spec import ComputerSpec
from computeragent.computer.types import HasNotices, Screenshot
from computeragent.desk.mcp import params
from computeragent.desk.mcp.holder import Holder
from computeragent.desk.mcp.task import run_task
from computeragent.desk.mcp.tools import Answer, Tool, offered
from computeragent.desk.screen import Open
from computeragent.errors import ComputerActionError, ComputerAgentError, TooManySessionsError, UnknownModelError
from computeragent.logs import Logger

RUN_TASK = "run_task"
_CALL = 120.0
"""Seconds that one call of a tool may take, beside what a command may."""
_log = Logger("desk.mcp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a session may use: tool calls, seconds until an idle computer is let go, and what a task may take."""

    max_calls: int = 10_000
    idle: float = 900.0
    max_steps: int = 100
    deadline: float = 900.0
    max_images: int | None = None


_BOUNDS = Bounds()


class Desk:
    """The tools of one session."""

    def __init__(
        self,
        open_: Open,
        kind: str,
        *,
        model: str | None = None,
        allow_shell: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
        self.holder = Holder(open_, idle=(bounds or Bounds()).idle)
        self._model = model
        self._bounds = bounds or Bounds()
        self._tools = {tool.name: tool for tool in offered(kind, allow_shell=allow_shell)}
        self._calls = 0

    def server(self) -> Server[Any]:
        """The server, to be run on a pair of streams."""
        return Server(
            "computeragent",
            version=__version__,
            instructions="A computer: take a screenshot, act, look again. One thing at a time.",
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(self, ctx: ServerRequestContext[Any], asked: object) -> types.ListToolsResult:
        del ctx, asked
        told = [_described(tool) for tool in self._tools.values()]
        if self._model is not None:
            told.append(
                types.Tool(
                    name=RUN_TASK,
                    description="Have a computer-use agent do a task on this computer, and say how it went. It takes "
                    "minutes; progress is told, and cancelling stops it.",
                    input_schema=params.schema_of(params.Task),
                )
            )
        return types.ListToolsResult(tools=told)

    async def _call(self, ctx: ServerRequestContext[Any], asked: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            self._calls += 1
            if self._calls > self._bounds.max_calls:
                raise TooManySessionsError(
                    f"this session has had its {self._bounds.max_calls} calls", hint="Start another."
                )
            if asked.name == RUN_TASK:
                return await self._task(ctx, asked.arguments or {})
            tool = self._tools.get(asked.name)
            if tool is None:
                hint = f"There are {', '.join(self._tools)}."
                raise ComputerActionError(f"there is no tool {asked.name[:80]!r}", hint=hint)
            return _answered(await self._use(tool, asked.arguments or {}))
        except ComputerAgentError as error:
            return _refused(error)
        except Exception as error:  # noqa: BLE001 - the client is told, and the session goes on
            _log.error("tool_failed", tool=asked.name, error=repr(error))
            return _refused(ComputerAgentError("internal error", hint="See the log of this command."))

    async def _use(self, tool: Tool, arguments: dict[str, Any]) -> list[Answer]:
        async with self.holder.using() as computer:
            try:
                async with asyncio.timeout(_CALL + float(arguments.get("timeout") or 0)):
                    answer = await tool.call(computer, arguments)
            except TimeoutError:
                raise ComputerActionError(f"{tool.name} took too long", hint="Take a screenshot.") from None
            if isinstance(computer, HasNotices):
                return [*(f"Note: {note}" for note in computer.take_notices()), *answer]
            return answer

    async def _task(self, ctx: ServerRequestContext[Any], arguments: dict[str, Any]) -> types.CallToolResult:
        if self._model is None:
            raise UnknownModelError("there is no model for tasks", hint="Set CUA_MODEL_NAME, or use --model.")
        given: params.Task = params.parse(arguments, params.Task)
        steps = 0

        async def progress(line: str) -> None:
            nonlocal steps
            steps += 1
            await ctx.session.report_progress(steps, message=line)

        async with self.holder.using("a task") as computer:
            outcome = await run_task(
                computer,
                given.task,
                model=self._model,
                max_steps=min(given.max_steps or self._bounds.max_steps, self._bounds.max_steps),
                deadline=self._bounds.deadline,
                max_images=self._bounds.max_images,
                progress=progress,
            )
        text = types.TextContent(type="text", text=outcome.text)
        return types.CallToolResult(content=[text], is_error=outcome.failed)


async def serve_stdio(spec: ComputerSpec, *, model: str | None, allow_shell: bool, bounds: Bounds) -> None:
    """Speak MCP on standard input and output, until the client closes its end. Nothing else is written there."""
    desk = Desk(partial(open_computer, spec), spec.kind, model=model, allow_shell=allow_shell, bounds=bounds)
    server = desk.server()
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await desk.holder.close()


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.schema,
        annotations=types.ToolAnnotations(read_only_hint=tool.reads, destructive_hint=tool.guarded and not tool.reads),
    )


def _answered(answer: list[Answer]) -> types.CallToolResult:
    content: list[types.ContentBlock] = []
    for each in answer:
        if isinstance(each, Screenshot):
            content.append(types.ImageContent(type="image", data=each.base64, mime_type=each.media_type))
        else:
            content.append(types.TextContent(type="text", text=each))
    return types.CallToolResult(content=content)


def _refused(error: ComputerAgentError) -> types.CallToolResult:
    text = f"{error.message}. {error.hint}" if error.hint else error.message
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)
