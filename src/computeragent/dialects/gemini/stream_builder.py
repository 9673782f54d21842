"""Writing a streamed answer of Gemini, as server-sent events or as one JSON list."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from computeragent.dialects.events import (
    Ended,
    Failed,
    ModelEvent,
    PartEnded,
    PartStarted,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.fields import absent_if_none
from computeragent.dialects.gemini.content import NAME, PartBuilder
from computeragent.dialects.gemini.errors import build_error
from computeragent.dialects.gemini.responses import build_end, build_usage
from computeragent.dialects.model import ModelRequest, Part, Text, Thinking
from computeragent.dialects.sse import sse
from computeragent.dialects.streams import ResponseAssembler
from computeragent.wire.encoding import to_json

LIST_TYPE = "application/json; charset=utf-8"
"""The content type of a stream that is a list."""


def stream_builder(request: ModelRequest | None = None) -> GeminiStreamBuilder:
    """A writer of one streamed answer as server-sent events; this dialect needs nothing from the request."""
    del request
    return GeminiStreamBuilder()


def list_builder(request: ModelRequest | None = None) -> GeminiListBuilder:
    """A writer of one streamed answer as a JSON list, which is what comes without `alt=sse`."""
    del request
    return GeminiListBuilder()


class GeminiStreamBuilder:
    """Writes the chunks of one answer as server-sent events. A call is written when it is complete."""

    def __init__(self) -> None:
        self._chunks = _Chunks()

    def encode(self, event: ModelEvent) -> bytes:
        """The server-sent event of one event."""
        chunk = self._chunks.of(event)
        return b"" if chunk is None else sse(to_json(chunk))


class GeminiListBuilder:
    """Writes the chunks of one answer as the items of a JSON list."""

    def __init__(self) -> None:
        self._chunks = _Chunks()
        self._begun = False

    def encode(self, event: ModelEvent) -> bytes:
        """The item of one event, and what stands around it."""
        data = b""
        if (chunk := self._chunks.of(event)) is not None:
            data = (b",\n" if self._begun else b"[") + to_json(chunk)
            self._begun = True
        if isinstance(event, (Ended, Failed)):
            data += b"]\n" if self._begun else b"[]\n"
        return data


class _Chunks:
    """The chunk of each event, as plain data."""

    def __init__(self) -> None:
        self._assembler = ResponseAssembler()
        self._head: dict[str, Any] = {}
        self._own = False
        self._builder = PartBuilder(own=False, thoughts=True)

    def of(self, event: ModelEvent) -> dict[str, Any] | None:
        """The chunk, or None where there is nothing to say yet."""
        if isinstance(event, Failed):
            return build_error(event.error)
        self._assembler.add(event)
        match event:
            case Started():
                self._own = event.dialect == NAME
                self._builder = PartBuilder(own=self._own, thoughts=True)
                self._head = absent_if_none(modelVersion=event.model or None, responseId=event.id or None)
                return None
            case PartStarted(part=Text(text=text) | Thinking(text=text)) if text:
                return self._chunk([replace(event.part, text=text, **_unsaid(event.part))])
            case TextDelta():
                return self._chunk([Text(event.text)])
            case ThinkingDelta():
                return self._chunk([Thinking(event.text)])
            case PartEnded():
                return self._end_part(event.index)
            case Stopped():
                return self._stop()
            case _:
                return None

    def _end_part(self, index: int) -> dict[str, Any] | None:
        part = self._assembler.part(index)
        match part:
            case Text() | Thinking(redacted=False):  # what it says beside its text comes last
                signed = isinstance(part, Thinking) and part.signature is not None
                return self._chunk([replace(part, text="")]) if signed or (part.extra and self._own) else None
            case Thinking():
                return None
            case _:
                return self._chunk([part])

    def _chunk(self, parts: list[Part]) -> dict[str, Any] | None:
        built = self._builder.build(parts)
        if not built:
            return None
        content = {"parts": built, "role": "model"}
        return {"candidates": [{"content": content, "index": 0}], **self._head}

    def _stop(self) -> dict[str, Any]:
        response = self._assembler.response
        end = build_end(response, [], own=self._own)
        return {**end, "usageMetadata": build_usage(response.usage, own=self._own), **self._head}


def _unsaid(part: Part) -> dict[str, Any]:
    """A part as it begins, without what its end will say."""
    return {"signature": None, "extra": {}} if isinstance(part, Thinking) else {"extra": {}}
