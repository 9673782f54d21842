"""A run's events as messages of an Inspect conversation: what was said, which tools were called, what they answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from inspect_ai.agent import AgentState
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolCall, ToolCallError

from computeragent.wire.events import CaPermissionDecision, CaUsageSnapshot, HarnessEvent, SdkMessage
from computeragent.wire.usage import UsageRollup

Json = dict[str, Any]

_STOPS: Mapping[str, StopReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "model_length",
    "refusal": "content_filter",
}


class Conversation:
    """Adds what a run's events say to the messages of `state`, and makes its output.

    Messages of sub-agents are left out. A message limit of Inspect's is raised by the list of messages itself. `priced`
    says whether the engine's cost means something: it does not where another model answers than the engine believes.
    """

    def __init__(self, state: AgentState, *, priced: bool) -> None:
        self.priced = priced
        self.usage = UsageRollup()
        self.denied: dict[str, str] = {}
        self.turns = 0
        self.state = state
        self._model = ""
        self._stop: StopReason = "stop"
        self._tools: dict[str, str] = {}
        self._said: dict[str, ChatMessageAssistant] = {}
        self._last: ChatMessageAssistant | None = None

    def ask(self, text: str) -> None:
        """Add a message of the user's that is sent next."""
        self.state.messages.append(ChatMessageUser(content=text))

    def take(self, event: HarnessEvent) -> None:
        """Add what one event says; most say nothing."""
        if isinstance(event, CaUsageSnapshot):
            self.usage.absorb(event)
        elif isinstance(event, CaPermissionDecision) and event.decision == "deny":
            self.denied[event.call_id] = event.reason or "denied"
        elif isinstance(event, SdkMessage):
            payload: object = event.payload
            if isinstance(payload, dict):
                self._message(cast("Json", payload))

    def close(self) -> None:
        """Make the output: the last message of the assistant, why it stopped, and what the whole run used."""
        last = self._last or ChatMessageAssistant(content="", model=self._model or None)
        self.state.output = ModelOutput(
            model=self._model,
            choices=[ChatCompletionChoice(message=last, stop_reason=self._stop)],
            usage=self._usage(),
        )

    def _usage(self) -> ModelUsage:
        usage = self.usage
        return ModelUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            input_tokens_cache_write=usage.cache_creation_input_tokens or None,
            input_tokens_cache_read=usage.cache_read_input_tokens or None,
            total_cost=usage.cost_usd if self.priced else None,
        )

    # ── Messages in the shape of Anthropic's, which all engines have ──

    def _message(self, payload: Json) -> None:
        if payload.get("parent_tool_use_id") is not None:
            return
        match payload.get("type"):
            case "system":
                self._model = str(payload.get("model") or self._model)
            case "assistant":
                self._assistant(payload.get("message"))
            case "user":
                self._answers(payload.get("message"))
            case "result":
                self._result(payload)
            case _:
                return

    def _assistant(self, message: object) -> None:
        if not isinstance(message, dict):
            return
        said = cast("Json", message)
        self._model = str(said.get("model") or self._model)
        self._stop = _STOPS.get(str(said.get("stop_reason")), self._stop)
        content = [part for block in _blocks(said) if (part := _content(block)) is not None]
        calls = [self._call(block) for block in _blocks(said) if block.get("type") == "tool_use"]
        if not content and not calls:
            return
        # Engines tell a message block by block, under one id; tools may have answered meanwhile.
        known = self._said.get(str(said.get("id"))) if said.get("id") else None
        if known is None:
            known = ChatMessageAssistant(content=content, tool_calls=calls or None, model=self._model or None)
            self.state.messages.append(known)
            self._said[str(said.get("id"))] = known
        else:
            known.content = [*known.content_list, *content]
            known.tool_calls = [*(known.tool_calls or []), *calls] or None
        self._last = known

    def _call(self, block: Json) -> ToolCall:
        call_id, name = str(block.get("id")), str(block.get("name"))
        self._tools[call_id] = name
        given = block.get("input")
        return ToolCall(id=call_id, function=name, arguments=cast("Json", given) if isinstance(given, dict) else {})

    def _answers(self, message: object) -> None:
        if not isinstance(message, dict):
            return
        for block in _blocks(cast("Json", message)):
            if block.get("type") != "tool_result":
                continue
            call_id = str(block.get("tool_use_id"))
            content = _answer(block.get("content"))
            error: ToolCallError | None = None
            if block.get("is_error"):
                text = content if isinstance(content, str) else "\n".join(c.text for c in content if c.type == "text")
                error = ToolCallError("approval" if call_id in self.denied else "unknown", text or "the tool failed")
            self.state.messages.append(
                ChatMessageTool(content=content, tool_call_id=call_id, function=self._tools.get(call_id), error=error)
            )

    def _result(self, payload: Json) -> None:
        said = payload.get("result")
        if isinstance(said, str) and said.strip() and (self._last is None or not self._last.text.strip()):
            self._last = ChatMessageAssistant(content=said, model=self._model or None)
            self.state.messages.append(self._last)


def _blocks(message: Json) -> list[Json]:
    content: object = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    found = cast("list[object]", content) if isinstance(content, list) else []
    return [cast("Json", block) for block in found if isinstance(block, dict)]


def _content(block: Json) -> Content | None:
    match block.get("type"):
        case "text":
            return ContentText(text=str(block.get("text", "")))
        case "thinking":
            signature = block.get("signature")
            return ContentReasoning(
                reasoning=str(block.get("thinking", "")), signature=str(signature) if signature else None
            )
        case "redacted_thinking":
            return ContentReasoning(reasoning=str(block.get("data", "")), redacted=True)
        case "image":
            return _image(block)
        case _:
            return None


def _image(block: Json) -> Content:
    source: object = block.get("source")
    given = cast("Json", source) if isinstance(source, dict) else {}
    if given.get("type") == "base64":
        return ContentImage(image=f"data:{given.get('media_type', 'image/png')};base64,{given.get('data', '')}")
    return ContentText(text=f"[image {given.get('url', '')}]")


def _answer(content: object) -> str | list[Content]:
    if not isinstance(content, list):
        return "" if content is None else str(content)
    found = [_content(cast("Json", block)) for block in cast("list[object]", content) if isinstance(block, dict)]
    parts = [part for part in found if part is not None]
    texts = [part.text for part in parts if isinstance(part, ContentText)]
    return "\n".join(texts) if len(texts) == len(parts) else parts
