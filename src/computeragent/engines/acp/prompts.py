"""What is sent to an agent: a user's message, and tool servers, in the protocol's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from computeragent.clis import McpServer
from computeragent.errors import ValidationError
from computeragent.wire.requests import UserInput

if TYPE_CHECKING:
    from acp.schema import AgentCapabilities

_NOTHING = "(no text)"  # no agent takes an empty message


def prompt_blocks(message: UserInput, preface: str, capabilities: AgentCapabilities | None) -> list[Any]:
    """A message as the blocks of `session/prompt`, `preface` before it.

    Raises `ValidationError` for blocks that are none, and for images where the agent sees none.
    """
    from acp import text_block

    said: list[Any] = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else []
    blocks = [_block(each, capabilities) for each in said or cast("list[Any]", message.content)]
    blocks = [block for block in blocks if getattr(block, "text", True)]
    first = [text_block(preface)] if preface else []
    return [*first, *(blocks or [text_block(_NOTHING)])]


def text_of(message: UserInput) -> str:
    """The texts of a message."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(block.get("text", "")) for block in message.content if block.get("type") == "text")


def _block(block: Any, capabilities: AgentCapabilities | None) -> Any:
    from acp import image_block, text_block

    given = cast("dict[str, Any]", block) if isinstance(block, dict) else {}
    source: Any = given.get("source")
    match given.get("type"):
        case "text" if isinstance(given.get("text"), str):
            return text_block(given["text"])
        case "image" if isinstance(source, dict) and cast("dict[str, Any]", source).get("type") == "base64":
            sees = None if capabilities is None else capabilities.prompt_capabilities
            if sees is None or not sees.image:
                raise ValidationError("this agent takes no images", hint="Describe the image in words.")
            image = cast("dict[str, Any]", source)
            return image_block(str(image.get("data", "")), str(image.get("media_type", "image/png")))
        case kind:
            raise ValidationError(
                f"a content block of type {kind!r} cannot be sent to this agent",
                hint="Send text, or images as base64.",
            )


def takes_urls(capabilities: AgentCapabilities | None) -> bool:
    """Whether an agent knows tool servers by URL."""
    mcp = None if capabilities is None else capabilities.mcp_capabilities
    return mcp is not None and bool(mcp.http)


def server_blocks(servers: Sequence[McpServer], *, urls: bool) -> list[Any]:
    """Tool servers for `session/new`. Raises `ValidationError` for one by URL where the agent takes no `urls`."""
    from acp.schema import EnvVariable, HttpHeader, HttpMcpServer, McpServerStdio

    made: list[Any] = []
    for server in servers:
        if not server.url:
            env = [EnvVariable(name=name, value=value) for name, value in server.env.items()]
            made.append(McpServerStdio(name=server.name, command=server.command, args=list(server.args), env=env))
            continue
        if not urls:
            raise ValidationError(
                f"this agent takes no tool servers by URL ({server.name!r})", hint="Give it as a command."
            )
        headers = [HttpHeader(name=name, value=value) for name, value in server.headers.items()]
        made.append(HttpMcpServer(type="http", name=server.name, url=server.url, headers=headers))
    return made
