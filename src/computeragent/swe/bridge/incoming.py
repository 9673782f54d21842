"""What an agent asks, as Inspect has it: messages and settings."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, cast, get_args

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentAudio,
    ContentDocument,
    ContentImage,
    ContentReasoning,
    ContentText,
    ContentVideo,
    GenerateConfig,
    ResponseSchema,
)
from inspect_ai.tool import ToolCall as InspectCall
from inspect_ai.tool import ToolCallError

from computeragent.dialects.model import (
    Media,
    Message,
    ModelRequest,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    text_of,
)
from computeragent.errors import ValidationError
from computeragent.swe.bridge.schemas import LEVELS, json_schema, too_deep
from computeragent.swe.bridge.tools import Declared
from computeragent.wire.encoding import to_json

NEW = ""
"""The id of a message until it is known whether it is new: to make one takes ten times as long as all else here."""

_FALLBACKS = {"image": "image/png", "document": "application/pdf", "audio": "audio/wav", "video": "video/mp4"}
_FILMS: dict[str, Any] = {"video/mp4": "mp4", "video/mpeg": "mpeg", "video/quicktime": "mov"}
_SOUNDS: dict[str, Any] = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_AGENT_MESSAGE = "agent_message"


def messages_of(request: ModelRequest, tools: Declared) -> list[ChatMessage]:
    """The conversation, each tool result once; its messages have no ids yet (`NEW`).

    Raises `ValidationError` for media that are not sent along, and arguments that are nested too deeply.
    """
    # Each block of the system prompt stays one: providers give some of them a meaning of their own.
    messages: list[ChatMessage] = [ChatMessageSystem(id=NEW, content=part.text) for part in _texts(request.system)]
    names: dict[str, str] = {}
    answered: set[str] = set()
    for message in request.messages:
        match message.role:
            case "system":
                messages.extend(ChatMessageSystem(id=NEW, content=part.text) for part in _texts(message.content))
            case "assistant":
                calls = [_call(call, tools) for call in message.tool_calls]
                names |= {call.id: call.function for call in calls}
                answered -= {call.id for call in calls}
                messages.extend(_of_agents(message))
                if (answer := _answer(message, calls)) is not None:
                    messages.append(answer)
            case "user":
                messages.extend(_of_user(message, names, answered))
    return messages


def _texts(parts: Iterable[Part]) -> Iterator[Text]:
    return (part for part in parts if isinstance(part, Text) and part.text)


def _call(call: ToolCall, tools: Declared) -> InspectCall:
    if too_deep(call.input):
        raise ValidationError(f"the arguments of the call {call.id!r} are nested more than {LEVELS} levels deep")
    problem = None if call.malformed is None else f"the arguments are not a JSON object: {call.malformed}"
    return InspectCall(id=call.id, function=tools.name_of(call), arguments=call.input, parse_error=problem)


def _answer(message: Message, calls: list[InspectCall]) -> ChatMessageAssistant | None:
    content: list[Content] = []
    for part in message.content:
        match part:
            case Text() if part.text:
                content.append(ContentText(text=part.text))
            case Thinking():
                content.append(_reasoning(part))
            case Media():
                content.append(_media(part))
            case _:
                pass  # calls are apart; what a provider's own tools did is known here, where it is of this model
    if not content and not calls:
        return None
    return ChatMessageAssistant(id=NEW, content=_plain(content), tool_calls=calls or None)


def _reasoning(part: Thinking) -> ContentReasoning:
    if part.signature is None:
        return ContentReasoning(reasoning=part.text)
    # As Inspect's providers have it: what proves the reasoning, and beside it what can be read.
    place: Any = part.extra.get("id")
    return ContentReasoning(
        reasoning=part.signature,
        summary=part.text or None,
        redacted=True,
        signature=place if isinstance(place, str) else None,
    )


def _of_agents(message: Message) -> Iterator[ChatMessageUser]:
    """What other agents have said, which the Responses wire has as items of its own."""
    for part in message.content:
        if isinstance(part, Opaque) and part.kind == _AGENT_MESSAGE:
            blocks = cast("list[Any]", part.data.get("content") or [])
            texts = [cast("dict[str, Any]", block).get("text") for block in blocks if isinstance(block, dict)]
            said = "\n".join(text for text in texts if isinstance(text, str)) or "[nothing that can be read]"
            yield ChatMessageUser(id=NEW, content=f"Agent message from {part.data.get('author') or 'agent'}:\n{said}")


def _of_user(message: Message, names: dict[str, str], answered: set[str]) -> Iterator[ChatMessage]:
    said: list[Content] = []
    for part in message.content:
        if not isinstance(part, ToolResult):
            said.extend(_content(part))
            continue
        if said:
            yield ChatMessageUser(id=NEW, content=_plain(said))
            said = []
        if part.call_id not in answered:
            answered.add(part.call_id)
            yield _result(part, names.get(part.call_id))
    if said or not message.content:
        yield ChatMessageUser(id=NEW, content=_plain(said))


def _result(part: ToolResult, function: str | None) -> ChatMessageTool:
    content = [each for inner in part.content for each in _content(inner)]
    error = ToolCallError("unknown", text_of(part.content)) if part.is_error else None
    return ChatMessageTool(id=NEW, content=_plain(content), tool_call_id=part.call_id, function=function, error=error)


def _content(part: Part) -> Iterator[Content]:
    match part:
        case Text():
            yield ContentText(text=part.text)
        case Media():
            yield _media(part)
        case Opaque():
            yield ContentText(text=to_json(part.data).decode())
        case _:
            pass


def _plain(content: list[Content]) -> str | list[Content]:
    if not content:
        return ""
    only = content[0]
    return only.text if len(content) == 1 and isinstance(only, ContentText) else content


def _media(part: Media) -> Content:
    if part.text is not None:
        data = base64.b64encode(part.text.encode()).decode()
        return ContentDocument(document=f"data:text/plain;base64,{data}", filename=part.title or "document.txt")
    kind = part.media_type or _FALLBACKS[part.kind]
    if part.data is None:
        # Somebody would have to fetch it who can reach more than the sandbox may.
        raise ValidationError(f"{part.kind}: must be sent along (base64), not by address or id")
    url = f"data:{kind};base64,{part.data}"
    match part.kind:
        case "image":
            detail: Any = part.extra.get("detail")
            return ContentImage(image=url, detail=detail if detail in {"low", "high", "original"} else "auto")
        case "document":
            return ContentDocument(document=url, filename=part.title or "", mime_type=kind)
        case "audio" if kind in _SOUNDS:
            return ContentAudio(audio=url, format=_SOUNDS[kind])
        case "video" if kind in _FILMS:
            return ContentVideo(video=url, format=_FILMS[kind])
        case _:
            raise ValidationError(f"{part.kind}: {kind} is not known here")


def config_of(request: ModelRequest, *, forward: bool) -> GenerateConfig:
    """The settings of a request: what shapes the answer, and with `forward` also how it is generated."""
    config = GenerateConfig(stop_seqs=list(request.stop_sequences) or None, response_schema=_schema(request))
    if request.parallel_tool_calls is False:
        config.parallel_tool_calls = False
    if not forward:
        return config
    config.max_tokens = request.max_tokens
    config.temperature = request.temperature
    config.top_p = request.top_p
    config.top_k = request.top_k
    config.seed = request.seed
    if request.thinking is not None and request.thinking.mode == "enabled":
        config.reasoning_tokens = request.thinking.budget_tokens
    if request.effort is not None:
        _set_effort(config, request.effort)
    return config


def _set_effort(config: GenerateConfig, effort: str) -> None:
    for name in ("effort", "reasoning_effort"):
        allowed = {value for each in _alternatives(name) for value in get_args(each)}
        if effort in allowed:
            setattr(config, name, effort)


def _alternatives(name: str) -> tuple[Any, ...]:
    return get_args(GenerateConfig.model_fields[name].annotation)


def _schema(request: ModelRequest) -> ResponseSchema | None:
    shape = request.output_format
    if shape is None or shape.schema is None:
        return None
    return ResponseSchema(name=shape.name or "answer", json_schema=json_schema(shape.schema), strict=shape.strict)
