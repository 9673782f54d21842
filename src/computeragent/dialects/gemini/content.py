"""The parts of Gemini's contents: text and thoughts, data, function calls and what they were answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.gemini.spelling import inner, read, several
from computeragent.dialects.model import (
    Media,
    MediaKind,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    text_of,
)
from computeragent.errors import ValidationError
from computeragent.ids import new_id
from computeragent.wire.encoding import to_json

NAME = "gemini"
UNNAMED = "unnamed_"
"""Begins the ids that are made up here for calls that came without one; they never go out."""

_DATA = ("text", "functionCall", "functionResponse", "inlineData", "fileData")
_BESIDE = frozenset(
    {"thought", "thoughtSignature", "partMetadata", "videoMetadata", "mediaResolution", "mediaProcessing"}
)
_FALLBACKS: dict[MediaKind, str] = {
    "image": "image/png",
    "document": "application/pdf",
    "audio": "audio/wav",
    "video": "video/mp4",
}


class Calls:
    """The calls of a conversation while it is read, so that answers find theirs: by id, else by name, in order."""

    def __init__(self, answer_id: str | None = None) -> None:
        self._open: list[ToolCall] = []
        # In a conversation the number says enough; an answer must not repeat the ids of the one before.
        self._prefix = "" if answer_id is None else f"{answer_id or new_id('call')}_"
        self._count = 0

    def new_id(self) -> str:
        """An id for what has none; the same whenever the same conversation, or answer with an id, is read."""
        self._count += 1
        return f"{UNNAMED}{self._prefix}{self._count}"

    def add(self, call: ToolCall) -> ToolCall:
        """A call was made."""
        self._open.append(call)
        return call

    def answered(self, call_id: str | None, name: str) -> ToolCall | None:
        """The call that an answer belongs to. Some clients make up ids that the call did not have."""
        found = next((at for at, call in enumerate(self._open) if call.id == call_id), None)
        if found is None:
            fitting = (
                at
                for at, call in enumerate(self._open)
                if call.name == name and (call_id is None or call.id.startswith(UNNAMED))
            )
            found = next(fitting, None)
        return None if found is None else self._open.pop(found)


def parse_part(value: Any, path: str, calls: Calls) -> Part:
    """One part; a part of a kind not known here is kept as `Opaque`."""
    part = read(value, path)
    whole = part.whole()
    kind = next((name for name in _DATA if whole.get(name) is not None), None)
    match kind:
        case "functionCall":
            return calls.add(_parse_call(part, calls))
        case "functionResponse":
            return _parse_result(part, calls)
        case "inlineData" | "fileData":
            return _parse_media(kind, part)
        case None if (other := next((name for name in whole if name not in _BESIDE), None)) is not None:
            return Opaque(other, whole)
        case _:  # a signature may come alone
            return _parse_text(part)


def _parse_text(part: Fields) -> Part:
    text, signature = part.optional_string("text") or "", part.optional_string("thoughtSignature")
    if part.boolean("thought"):
        return Thinking(text, signature, False, part.rest())
    return Text(text, {**absent_if_none(thoughtSignature=signature), **part.rest()})


def _parse_call(part: Fields, calls: Calls) -> ToolCall:
    call = _required(part, "functionCall")
    return ToolCall(
        id=call.optional_string("id") or calls.new_id(),
        name=call.string("name"),
        input=call.mapping("args"),
        signature=part.optional_string("thoughtSignature"),
        extra=_with(part, "functionCall", call),
    )


def _parse_media(kind: str, part: Fields) -> Media:
    source = _required(part, kind)
    media_type, title = source.optional_string("mimeType"), source.optional_string("displayName")
    if kind == "inlineData":
        data = source.string("data").translate(_STANDARD)
        extra = _with(part, kind, source)
        return Media(kind=_kind_of(media_type), media_type=media_type, data=data, title=title, extra=extra)
    url = source.string("fileUri")
    extra = _with(part, kind, source)
    return Media(kind=_kind_of(media_type), media_type=media_type, url=url, title=title, extra=extra)


_STANDARD = str.maketrans("-_", "+/")  # Google's clients write base64 in its URL form


def _kind_of(media_type: str | None) -> MediaKind:
    family = (media_type or "").partition("/")[0].lower()
    if family == "image":
        return "image"
    return "audio" if family == "audio" else "video" if family == "video" else "document"


def _parse_result(part: Fields, calls: Calls) -> ToolResult:
    answer = _required(part, "functionResponse")
    given, name = answer.optional_string("id"), answer.string("name")
    response = answer.mapping("response")
    media = [parse_part(item, path, calls) for path, item in several(answer, "parts")]
    call = calls.answered(given, name)
    call_id = call.id if call is not None else given or calls.new_id()
    extra = _with(part, "functionResponse", answer)
    if given is not None and given != call_id:
        extra["id"] = given
    if call is None or call.name != name:
        extra["name"] = name
    text, is_error = _read_response(response)
    if _write_response(text, is_error=is_error) != response:
        extra["response"] = response
    texts = () if text is None else (Text(text),)
    return ToolResult(call_id=call_id, content=(*texts, *media), is_error=is_error, extra=extra)


def _read_response(response: dict[str, Any]) -> tuple[str | None, bool]:
    """What a function answered, and whether it failed. By convention `output` or `result` holds it, or `error`."""
    if len(response) == 1:
        [(key, value)] = response.items()
        if key in {"output", "result", "error"}:
            text = value if isinstance(value, str) else to_json(value).decode()
            return text, key == "error"
    return (to_json(response).decode(), False) if response else (None, False)


def _write_response(text: str | None, *, is_error: bool) -> dict[str, Any]:
    if text is None:
        return {"error": ""} if is_error else {}
    return {"error" if is_error else "output": text}


def _required(part: Fields, name: str) -> Fields:
    value = inner(part, name)
    if value is None:
        raise ValidationError(f"{part.at(name)}: field required")
    return value


def _with(part: Fields, name: str, source: Fields) -> dict[str, Any]:
    """What is left of a part and of the object in it."""
    return {**part.rest(), **({name: rest} if (rest := source.rest()) else {})}


class PartBuilder:
    """Writes parts, in order: an answer needs the name of the call that it answers.

    `own` says whether `extra` and opaque parts are in this wire's spelling; without `nests` what a function showed
    goes beside its answer, for models that take no media in it. Thoughts without a place on this wire are left out.
    """

    def __init__(self, *, own: bool, nests: bool = True, thoughts: bool = False) -> None:
        self._own = own
        self._nests = nests
        self._thoughts = own or thoughts
        self._names: dict[str, str] = {}

    def build(self, parts: Iterable[Part]) -> list[dict[str, Any]]:
        """The wire's parts."""
        beside: list[dict[str, Any]] = []
        built = [each for part in parts for each in self._parts(part, beside)]
        return [*built, *beside]

    def _parts(self, part: Part, beside: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        match part:
            case ToolResult():
                yield self._result(part, beside)
            case ToolCall():
                yield self._call(part)
            case Text() if part.text or self._own:
                yield {"text": part.text, **self._extra(part)}
            case Thinking() if self._thoughts:
                signature = absent_if_none(thoughtSignature=part.signature)
                yield {"text": part.text, "thought": True, **signature, **self._extra(part)}
            case Media():
                yield self._media(part)
            case Opaque() if self._own:
                yield dict(part.data)
            case _:
                pass

    def _extra(self, part: Text | Thinking | Media | ToolCall | ToolResult) -> dict[str, Any]:
        return part.extra if self._own else {}

    def _call(self, call: ToolCall) -> dict[str, Any]:
        self._names[call.id] = call.name
        extra = dict(self._extra(call))
        more = extra.pop("functionCall", {})
        call_id = None if call.id.startswith(UNNAMED) else call.id
        signature = call.signature if self._own else None
        known = {**absent_if_none(id=call_id), "name": call.name, "args": call.input}
        return {"functionCall": {**known, **more}, **absent_if_none(thoughtSignature=signature), **extra}

    def _result(self, result: ToolResult, beside: list[dict[str, Any]]) -> dict[str, Any]:
        extra = dict(self._extra(result))
        more: dict[str, Any] = extra.pop("functionResponse", {})
        call_id = extra.pop("id", None) or (None if result.call_id.startswith(UNNAMED) else result.call_id)
        name = extra.pop("name", None) or self._names.get(result.call_id, result.call_id)
        texts = [part for part in result.content if isinstance(part, Text)]
        text = text_of(tuple(texts)) if texts else None
        response = extra.pop("response", None)
        # What was said may have been rewritten on the way here; then that counts.
        if response is None or _read_response(response) != (text, result.is_error):
            response = _write_response(text, is_error=result.is_error)
        known = {**absent_if_none(id=call_id), "name": name, "response": response}
        media = [self._media(part) for part in result.content if isinstance(part, Media)]
        if self._nests and media:
            known["parts"] = media
        else:
            beside.extend(media)
        return {"functionResponse": {**known, **more}, **extra}

    def _media(self, part: Media) -> dict[str, Any]:
        extra = dict(self._extra(part))
        if part.text is not None:
            return {"text": f"{part.title}\n\n{part.text}" if part.title else part.text}
        known = absent_if_none(mimeType=part.media_type, displayName=part.title if self._own else None)
        if part.data is not None:
            known = {"mimeType": _FALLBACKS[part.kind], **known, "data": part.data, **extra.pop("inlineData", {})}
            return {"inlineData": known, **extra}
        if part.url is None:
            raise ValidationError(f"this wire cannot carry an {part.kind} by file id")
        if not self._own:
            known.setdefault("mimeType", _FALLBACKS[part.kind])
        return {"fileData": {**known, "fileUri": part.url, **extra.pop("fileData", {})}, **extra}
