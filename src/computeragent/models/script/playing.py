"""Plays a script: the reply to each request, and which of its faults are still due."""

from __future__ import annotations

from msgspec import Struct

from computeragent.dialects.model import ModelError, ModelRequest, ModelResponse
from computeragent.dialects.retry import kind_of_status
from computeragent.models.script.matching import choose_reply
from computeragent.models.script.replies import build_reply, conversation_key
from computeragent.models.script.rules import Break, ErrorReply, Reply, Script

_MAX_COUNTERS = 10_000


class Performance(Struct, frozen=True, kw_only=True):
    """What is to be done for one request: wait as `reply` says, then fail with `error` or give `response`.

    A streamed response goes wrong as `broken` says, where that is set.
    """

    reply: Reply
    response: ModelResponse | None = None
    error: ModelError | None = None
    broken: Break | None = None


class Player:
    """One run of a script. It only remembers how often the same conversation was asked for, for faults and ids."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._counters: dict[str, int] = {}

    def play(self, request: ModelRequest, *, id_prefix: str = "msg_", call_prefix: str = "toolu_") -> Performance:
        """The performance for a request; the prefixes make ids look like the wire's."""
        reply, turn = choose_reply(self.script, request)
        key = conversation_key(request)
        if reply.error is not None and self._is_due(f"error {key}", reply.error.times):
            return Performance(reply=reply, error=_model_error(reply.error))
        # The same conversation may run twice in one session (two sub-agents), and ids must differ there.
        number = self._count(f"answer {key}")
        response = build_reply(reply, turn, f"{key}/{number}", id_prefix=id_prefix, call_prefix=call_prefix)
        broken = reply.broken if request.stream else None
        if broken is not None and not self._is_due(f"break {key}", broken.times):
            broken = None
        return Performance(reply=reply, response=response, broken=broken)

    def _is_due(self, key: str, times: int | None) -> bool:
        return times is None or self._count(key) < times

    def _count(self, key: str) -> int:
        """How often this was asked for before."""
        count = self._counters.pop(key, 0)
        self._counters[key] = count + 1  # newest last, so that the oldest can be dropped
        if len(self._counters) > _MAX_COUNTERS:
            del self._counters[next(iter(self._counters))]
        return count


def _model_error(wrong: ErrorReply) -> ModelError:
    kind, after = kind_of_status(wrong.status), wrong.retry_after
    return ModelError(kind=kind, message=wrong.message, status=wrong.status, type=wrong.type, retry_after=after)
