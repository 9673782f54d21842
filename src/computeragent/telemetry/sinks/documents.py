"""AgentOS's documents of an agent and of a chat, as a client writes them: the shapes alone, without a database.

``agent_registry`` has one document per agent, known by its name or by the git repository that it comes from;
``agent_logs`` has one per chat. Times are UTC in milliseconds, money is in US dollars.
"""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from computeragent.errors import ValidationError
from computeragent.identity.repository import parse_repository
from computeragent.identity.sources import parse_source
from computeragent.telemetry.bounds import MAX_TEXT, shorten, truncate
from computeragent.telemetry.redaction import Redactor
from computeragent.wire.encoding import from_json, to_json

LONGEST_QUERY = 8_000
LONGEST_REPLY = 16_000
_LONGEST_READ = 262_144

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """What the user says about the agent; what is None is taken from the agent itself."""

    name: str
    source: Json | None = None
    harness: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, value: str | Mapping[str, Any]) -> RegisteredAgent:
        """The agent of a name, or of a mapping with ``name``, ``source``, ``harness`` and ``model``.

        Raises `ValidationError` for what has no name or no valid source.
        """
        given: Mapping[str, Any] = {"name": value} if isinstance(value, str) else value
        unknown = sorted(set(given) - {"name", "source", "harness", "model"})
        name = given.get("name")
        if not isinstance(name, str) or not name.strip() or unknown:
            raise ValidationError(
                f"agent has unknown keys: {', '.join(unknown)}" if unknown else "agent needs a name",
                hint='Such as agent="triage" or agent={"name": "triage", "source": …, "harness": …}.',
            )
        source = given.get("source")
        return cls(
            name=name.strip(),
            source=None if source is None else msgspec.to_builtins(parse_source(source)),
            harness=_named(given.get("harness")),
            model=given.get("model"),
        )

    def registry(self, info: Mapping[str, Any]) -> Json:
        """The fields of its registry document, given what `on_agent_constructed` is told."""
        model = self.model or info.get("model")
        source = self.source if self.source is not None else info.get("source")
        return {
            "harness": self.harness or _named(info.get("engine") or info.get("harness")) or "",
            "source": _without_credentials(source),
            "model": None if model is None else str(model),
            "registeredBy": socket.gethostname(),
            "updatedAt": now(),
            "lastSeen": now(),
        }


def chat_log(info: Mapping[str, Any], message: Any) -> Json:
    """The log document of a chat, given what `on_chat_end` is told and what was asked; without the agent's name."""
    usage = info.get("usage")
    document: Json = {
        "_id": f"log_{uuid.uuid4().hex}",
        "ts": now(),
        "source": "library",
        "requester": "library",
        "channel": None,
        "threadTs": None,
        "sessionId": info.get("session_id"),
        "query": text_of(message),
        "reply": str(info.get("reply") or ""),
        "ok": bool(info.get("ok")),
    }
    told = {
        "error": str(info["error"]) if info.get("error") else None,
        "durationMs": _whole(info.get("duration_ms")),
        "inputTokens": _whole(_of(usage, "input_tokens")),
        "outputTokens": _whole(_of(usage, "output_tokens")),
        "costUsd": _of(usage, "cost_usd"),
    }
    return document | {name: value for name, value in told.items() if value is not None}


def clean_registry(document: Json, redactor: Redactor) -> None:
    """Redact a registry document, in place, down to what JSON has a form for."""
    document["source"] = from_json(_encoded(redactor.redact(truncate(document["source"], MAX_TEXT))))
    if document["model"] is not None:
        document["model"] = redactor.redact_text(document["model"])


def clean_log(document: Json, redactor: Redactor) -> None:
    """Redact a log document, then cut it, in place: a secret that is cut in half would be found no more."""
    for name, limit in (("query", LONGEST_QUERY), ("reply", LONGEST_REPLY), ("error", LONGEST_REPLY)):
        if document.get(name):
            text = document[name].encode("utf-8", "replace").decode()
            document[name] = shorten(redactor.redact_text(shorten(text, _LONGEST_READ)), limit)


def same_repository(source: Any) -> Json | None:
    """A query for the registry documents of the same folder in the same git repository; None for other sources.

    The repository may be written in any of the usual ways there. The ref is not part of what an agent is.
    """
    if not isinstance(source, Mapping):
        return None
    given = cast("Mapping[str, Any]", source)
    url = given.get("url")
    if given.get("type") != "git" or not isinstance(url, str):
        return None
    try:
        name = parse_repository(url, allow_file=True).name
    except ValidationError:
        return None
    spelled = {url}
    if not url.startswith("file:"):
        host, _, path = name.partition("/")
        for form in (name, f"https://{name}", f"http://{name}", f"git@{host}:{path}", f"ssh://git@{name}"):
            spelled |= {form, f"{form}.git"}
    return {"source.type": "git", "source.url": {"$in": sorted(spelled)}, "source.subdir": given.get("subdir")}


def text_of(message: Any) -> str:
    """The text of a chat's input: of every message, and of their content blocks. An iterator is not consumed."""
    if isinstance(message, str):
        return message
    if isinstance(message, Sequence) and not isinstance(message, (bytes, bytearray)):
        parts = [text_of(item) for item in cast("Sequence[Any]", message)]
        return "\n\n".join(part for part in parts if part)
    for name in ("content", "text"):
        found = _of(message, name)
        if found is not None:
            return text_of(found)
    return ""


def now() -> datetime:
    """The time, in the milliseconds that MongoDB keeps."""
    return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)


def _without_credentials(source: Any) -> Any:
    """A source without the credentials that an address may carry; the user of an SSH address is none."""
    if not isinstance(source, Mapping):
        return source
    given = dict(cast("Mapping[str, Any]", source))
    if isinstance(given.get("url"), str):
        given["url"] = re.sub(r"^(https?://)[^/]*@|(?<=//)([^/@:]*):[^/]*(?=@)", r"\1\2", given["url"])
    return given


def _named(value: Any) -> str | None:
    """The name of an engine that may be given as the engine itself."""
    return None if value is None else str(value if isinstance(value, str) else getattr(value, "name", value))


def _encoded(value: Any) -> bytes:
    """JSON of a value, or of its text where it has none."""
    try:
        return to_json(value)
    except (TypeError, ValueError, RecursionError):
        return to_json(repr(value)[:MAX_TEXT])


def _of(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value).get(name)
    return getattr(value, name, None)


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None
