"""The items of OpenAI Responses: messages, reasoning, calls and their outputs, in a flat list.

An item of the model belongs to an assistant message, an output to a user message. A text remembers the message item
that it stood in as `extra["message"]`, so that several texts of one item are one item again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, cast

from msgspec.structs import replace

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.model import Media, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from computeragent.dialects.openai_responses.content import (
    SCREENSHOT,
    build_content,
    build_text_or_content,
    image_source,
    parse_content,
    parse_image,
)
from computeragent.dialects.streams import arguments_text, with_arguments
from computeragent.errors import ValidationError

NAME = "openai_responses"
COMPUTER = "computer"
"""The neutral name of the provider's computer tool."""

COMPUTER_CALL, CUSTOM_CALL, FUNCTION_CALL = "computer_call", "custom_tool_call", "function_call"
OUTPUTS = {
    COMPUTER_CALL: "computer_call_output",
    CUSTOM_CALL: "custom_tool_call_output",
    FUNCTION_CALL: "function_call_output",
}
"""The items that answer calls, by the items of the calls."""

MakeId = Callable[[str], str]
"""Makes the id of an item from its prefix."""


def parse_items(items: Iterable[tuple[str, Any]]) -> tuple[Message, ...]:
    """The messages of a list of items, each with its path: neighbours of the same side become one message."""
    messages: list[Message] = []
    side = ""
    for path, item in items:
        message, next_side = _parse_item(Fields(item, path))
        if messages and side == next_side and side in {"model", "outputs"}:
            message = Message(message.role, (*messages.pop().content, *message.content))
        messages.append(message)
        side = next_side
    return tuple(messages)


def _parse_item(fields: Fields) -> tuple[Message, str]:
    kind = fields.optional_string("type") or ("message" if "role" in fields.whole() else "item_reference")
    if kind == "message":
        return _parse_message(fields)
    if kind in OUTPUTS.values():
        return Message("user", (_parse_output(kind, fields),)), "outputs"
    return Message("assistant", parse_output_item(kind, fields)), "model"


def _parse_message(fields: Fields) -> tuple[Message, str]:
    role = fields.string("role")
    match role:
        case "assistant":
            return Message("assistant", _parse_answer(fields)), "model"
        case "user":
            content = parse_content(fields.take("content"), fields.at("content"))
            return Message("user", content, _rest(fields)), "user"
        case "system" | "developer":
            content = parse_content(fields.take("content"), fields.at("content"))
            extra = {"role": role} if role == "system" else {}
            return Message("system", content, {**extra, **_rest(fields)}), "system"
        case _:
            raise ValidationError(f"{fields.at('role')}: must be user, assistant, system or developer, not {role!r}")


def parse_output_item(kind: str, fields: Fields) -> tuple[Part, ...]:
    """The parts of an item that the model wrote; `type` is taken out already. Unknown ones are kept as `Opaque`."""
    match kind:
        case "message":
            fields.take("role")
            return _parse_answer(fields)
        case "reasoning":
            return (_parse_reasoning(fields),)
        case "function_call":
            named = ToolCall(id=fields.string("call_id"), name=fields.string("name"))
            arguments = fields.optional_string("arguments") or ""
            return (with_arguments(replace(named, extra=_rest(fields)), arguments),)
        case "custom_tool_call":
            call_id, name, text = fields.string("call_id"), fields.string("name"), fields.optional_string("input") or ""
            return (ToolCall(id=call_id, name=name, input={"input": text}, extra={"type": kind, **_rest(fields)}),)
        case "computer_call":
            return (_parse_computer_call(fields),)
        case _:
            return (Opaque(kind, fields.whole()),)


def _parse_answer(fields: Fields) -> tuple[Part, ...]:
    parts = parse_content(fields.take("content"), fields.at("content"))
    item = _rest(fields)
    if not item:
        return parts
    return tuple(
        replace(part, extra={**part.extra, "message": item}) if isinstance(part, Text) else part for part in parts
    )


