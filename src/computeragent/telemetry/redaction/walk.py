"""Walking nested plain data: what changed is copied, what did not is the same object, nothing is mutated."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from re import compile as regex
from typing import Any, Protocol, cast

from computeragent.telemetry.redaction.paths import PathRules
from computeragent.telemetry.redaction.secrets import is_secret_name, is_secret_value, secret_kind
from computeragent.telemetry.redaction.strategies import PLACEHOLDER, Replace

_DEEPEST = 100
_LONGEST_JSON = 1 << 20
_CAMEL = regex(r"(?<=[a-z0-9])(?=[A-Z])")
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_AS_THEY_ARE = (
    bool,
    type(None),
    enum.Enum,
    dt.date,
    dt.time,
    dt.timedelta,
    uuid.UUID,
    type,
)
_Places = frozenset[tuple[int, int]]


class Texts(Protocol):
    """What a walk needs of the redactor: one text, with the name it stands under."""

    def __call__(self, text: str, hint: str = "") -> str:
        """The text, redacted."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """A place in the value: how far the path rules have come, the key that names it, and how deep it is."""

    allowed: _Places
    denied: _Places
    key: str = ""
    depth: int = 0
    hidden: bool = False
    spared: bool = False


class Walk:
    """One walk over one value."""

    def __init__(self, text: Texts, replace: Replace, kinds: frozenset[str], allow: PathRules, deny: PathRules) -> None:
        self._text = text
        self._replace = replace
        self._kinds = kinds
        self._allow = allow
        self._deny = deny
        self._rules = bool(allow) or bool(deny)
        self._open: set[int] = set()

    def run(self, value: Any) -> Any:
        """The value, redacted."""
        return self._value(value, Where(self._allow.start, self._deny.start))

    def _value(self, value: Any, where: Where) -> Any:
        if self._rules and not where.hidden:
            if self._deny.hit(where.denied):
                where = dataclasses.replace(where, hidden=True)
            elif self._allow.hit(where.allowed):
                where = dataclasses.replace(where, spared=True)
        if where.spared and not where.hidden and (not where.denied or not _is_container(value)):
            return value
        if isinstance(value, str):
            return self._string(value, where)
        if isinstance(value, _AS_THEY_ARE):
            return self._hidden(value) if where.hidden and value is not None else value
        if isinstance(value, int | float | decimal.Decimal):
            return self._number(value, where)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._octets(cast("bytes | bytearray | memoryview[int]", value), where)
        return self._container(value, where)

    def _string(self, value: str, where: Where) -> Any:
        if where.hidden:
            return self._hidden(value)
        kind = self._named_secret(value, where.key)
        if kind:
            return self._replace(kind, value)
        return self._json(value, where) if may_be_json(value) else self._text(value, where.key)

    def _named_secret(self, value: str, key: str) -> str | None:
        """The kind of a value that is secret for the name it stands under."""
        if not key or PLACEHOLDER.fullmatch(value):
            return None
        if "AUTH_HEADER" in self._kinds and key.lower() in _HEADERS and len(value) >= 6 and not value.startswith("["):
            return "AUTH_HEADER"
        kind = secret_kind(key)
        if kind not in self._kinds:
            return None
        sure = is_secret_name(key)
        return kind if sure is not False and is_secret_value(value, sure=bool(sure)) else None

    def _json(self, text: str, where: Where) -> str:
        redacted = self._text(text, where.key)
        stripped = text.strip()
        worthwhile = redacted != text or "\\u" in text or '\\"' in text or "\\/" in text or self._rules
        if not worthwhile or len(text) > _LONGEST_JSON or stripped[:1] + stripped[-1:] not in {"{}", "[]", '""'}:
            return redacted
        try:
            parsed: Any = json.loads(text)
        except (ValueError, RecursionError):
            return redacted
        walked = self._value(parsed, self._inner(where))
        if walked is parsed:
            return redacted
        compact = (",", ":") if ": " not in text and ", " not in text else None
        return self._text(json.dumps(walked, ensure_ascii=text.isascii(), separators=compact), where.key)

    def _number(self, value: float | decimal.Decimal, where: Where) -> Any:
        if where.hidden:
            return self._hidden(value)
        if isinstance(value, float):
            if not 1e8 <= abs(value) < 1e20 or not value.is_integer():
                return value
            spelled = str(int(value))
        else:
            spelled = str(value)
        if isinstance(value, int) and len(spelled) >= 4 and "SECRET" in self._kinds and is_secret_name(where.key):
            return self._replace("SECRET", spelled) or None
        if len(spelled) < 9 or len(spelled) > 32 or spelled[0] == "-":
            return value
        redacted = self._text(spelled, where.key or "#")
        return value if redacted == spelled else redacted or None

    def _octets(self, value: bytes | bytearray | memoryview[int], where: Where) -> Any:
        octets = bytes(value)
        encoding = "utf-8"
        try:
            text = octets.decode(encoding)
        except UnicodeDecodeError:
            encoding = "latin-1"
            text = octets.decode(encoding)
        redacted = self._string(text, where)
        if redacted == text:
            return value
        encoded = str(redacted).encode(encoding, "replace")
        return bytearray(encoded) if isinstance(value, bytearray) else encoded

    def _hidden(self, value: Any) -> Any:
        spelled = value if isinstance(value, str) else str(value)
        if not spelled or PLACEHOLDER.fullmatch(spelled):
            return value
        return self._replace("PATH", spelled) or ("" if isinstance(value, str) else None)

    def _inner(self, where: Where) -> Where:
        return dataclasses.replace(where, depth=where.depth + 1)

    def _below(self, where: Where, segment: str, key: str) -> Where:
        if not self._rules:
            return Where(where.allowed, where.denied, key, where.depth + 1, where.hidden, where.spared)
        return Where(
            self._allow.follow(where.allowed, segment),
            self._deny.follow(where.denied, segment),
            key,
            where.depth + 1,
            where.hidden,
            where.spared,
        )

    def _container(self, value: Any, where: Where) -> Any:
        identity = id(cast("object", value))
        if identity in self._open:
            return "[REDACTED:CYCLE]"
        if where.depth > _DEEPEST:
            return "[REDACTED:DEPTH]"
        self._open.add(identity)
        try:
            if isinstance(value, Mapping):
                return self._mapping(cast("Mapping[Any, Any]", value), where)
            if isinstance(value, list | tuple):
                return self._sequence(cast("list[Any] | tuple[Any, ...]", value), where)
            if isinstance(value, set | frozenset):
                return self._set(cast("set[Any] | frozenset[Any]", value), where)
            fields = _fields(value)
            if fields is not None:
                walked = self._mapping(fields, where)
                return value if walked is fields else walked
            return self._other(value, where)
        finally:
            self._open.discard(identity)

    def _mapping(self, value: Mapping[Any, Any], where: Where) -> Any:
        changed = False
        walked: dict[Any, Any] = {}
        for key, item in value.items():
            name = key if isinstance(key, str) else str(key)
            new_key = key if where.spared else self._key(key)
            # the name as it will read next time, so that a second redaction sees what the first one saw
            hint = PLACEHOLDER.sub("", _CAMEL.sub("_", str(new_key))) if len(name) <= 128 else ""
            new_item = self._value(item, self._below(where, name, hint))
            changed = changed or new_key is not key or new_item is not item
            while new_key is not key and (new_key in walked or new_key in value):
                new_key = f"{new_key}~"
            walked[new_key] = new_item
        return walked if changed else value

    def _key(self, key: Any) -> Any:
        if isinstance(key, str):
            redacted = self._text(key)
            return key if redacted == key else redacted
        if isinstance(key, tuple | int | bytes | float) and not isinstance(key, bool):
            spelled = str(cast("object", key))
            redacted = self._text(spelled, "#")
            return redacted if redacted != spelled else cast("Any", key)
        return key

    def _sequence(self, value: list[Any] | tuple[Any, ...], where: Where) -> Any:
        walked = [self._value(item, self._below(where, str(index), where.key)) for index, item in enumerate(value)]
        if all(new is old for new, old in zip(walked, value, strict=True)):
            return value
        if isinstance(value, tuple):
            make: Callable[[Iterable[Any]], Any] = getattr(type(value), "_make", tuple)
            return make(walked)
        return walked

    def _set(self, value: set[Any] | frozenset[Any], where: Where) -> Any:
        pairs = [(item, self._value(item, self._below(where, "*", where.key))) for item in value]
        if all(new is old for old, new in pairs):
            return value
        walked = [new if _hashable(new) else str(new) for _, new in pairs]
        return frozenset(walked) if isinstance(value, frozenset) else set(walked)

    def _other(self, value: Any, where: Where) -> Any:
        """An object of another kind: whoever serialises it later will take its text."""
        try:
            spelled = str(value)
        except Exception:  # noqa: BLE001  # a foreign __str__ may raise anything, and then nothing can leak through it
            return value
        redacted = self._string(spelled, where)
        return value if redacted == spelled else redacted


def may_be_json(text: str) -> bool:
    """Whether a text begins as JSON does that holds texts."""
    return text[:1] in '{["' or text[:1].isspace()


def _is_container(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple | set | frozenset) or _fields(value) is not None


def _fields(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    kind: Any = cast("object", value).__class__
    names: Any = getattr(kind, "__struct_fields__", None)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    dump: Any = getattr(value, "model_dump", None)
    if callable(dump) and hasattr(kind, "model_fields"):
        dumped: Any = dump()
        return cast("dict[str, Any]", dumped) if isinstance(dumped, dict) else None
    return None


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
