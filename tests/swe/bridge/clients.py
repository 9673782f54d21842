"""The providers' own clients behind one face: ask a bridge on a wire, whole or as a stream, and see what came."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
import openai
from google import genai
from google.genai import types

from computeragent.swe.bridge import Bridge

WIRES = ("anthropic", "chat", "responses", "gemini")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"


@dataclass
class Came:
    """What a client got: text, calls (id, name, arguments), thoughts, why it ended, and the tokens."""

    text: str = ""
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    stop: str = ""
    tokens: tuple[int, int] = (0, 0)
    answer: Any = None
    """What the client would send back as the assistant's turn."""


@dataclass
class Asking:
    """One request in the words of none of the wires."""

    text: str = "hi"
    system: str = ""
    tools: tuple[str, ...] = ()
    must: bool = False
    image: bool = False
    stream: bool = False
    turns: list[Any] = field(default_factory=list)
    """What was said before, in the wire's own words."""
    model: str = "inspect"


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x", "y"]}


@asynccontextmanager
async def client_of(wire: str, bridge: Bridge, key: str | None = None) -> AsyncIterator[Any]:
    key = key or bridge.api_key
    if wire == "gemini":
        client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=bridge.base_url))
        yield client.aio
        await client.aio.aclose()
        client.close()
        return
    if wire == "anthropic":
        async with anthropic.AsyncAnthropic(base_url=bridge.base_url, api_key=key, max_retries=0) as client:
            yield client
        return
    async with openai.AsyncOpenAI(base_url=f"{bridge.base_url}/v1", api_key=key, max_retries=0) as client:
        yield client


async def ask(wire: str, bridge: Bridge, asking: Asking, **more: Any) -> Came:
    async with client_of(wire, bridge) as client:
        return await globals()[f"_{wire}"](client, asking, **more)


async def _anthropic(client: anthropic.AsyncAnthropic, asking: Asking, **more: Any) -> Came:
    content: list[Any] = [{"type": "text", "text": asking.text}]
    if asking.image:
        content.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}})
    request: dict[str, Any] = {
        "model": asking.model,
        "max_tokens": 100,
        "messages": [*asking.turns, {"role": "user", "content": content}],
        **more,
    }
    if asking.system:
        request["system"] = asking.system
    if asking.tools:
        request["tools"] = [{"name": n, "description": f"do {n}", "input_schema": SCHEMA} for n in asking.tools]
    if asking.must:
        request["tool_choice"] = {"type": "any"}
    if asking.stream:
        async with client.messages.stream(**request) as stream:
            message = await stream.get_final_message()
    else:
        message = await client.messages.create(**request)
    came = Came(stop=message.stop_reason or "", tokens=(message.usage.input_tokens, message.usage.output_tokens))
    for block in message.content:
        match block.type:
            case "text":
                came.text += block.text
            case "thinking":
                came.thoughts.append(f"{block.thinking}|{block.signature}")
            case "tool_use":
                came.calls.append((block.id, block.name, dict(block.input)))
    blocks = [block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in message.content]
    came.answer = [{"role": "assistant", "content": blocks}]
    return came


async def _chat(client: openai.AsyncOpenAI, asking: Asking, **more: Any) -> Came:
    content: Any = asking.text
    if asking.image:
        url = {"url": f"data:image/png;base64,{PIXEL}"}
        content = [{"type": "text", "text": asking.text}, {"type": "image_url", "image_url": url}]
    system = [{"role": "system", "content": asking.system}] if asking.system else []
    request: dict[str, Any] = {
        "model": asking.model,
        "messages": [*system, *asking.turns, {"role": "user", "content": content}],
        **more,
    }
    if asking.tools:
        functions = [{"name": n, "description": f"do {n}", "parameters": SCHEMA} for n in asking.tools]
        request["tools"] = [{"type": "function", "function": each} for each in functions]
    if asking.must:
        request["tool_choice"] = "required"
    if asking.stream:
        async with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
            completion = await stream.get_final_completion()
    else:
        completion = await client.chat.completions.create(**request)
    choice = completion.choices[0]
    came = Came(choice.message.content or "", stop=choice.finish_reason or "")
    came.calls = [
        (each.id, each.function.name, json.loads(each.function.arguments)) for each in choice.message.tool_calls or ()
    ]
    came.tokens = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    calls = [
        {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}} for i, n, a in came.calls
    ]
    came.answer = [{"role": "assistant", "content": came.text or None, **({"tool_calls": calls} if calls else {})}]
    return came