def _parse_reasoning(fields: Fields) -> Thinking:
    signature = fields.optional_string("encrypted_content")
    summary, content = fields.take("summary"), fields.take("content")
    extra = _rest(fields)
    written = _texts(content) or _texts(summary)
    if content or len(_texts(summary)) > 1:  # more than the text alone says
        extra |= absent_if_none(summary=summary, content=content)
    return Thinking("\n\n".join(written), signature, False, extra)


def _texts(blocks: Any) -> list[str]:
    found = [Fields(block).optional_string("text") for block in cast("list[Any]", blocks)] if blocks else []
    return [text for text in found if text]


def _parse_computer_call(fields: Fields) -> ToolCall:
    call_id, action = fields.string("call_id"), fields.object("action")
    actions = [Fields(item, path).whole() for path, item in fields.items("actions")]
    value: dict[str, Any] = {"actions": actions} if action is None else {"action": action.whole()}
    return ToolCall(id=call_id, name=COMPUTER, input=value, extra={"type": COMPUTER_CALL, **fields.rest()})


def _parse_output(kind: str, fields: Fields) -> ToolResult:
    call_id = fields.string("call_id")
    if kind != OUTPUTS[COMPUTER_CALL]:
        content = parse_content(fields.take("output"), fields.at("output"))
        extra = {} if kind == OUTPUTS[FUNCTION_CALL] else {"type": kind}
        return ToolResult(call_id=call_id, content=content, extra={**extra, **_rest(fields)})
    output = fields.object("output")
    if output is None:
        raise ValidationError(f"{fields.at('output')}: field required")
    shown = output.optional_string("type") or SCREENSHOT
    image = parse_image(shown, output)
    plain = replace(image, extra={name: value for name, value in image.extra.items() if name != "type"})
    extra = {"type": kind, **_rest(fields)}
    if shown != SCREENSHOT:
        plain = replace(plain, extra={**plain.extra, "type": shown})
    return ToolResult(call_id=call_id, content=(plain,), extra=extra)


def _rest(fields: Fields) -> dict[str, Any]:
    """What is left of an item; that it is complete says nothing."""
    rest = fields.rest()
    if rest.get("status") == "completed":
        del rest["status"]
    return {name: value for name, value in rest.items() if value is not None}


def build_items(message: Message, calls: dict[str, str], *, own: bool) -> Iterator[dict[str, Any]]:
    """The items of one message of a request. `calls` are the kinds of the calls so far, by id; new ones are added."""
    extra = message.extra if own else {}
    if message.role == "assistant":
        yield from build_answer(message.content, own=own)
        for call in message.tool_calls:
            calls[call.id] = _kind_of(call, own=own)
        return
    role = "user" if message.role == "user" else extra.get("role", "developer")
    for is_result, group in groupby(_results_first(message.content), lambda part: isinstance(part, ToolResult)):
        parts = tuple(group)
        if not is_result:
            content = build_text_or_content(parts, own=own)
            yield {"type": "message", **extra, "role": role, "content": content}
            continue
        left: list[Part] = []
        for result in cast("tuple[ToolResult, ...]", parts):
            yield _build_output(result, calls, left, own=own)
        if left:
            yield {"type": "message", "role": "user", "content": build_content(left, own=own)}
    if not message.content:
        yield {"type": "message", **extra, "role": role, "content": ""}


