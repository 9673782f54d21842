"""Where a person answers as the model ``human/human``: a page, and what it asks for.

The page holds nothing; what waits is told to whoever runs the server alone, since it is everybody's.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from starlette.responses import Response

from computeragent.errors import InsufficientPermissionError
from computeragent.models.human import HumanQueue, Waiting, queue
from computeragent.server.endpoint import Call

CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"
)


class PersonAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /human/{id}`: a text, actions of `computer.actions`, or both."""

    text: str | None = None
    actions: list[dict[str, Any]] = []


class People:
    """The routes of the page; `people` are asked (default: the process's own queue)."""

    def __init__(self, people: HumanQueue | None = None) -> None:
        self._people = people if people is not None else queue()

    async def page(self, call: Call) -> Response:
        """`GET /human`."""
        del call
        return Response(_page(), media_type="text/html", headers={"content-security-policy": CONTENT_POLICY})

    async def pending(self, call: Call) -> dict[str, Any]:
        """`GET /human/pending`."""
        _require_local(call)
        return {"pending": [_shown(waiting) for waiting in self._people.pending()]}

    async def answer(self, call: Call) -> dict[str, Any]:
        """`POST /human/{request_id}`."""
        _require_local(call)
        given: PersonAnswer = call.body
        self._people.answer(call.path["request_id"], text=given.text, actions=given.actions)
        return {"ok": True}


def _require_local(call: Call) -> None:
    if not call.principal.local:
        raise InsufficientPermissionError("only whoever runs this server answers as a model")


def _shown(waiting: Waiting) -> dict[str, Any]:
    return {
        "id": waiting.id,
        "task": _task(waiting),
        "text": waiting.text,
        "screenshot": waiting.screenshot and f"data:{waiting.media_type or 'image/png'};base64,{waiting.screenshot}",
        "tools": list(waiting.tools),
        "asked_at": waiting.asked_at,
    }


def _task(waiting: Waiting) -> str:
    """What the user said last; what came of actions since is in `text`."""
    said = [message.text for message in waiting.request.messages if message.role == "user" and message.text]
    return said[-1] if said else ""


@cache
def _page() -> bytes:
    return files("computeragent.responses").joinpath("templates/human.html").read_bytes()
