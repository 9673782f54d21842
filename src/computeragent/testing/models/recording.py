"""What the simulator received, kept so that a test can prove what the model was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from computeragent.dialects.model import Message, ModelRequest, Part, Text, ToolResult
from computeragent.models.script.matching import last_typed_text
from computeragent.models.serving.http import HttpRequest
from computeragent.models.serving.routes import api_key
from computeragent.wire.encoding import from_json


@dataclass
class RecordedRequest:
    """One HTTP request. `parsed` is the neutral form; None where it was not a request to a model, or not readable.

    `at` is in epoch seconds, `status` the HTTP status of the answer, `response_text` the text of the reply given.
    """

    http: HttpRequest = field(repr=False)
    at: float
    dialect: str | None = None
    parsed: ModelRequest | None = field(default=None, repr=False)
    status: int | None = None
    response_text: str = field(default="", repr=False)

    @property
    def method(self) -> str:
        """`GET`, `POST`, `HEAD`."""
        return self.http.method

    @property
    def path(self) -> str:
        """The path, without the query."""
        return self.http.path

    @property
    def query(self) -> str:
        """The query string, as it came."""
        return self.http.query

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name, keys included."""
        return self.http.headers

    @property
    def api_key(self) -> str | None:
        """The key of the request, from `x-api-key`, `x-goog-api-key`, a bearer token or `key` of the query."""
        return api_key(self.http)

    @cached_property
    def json(self) -> Any:
        """The body as plain data; None where it is not JSON."""
        try:
            return from_json(self.http.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def model(self) -> str:
        """The model asked for; empty where none was."""
        return self.parsed.model if self.parsed else ""

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return self.parsed is not None and self.parsed.stream

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation."""
        return self.parsed.messages if self.parsed else ()

    @property
    def tool_names(self) -> list[str]:
        """The tools that were offered."""
        return [tool.name for tool in self.parsed.tools] if self.parsed else []

    @property
    def tool_results(self) -> list[ToolResult]:
        """Every tool result in the conversation, oldest first."""
        return [result for message in self.messages for result in message.tool_results]

    @property
    def system_text(self) -> str:
        """The system prompt."""
        return self.parsed.system_text if self.parsed else ""

    @property
    def user_text(self) -> str:
        """What the user typed last."""
        return last_typed_text(self.messages)

    @cached_property
    def text(self) -> str:
        """Every text that the model received, system prompt and tool results included, joined by newlines."""
        if self.parsed is None:
            return ""
        return "\n".join([*_texts(self.parsed.system), *(t for m in self.messages for t in _texts(m.content))])


def _texts(parts: tuple[Part, ...]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if isinstance(part, Text):
            found.append(part.text)
        elif isinstance(part, ToolResult):
            found.extend(_texts(part.content))
    return found
