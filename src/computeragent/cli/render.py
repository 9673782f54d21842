"""What a turn looks like at the terminal: the answer as it streams, one line per tool call, the cost at the end."""

from __future__ import annotations

import re
import sys
import time
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from computeragent.approval import describe, printable
from computeragent.protocol_types import PermissionRequest
from computeragent.wire.events import (
    CaPermissionDecision,
    CaSessionEnded,
    CaSessionStarted,
    HarnessEvent,
    SdkMessage,
)
from computeragent.wire.usage import UsageRollup

Json = dict[str, Any]
_RESULT_WIDTH = 100
_PIPE_WIDTH = 200
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a model says must not steer the terminal


def terminal() -> Console:
    """The console of a command: nothing that is printed is markup, and into a pipe lines may be long."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


class TurnView:
    """Prints a turn's events. Text goes out as it comes; what was streamed is not repeated."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._streamed = False
        self._line_open = False
        self._calls: dict[str, tuple[str, float]] = {}

    def show(self, event: HarnessEvent) -> None:
        """Print one event."""
        if isinstance(event, SdkMessage):
            payload: object = event.payload
            if isinstance(payload, dict):
                self._message(cast("Json", payload))
        elif isinstance(event, CaSessionStarted):
            identity = event.identity
            sha = f" @ {identity.sha[:12]}" if identity.sha else ""
            how = "resumed" if event.resumed else event.engine
            self._note(f"{identity.name} {identity.version}{sha} · {how}", "dim")
        elif isinstance(event, CaPermissionDecision):
            if event.decision == "deny" and event.call_id not in self._calls:  # else its result says so
                self._note(f"✗ {event.tool_name} denied: {event.reason or 'no reason given'}", "red")
        elif isinstance(event, CaSessionEnded) and event.reason not in {"complete", "error"}:
            self._note(f"ended: {event.reason.replace('_', ' ')}", "yellow")

    def close_line(self) -> None:
        """End a line of streamed text that is still open."""
        if self._line_open:
            self._console.print()
            self._line_open = False

    def _message(self, payload: Json) -> None:
        kind = payload.get("type")
        if kind == "stream_event" and payload.get("parent_tool_use_id") is None:
            self._delta(payload.get("event") or {})
        elif kind == "assistant" and payload.get("parent_tool_use_id") is None:
            for block in _blocks(payload):
                if block.get("type") == "text" and not self._streamed:
                    self._say(str(block.get("text", "")))
                    self.close_line()
                elif block.get("type") == "tool_use":
                    self._call(block)
        elif kind == "user":
            for block in _blocks(payload):
                if block.get("type") == "tool_result":
                    self._outcome(block)
        elif kind == "system" and payload.get("subtype") == "api_retry":
            self._note(f"the model's API failed ({payload.get('error_status')}), trying again", "yellow")

    def _delta(self, event: Json) -> None:
        delta: Json = event.get("delta") or {}
        if event.get("type") == "message_start":
            self._streamed = False
        elif event.get("type") == "content_block_delta" and delta.get("type") == "text_delta":
            self._say(str(delta.get("text", "")))
            self._streamed = True
        elif event.get("type") == "content_block_stop":
            self.close_line()

    def _say(self, text: str) -> None:
        """Put text out as it is, without breaking lines that the model did not break."""
        self._console.file.write(_CONTROLS.sub("", text))
        self._console.file.flush()
        self._line_open = self._line_open or bool(text)

    def _call(self, block: Json) -> None:
        tool, tool_input = str(block.get("name")), cast("Json", block.get("input") or {})
        shown = describe(PermissionRequest("", tool, tool_input))
        self._calls[str(block.get("id"))] = (tool, time.monotonic())
        self._note(f"● {tool}  {shown}", "cyan")

    def _outcome(self, block: Json) -> None:
        tool, began = self._calls.pop(str(block.get("tool_use_id")), ("", time.monotonic()))
        if not tool:
            return
        content: object = block.get("content")
        if isinstance(content, list):
            parts = cast("list[Json]", content)
            content = " ".join(str(part.get("text", "")) for part in parts)
        text = " ".join(str(content or "").split())
        text = text if len(text) <= _RESULT_WIDTH else text[:_RESULT_WIDTH] + "…"
        failed = bool(block.get("is_error"))
        self._note(f"  {'✗' if failed else '✓'} {text}  {time.monotonic() - began:.1f}s", "red" if failed else "dim")

    def _note(self, text: str, style: str) -> None:
        self.close_line()
        self._console.print(Text(printable(text), style=style), overflow="ellipsis", no_wrap=True)


def footer(usage: UsageRollup, duration_ms: float, session_id: str) -> str:
    """The last line of a turn: cost, tokens, time, session."""
    cost = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    return f"{cost} · {usage.total_tokens:,} tokens · {duration_ms / 1000:.1f} s · {session_id}"


def _blocks(payload: Json) -> list[Json]:
    message: object = payload.get("message")
    content: object = cast("Json", message).get("content") if isinstance(message, dict) else None
    return cast("list[Json]", content) if isinstance(content, list) else []
