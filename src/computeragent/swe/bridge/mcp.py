"""The Model Context Protocol over streamable HTTP, for the tools of the host: JSON-RPC, one answer for each request."""

from __future__ import annotations

import secrets
from typing import Any, cast

from inspect_ai.model import ChatMessageTool, Content, ContentAudio, ContentImage, ContentText

import computeragent
from computeragent.dialects.data_urls import split_data_url
from computeragent.models.serving.http import HttpRequest, HttpResponse
from computeragent.models.serving.routes import json_response
from computeragent.swe.bridge.host_tools import HostServer, HostTools, NotProposedError
from computeragent.swe.bridge.schemas import LEVELS, too_deep
from computeragent.wire.encoding import clean_json, from_json

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The versions of the protocol, newest first, that differ in nothing that is spoken here."""

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _BAD_PARAMS = -32700, -32600, -32601, -32602
_SESSION = "mcp-session-id"
_GEMINI = "gemini"
Json = dict[str, Any]


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def answer_mcp(http: HttpRequest, server: HostServer, host: HostTools) -> HttpResponse:
    """The answer to one HTTP request. Raises what a tool raises that no tool may."""
    if http.method != "POST":
        # No stream of the server's own, and no session to delete.
        return json_response(_error(None, _RpcError(_INVALID_REQUEST, "use POST")), 405, {"allow": "POST"})
    try:
        message = from_json(clean_json(http.body))
    except (ValueError, RecursionError):
        return json_response(_error(None, _RpcError(_PARSE_ERROR, "the body is not JSON")), 400)
    if isinstance(message, list):
        answers = [await _answer(each, server, host) for each in cast("list[Any]", message)]
        told = [each for each in answers if each is not None]
        return json_response(told) if told else HttpResponse(status=202)
    answer = await _answer(message, server, host)
    if answer is None:
        return HttpResponse(status=202)
    if http.headers.get(_SESSION, "").startswith(_GEMINI):
        _structure(answer)
    # Nothing is kept of a session: its name alone says who the client is.
    headers = {_SESSION: f"{_GEMINI}-{secrets.token_hex(8)}"} if _is_gemini(message) else {}
    return json_response(answer, headers=headers)


def _is_gemini(message: Any) -> bool:
    fields = cast("Json", message) if isinstance(message, dict) else {}
    return fields.get("method") == "initialize" and _GEMINI in str(fields.get("params")).lower()


def _structure(answer: Json) -> None:
    """Gemini CLI (0.61) takes a text that is JSON for structured content, and fails where it is not an object."""
    result = answer.get("result", {})
    for block in result.get("content", [])[:1]:
        try:
            value = from_json(block.get("text", "").encode())
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            result["structuredContent"] = {"result": value}


async def _answer(message: Any, server: HostServer, host: HostTools) -> Json | None:
    """The answer to one message; None where there is none."""
    fields = cast("Json", message) if isinstance(message, dict) else {}
    method, number = fields.get("method"), fields.get("id")
    if fields.get("jsonrpc") != "2.0" or (not isinstance(method, str) and "id" not in fields):
        return _error(number, _RpcError(_INVALID_REQUEST, "not a message of JSON-RPC 2.0"))
    if not isinstance(method, str) or "id" not in fields:
        return None
    params: Any = fields.get("params")
    try:
        if params is not None and not isinstance(params, dict):
            raise _RpcError(_BAD_PARAMS, "params: must be an object")
        result = await _result(method, cast("Json", params or {}), server, host)
    except _RpcError as error:
        return _error(number, error)
    return {"jsonrpc": "2.0", "id": number, "result": result}


def _error(number: Any, error: _RpcError) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": str(error)}}


async def _result(method: str, params: Json, server: HostServer, host: HostTools) -> Json:
    match method:
        case "initialize":
            asked = params.get("protocolVersion")
            return {
                "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": server.name, "version": computeragent.__version__},
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [_described(name, server) for name in server.tools]}
        case "tools/call":
            return await _call(params, server, host)
        case _:
            raise _RpcError(_NO_METHOD, f"there is no method {method!r}")


def _described(name: str, server: HostServer) -> Json:
    tool = server.tools[name]
    schema = tool.parameters.model_dump(exclude_none=True)
    return {"name": name, "description": tool.description, "inputSchema": schema}


async def _call(params: Json, server: HostServer, host: HostTools) -> Json:
    name, arguments = params.get("name"), params.get("arguments")
    if not isinstance(name, str) or name not in server.tools:
        raise _RpcError(_BAD_PARAMS, f"there is no tool {name!r}; there are {', '.join(server.tools)}")
    if arguments is not None and not isinstance(arguments, dict):
        raise _RpcError(_BAD_PARAMS, "arguments: must be an object")
    if too_deep(arguments):
        raise _RpcError(_BAD_PARAMS, f"arguments: nested more than {LEVELS} levels deep")
    try:
        message = await host.run(server, name, cast("Json", arguments or {}))
    except NotProposedError as error:
        return {"content": [_text(str(error))], "isError": True}
    if message.error is not None:
        return {"content": [*_blocks(message), _text(message.error.message)], "isError": True}
    return {"content": _blocks(message), "isError": False}


def _blocks(message: ChatMessageTool) -> list[Json]:
    if isinstance(message.content, str):
        return [_text(message.content)] if message.content else []
    return [_block(each) for each in message.content]


def _block(content: Content) -> Json:
    match content:
        case ContentText():
            return _text(content.text)
        case ContentImage():
            return _media("image", content.image, "image/png")
        case ContentAudio():
            return _media("audio", content.audio, f"audio/{content.format}")
        case _:
            return _text(content.model_dump_json(exclude_none=True))


def _media(kind: str, url: str, fallback: str) -> Json:
    media_type, data = split_data_url(url)
    return _text(url) if data is None else {"type": kind, "data": data, "mimeType": media_type or fallback}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}
