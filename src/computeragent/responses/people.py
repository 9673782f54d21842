"""Where a person answers as the model ``human/human``: a page, and what it asks for."""

from __future__ import annotations

from typing import Any

from computeragent.server.endpoint import Call


class People:
    """The routes of the page."""

    async def page(self, call: Call) -> Any:
        """`GET /human`."""
        raise NotImplementedError

    pending = answer = page