def _results_first(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Calls are answered before anything else is said."""
    return tuple(sorted(parts, key=lambda part: not isinstance(part, ToolResult)))


def _kind_of(call: ToolCall, *, own: bool) -> str:
    kind = call.extra.get("type") if own else None
    return kind if kind in OUTPUTS else FUNCTION_CALL


def _build_output(result: ToolResult, calls: dict[str, str], left: list[Part], *, own: bool) -> dict[str, Any]:
    extra = dict(result.extra) if own else {}
    kind = extra.pop("type", None) or OUTPUTS[calls.get(result.call_id, FUNCTION_CALL)]
    head = {"type": kind, "call_id": result.call_id}
    if kind != OUTPUTS[COMPUTER_CALL]:
        return {**head, "output": build_text_or_content(result.content, own=own), **extra}
    images = [part for part in result.content if isinstance(part, Media) and part.kind == "image"]
    if not images:
        raise ValidationError(f"the computer call {result.call_id!r} must be answered with a screenshot")
    # A computer call is answered by one image; what else there is to say is said after it.
    left.extend(part for part in result.content if part is not images[-1])
    shown = {"type": SCREENSHOT, **image_source(images[-1]), **(images[-1].extra if own else {})}
    return {**head, "output": shown, **extra}


def build_answer(
    parts: Sequence[Part], *, own: bool, make_id: MakeId | None = None, status: str = "completed"
) -> Iterator[dict[str, Any]]:
    """The items that the model wrote: of an answer, with ids made by `make_id`, or as a request repeats them."""
    for item_of, group in groupby(parts, lambda part: _message_of(part, own=own)):
        if item_of is None:
            for part in group:
                if (item := build_item(part, own=own, make_id=make_id, status=status)) is not None:
                    yield item
        else:
            yield build_message(tuple(group), item_of, own=own, make_id=make_id, status=status)


def _message_of(part: Part, *, own: bool) -> dict[str, Any] | None:
    """The message item that a text stands in; None for anything else."""
    if not isinstance(part, Text):
        return None
    return cast("dict[str, Any]", part.extra.get("message") or {}) if own else {}


def build_message(
    parts: tuple[Part, ...], item: dict[str, Any], *, own: bool, make_id: MakeId | None, status: str
) -> dict[str, Any]:
    """A message of the model."""
    head: dict[str, Any] = {"type": "message", "role": "assistant"}
    if make_id is None and not item:
        return {**head, "content": build_text_or_content(parts, own=own, output=True)}
    if make_id is not None and "id" not in item:
        head["id"] = make_id("msg_")
    return {**head, "status": status, **item, "content": build_content(parts, own=own, output=True)}


def build_item(part: Part, *, own: bool, make_id: MakeId | None, status: str = "completed") -> dict[str, Any] | None:
    """One item that is no message, or None for what this wire cannot take over from another."""
    extra: dict[str, Any] = part.extra if own and not isinstance(part, Opaque) else {}
    match part:
        case Thinking():
            return _build_reasoning(part if own else replace(part, signature=None), extra, make_id)
        case ToolCall():
            return _build_call(part, extra, make_id, status)
        case Opaque():
            return dict(part.data) if own else None
        case _:
            return None


def _build_reasoning(part: Thinking, extra: dict[str, Any], make_id: MakeId | None) -> dict[str, Any] | None:
    if make_id is None and not extra.get("id") and part.signature is None:
        return None  # nothing that the provider would know again
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    head = {"type": "reasoning", **_id("rs_", extra, make_id), "summary": summary}
    return {**head, **absent_if_none(encrypted_content=part.signature), **extra}


def _build_call(part: ToolCall, extra: dict[str, Any], make_id: MakeId | None, status: str) -> dict[str, Any]:
    kind = extra.get("type")
    if kind == COMPUTER_CALL:
        # A request must say what an answer says, too.
        head = {"type": kind, **_id("cu_", extra, make_id), "call_id": part.id, **part.input}
        return {**head, "pending_safety_checks": [], "status": status, **extra}
    done = {} if make_id is None else {"status": status}
    if kind == CUSTOM_CALL:
        text = part.input.get("input")
        head = {"type": kind, **_id("ctc_", extra, make_id), "call_id": part.id, "name": part.name}
        return {**head, "input": text if isinstance(text, str) else arguments_text(part), **done, **extra}
    head = {"type": FUNCTION_CALL, **_id("fc_", extra, make_id), "call_id": part.id, "name": part.name}
    return {**head, "arguments": arguments_text(part), **done, **extra}


def _id(prefix: str, extra: dict[str, Any], make_id: MakeId | None) -> dict[str, Any]:
    return {} if make_id is None or "id" in extra else {"id": make_id(prefix)}