async def _responses(client: openai.AsyncOpenAI, asking: Asking, **more: Any) -> Came:
    content: Any = asking.text
    if asking.image:
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}
        content = [{"type": "input_text", "text": asking.text}, image]
    request: dict[str, Any] = {
        "model": asking.model,
        "input": [*asking.turns, {"role": "user", "content": content}],
        **more,
    }
    if asking.system:
        request["instructions"] = asking.system
    if asking.tools:
        request["tools"] = [
            {"type": "function", "name": n, "description": f"do {n}", "parameters": SCHEMA, "strict": False}
            for n in asking.tools
        ]
    if asking.must:
        request["tool_choice"] = "required"
    if asking.stream:
        async with client.responses.stream(**request) as stream:
            response = await stream.get_final_response()
    else:
        response = await client.responses.create(**request)
    came = Came(response.output_text, stop=response.status or "")
    for item in response.output:
        if item.type == "function_call":
            came.calls.append((item.call_id, item.name, json.loads(item.arguments)))
        elif item.type == "reasoning":
            came.thoughts.append(f"{''.join(each.text for each in item.summary)}|{item.encrypted_content}")
    came.tokens = (response.usage.input_tokens, response.usage.output_tokens)
    came.answer = [item.model_dump(exclude_none=True, mode="json") for item in response.output]
    for item in came.answer:
        item.pop("parsed_arguments", None)
        for block in item.get("content") or ():
            block.pop("parsed", None)
    return came


async def _gemini(client: Any, asking: Asking, **more: Any) -> Came:
    parts = [types.Part(text=asking.text)]
    if asking.image:
        parts.append(types.Part(inline_data=types.Blob(mime_type="image/png", data=base64.b64decode(PIXEL))))
    config = types.GenerateContentConfig(
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True), **more
    )
    if asking.system:
        config.system_instruction = asking.system
    if asking.tools:
        declared = [
            types.FunctionDeclaration(name=n, description=f"do {n}", parameters_json_schema=SCHEMA)
            for n in asking.tools
        ]
        config.tools = [types.Tool(function_declarations=declared)]
    if asking.must:
        calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
        config.tool_config = types.ToolConfig(function_calling_config=calling)
    contents = [*asking.turns, types.Content(role="user", parts=parts)]
    if asking.stream:
        stream = await client.models.generate_content_stream(model=asking.model, contents=contents, config=config)
        responses = [response async for response in stream]
    else:
        responses = [await client.models.generate_content(model=asking.model, contents=contents, config=config)]
    came, told = Came(), []
    for response in responses:
        for candidate in response.candidates or ():
            came.stop = candidate.finish_reason.value if candidate.finish_reason else came.stop
            for part in (candidate.content.parts if candidate.content else None) or ():
                told.append(part)
                if part.function_call is not None:
                    call = part.function_call
                    came.calls.append((call.id, call.name, dict(call.args or {})))
                elif part.thought:
                    signature = (part.thought_signature or b"").decode()
                    came.thoughts.append(f"{part.text or ''}|{signature}")
                else:
                    came.text += part.text or ""
        if response.usage_metadata is not None:
            usage = response.usage_metadata
            came.tokens = (usage.prompt_token_count or 0, usage.candidates_token_count or 0)
    came.answer = [types.Content(role="model", parts=told)]
    return came


def results(wire: str, *given: tuple[str, str, str]) -> list[Any]:
    """What tools answered (id, name, text), in the words of a wire."""
    match wire:
        case "anthropic":
            blocks = [{"type": "tool_result", "tool_use_id": call, "content": text} for call, _, text in given]
            return [{"role": "user", "content": blocks}]
        case "chat":
            return [{"role": "tool", "tool_call_id": call, "content": text} for call, _, text in given]
        case "responses":
            return [{"type": "function_call_output", "call_id": call, "output": text} for call, _, text in given]
        case _:
            parts = [
                types.Part(function_response=types.FunctionResponse(id=call, name=name, response={"output": text}))
                for call, name, text in given
            ]
            return [types.Content(role="user", parts=parts)]


def user(wire: str, text: str) -> list[Any]:
    """What the user said before."""
    if wire == "gemini":
        return [types.Content(role="user", parts=[types.Part(text=text)])]
    return [{"role": "user", "content": text}]


async def post(bridge: Bridge, path: str, content: bytes | dict[str, Any], **headers: str) -> httpx2.Response:
    """Plain HTTP, with the bridge's key."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(
            bridge.base_url + path,
            content=body,
            headers={"authorization": f"Bearer {bridge.api_key}", "content-type": "application/json", **headers},
        )
