"""`run_task`: a computer-use agent does a task on the computer, told step by step."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from computeragent.agent import ComputerAgent
from computeragent.chat import ChatHandle
from computeragent.computer.types import Computer
from computeragent.errors import ComputerAgentError, EngineError
from computeragent.wire.events import HarnessEvent, SdkMessage

Progress = Callable[[str], Awaitable[None]]
_CLOSE = 30.0
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended."""

    text: str
    failed: bool


async def run_task(
    computer: Computer,
    task: str,
    *,
    model: str,
    max_steps: int,
    deadline: float,
    max_images: int | None,
    progress: Progress,
) -> Outcome:
    """Have the agent do a task; cancelled, it stops within a step. Raises `ComputerAgentError` when it cannot start."""
    options: dict[str, Any] = {"computer": computer, "max_steps": max_steps, "deadline": deadline}
    if max_images is not None:
        options["only_n_most_recent_images"] = max_images
    with tempfile.TemporaryDirectory(prefix="computeragent-task-", ignore_cleanup_errors=True) as folder:
        agent = ComputerAgent(
            source=Path(folder),
            agent_name="desk",
            engine="computer-use",
            runtime="local",
            model=model,
            options=options,
            approval_timeout=1.0,  # nobody is here to ask
        )
        handle = agent.chat(task)
        try:
            return await _follow(handle, progress)
        finally:
            await _after_all(_end(handle, agent))


async def _follow(handle: ChatHandle, progress: Progress) -> Outcome:
    async for event in handle:
        for line in _told(event):
            await progress(line)
    try:
        result = await handle
    except EngineError as error:
        return Outcome(f"{error.code}: {error.message}", failed=True)
    return Outcome(result.text or "Done.", failed=False)


async def _end(handle: ChatHandle, agent: ComputerAgent) -> None:
    try:
        await handle.cancel()
    except ComputerAgentError:
        pass
    finally:
        await agent.dispose()


async def _after_all(ending: Any) -> None:
    """Let something end though we are cancelled ourselves."""
    task = asyncio.ensure_future(ending)
    cancelled = False
    async with asyncio.timeout(_CLOSE):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise
                cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _told(event: HarnessEvent) -> list[str]:
    """What an event says about the task, in lines."""
    told: object = event.payload if isinstance(event, SdkMessage) else None
    payload = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    message = payload.get("message")
    if payload.get("type") != "assistant" or not isinstance(message, dict):
        return []
    content: object = cast("dict[str, Any]", message).get("content")
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    return [line for block in blocks if isinstance(block, dict) and (line := _line(cast("dict[str, Any]", block)))]


def _line(block: dict[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return _short(str(block.get("text", "")))
        case "tool_use":
            given = dict(cast("dict[str, Any]", block.get("input") or {}))
            name = given.pop("action", block.get("name"))
            return _short(f"{name} {json.dumps(given, ensure_ascii=False)}" if given else str(name))
        case _:
            return ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
