"""What a callable model is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from computeragent.dialects.events import ModelEvent
from computeragent.dialects.model import ModelRequest


class Model(Protocol):
    """Answers requests. One object may serve many at once."""

    @property
    def name(self) -> str:
        """The model's name as its provider knows it."""
        ...

    @property
    def dialect(self) -> str:
        """The wire that it is spoken to in (`dialects.DIALECTS`), or ``neutral``."""
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer's events. `request.model` is overridden by `name`.

        Ends with `Ended`. Raises `ModelCallError` for every failure, before or in the midst of the answer; what may
        be tried again before the first event was tried again already. Closing the iterator ends the call.
        """
        ...

    async def aclose(self) -> None:
        """Let connections go."""
        ...
