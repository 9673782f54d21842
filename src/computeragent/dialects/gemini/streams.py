"""Reading a streamed answer of Gemini: chunks that each look like a whole response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    OtherDelta,
    PartEnded,
    PartStarted,
    SignatureDelta,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.gemini.chunks import ChunkDecoder
from computeragent.dialects.gemini.content import NAME, Calls
from computeragent.dialects.gemini.errors import parse_error_object
from computeragent.dialects.gemini.requests import parse_parts
from computeragent.dialects.gemini.responses import (
    first_candidate,
    head_of,
    is_blocked,
    parse_usage,
    take_reason,
    with_candidate,
)
from computeragent.dialects.gemini.spelling import inner, read
from computeragent.dialects.model import ModelResponse, Part, Text, Thinking, ToolCall, Usage
from computeragent.dialects.sse import SseStreamParser
from computeragent.dialects.streams import ResponseAssembler, arguments_text
from computeragent.errors import ValidationError
from computeragent.wire.sse import Frame


def stream_parser() -> SseStreamParser:
    """A reader of one streamed answer, in either framing."""
    return SseStreamParser(ChunkReader(), ChunkDecoder())


def read_chunks(chunks: Iterable[Any]) -> ModelResponse:
    """The response that the chunks of a whole stream spell. Raises `ValidationError`."""
    reader, assembler = ChunkReader(), ResponseAssembler()
    for chunk in chunks:
        for event in reader.read_chunk(read(chunk)):
            assembler.add(event)
    for event in reader.finish():
        assembler.add(event)
    if assembler.error is not None or not assembler.ended:
        raise ValidationError(assembler.error.message if assembler.error else "the answer is not complete")
    return assembler.response


class ChunkReader:
    """Reads the chunks. Texts, and thoughts, that follow one another are one part, up to a signature.

    Nothing marks the end, and usage may follow the finish reason: so the end waits for the end of the bytes.
    """

    def __init__(self) -> None:
        self._started = False
        self._calls = Calls()
        self._open: Text | Thinking | None = None
        self._count = 0
        self._has_calls = False
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._extra: dict[str, Any] = {}

    def read(self, frame: Frame) -> Iterator[ModelEvent]:
        """The events of one frame."""
        yield from self.read_chunk(read(read_body(frame.data.encode()).whole()))

    def read_chunk(self, fields: Fields) -> Iterator[ModelEvent]:
        """The events of one chunk. Raises `ValidationError`."""
        if (error := inner(fields, "error")) is not None:
            yield Failed(parse_error_object(error))
            return
        answer_id, model = head_of(fields)
        if not self._started:
            self._started = True
            self._calls = Calls(answer_id)
            yield Started(id=answer_id, model=model, dialect=NAME)
        candidate = first_candidate(fields)
        self._usage = parse_usage(inner(fields, "usageMetadata")) or self._usage
        if candidate is not None:
            for part in parse_parts(inner(candidate, "content") or Fields({}), self._calls):
                yield from self._read_part(part)
            self._reason = take_reason(candidate, has_calls=self._has_calls) or self._reason
        self._keep(with_candidate(fields.rest(), candidate))

    def finish(self) -> Iterator[ModelEvent]:
        """The end, if the answer had one."""
        reason = self._reason or ("refusal" if is_blocked(self._extra) else None)
        if reason is not None:
            yield from self._close()
            yield Stopped(stop_reason=reason, usage=self._usage, extra=self._extra)
            yield Ended()

    def _keep(self, extra: dict[str, Any]) -> None:
        candidate = {**self._extra.get("candidate", {}), **extra.get("candidate", {})}
        self._extra = {**self._extra, **extra, **({"candidate": candidate} if candidate else {})}

    def _read_part(self, part: Part) -> Iterator[ModelEvent]:
        match part:
            case Text():
                yield from self._read_text(part)
            case Thinking():
                yield from self._read_thought(part)
            case ToolCall():
                self._has_calls = True
                begun = ToolCall(id=part.id, name=part.name, signature=part.signature, extra=part.extra)
                yield from self._whole(begun, InputDelta(self._count, arguments_text(part)))
            case _:
                yield from self._whole(part)

    def _whole(self, part: Part, *events: ModelEvent) -> Iterator[ModelEvent]:
        """A part that comes at once. Events must be numbered for the part that is next."""
        yield from self._close()
        self._count += 1
        yield PartStarted(self._count - 1, part)
        yield from events
        yield PartEnded(self._count - 1)

    def _read_text(self, part: Text) -> Iterator[ModelEvent]:
        if not part.text and not part.extra:
            return  # the last chunk often has an empty text
        yield from self._enter(Text(""))
        if part.text:
            yield TextDelta(self._count - 1, part.text)
        if part.extra:
            yield OtherDelta(self._count - 1, {"extra": part.extra})
        if "thoughtSignature" in part.extra:
            yield from self._close()

    def _read_thought(self, part: Thinking) -> Iterator[ModelEvent]:
        yield from self._enter(Thinking(""))
        if part.text:
            yield ThinkingDelta(self._count - 1, part.text)
        if part.extra:
            yield OtherDelta(self._count - 1, {"extra": part.extra})
        if part.signature is not None:
            yield SignatureDelta(self._count - 1, part.signature)
            yield from self._close()

    def _enter(self, part: Text | Thinking) -> Iterator[ModelEvent]:
        if type(self._open) is type(part):
            return
        yield from self._close()
        self._open = part
        self._count += 1
        yield PartStarted(self._count - 1, part)

    def _close(self) -> Iterator[ModelEvent]:
        if self._open is not None:
            self._open = None
            yield PartEnded(self._count - 1)
