"""Recorded events as they are shown: like the turns that they were, or as lines of JSON."""

from __future__ import annotations

import sys
from typing import Self

from computeragent.approval import printable
from computeragent.cli.render import TurnView, terminal
from computeragent.wire.events import CaSessionEnded, CaTurnStarted, Recorded
from computeragent.wire.requests import UserInput


class Playback:
    """Prints events, each at once. With `with_ids` a line of JSON begins with the event's id."""

    def __init__(self, *, as_json: bool, with_ids: bool = False) -> None:
        self._as_json = as_json
        self._with_ids = with_ids
        self._console = terminal()
        self._view = TurnView(self._console)
        self.ended: CaSessionEnded | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._view.close_line()

    def play(self, recorded: Recorded) -> None:
        """Print one event."""
        event = recorded.event
        self.ended = event if isinstance(event, CaSessionEnded) else None
        if self._as_json:
            line = recorded.data
            if self._with_ids:
                line = b'{"id":%d,%s' % (recorded.id, line[1:])
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
            return
        if isinstance(event, CaTurnStarted) and event.message is not None:
            self._console.print(f"› {printable(_typed(event.message))}", style="bold")
        self._view.show(event)
        sys.stdout.flush()

    @property
    def status(self) -> int:
        """The exit status of a command that has played a run: as the run ended."""
        return 1 if self.ended is None else {"complete": 0, "cancelled": 130}.get(self.ended.reason, 1)


def _typed(message: UserInput) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(str(block.get("text") or f"[{block.get('type')}]") for block in message.content)
