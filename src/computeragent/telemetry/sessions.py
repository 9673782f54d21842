"""The sessions that a pipeline hears of: who acts when one has to stop, and what each knows, until it has ended."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from computeragent.telemetry.protocols import Trip


class Watcher(Protocol):
    """What tells a session to a pipeline."""

    def stop(self, trip: Trip, /) -> None:
        """A guard tripped; called on the pipeline's thread."""
        ...

    def leave(self) -> None:
        """The pipeline closes and nobody takes over: tell the session's end now, if it has none."""
        ...

    def abandon(self) -> None:
        """After a fork, in the child: the session is the parent's. Tell nothing more of it."""
        ...


class Sessions:
    """Sessions under way. Watchers are held weakly."""

    def __init__(self) -> None:
        self._watchers: weakref.WeakValueDictionary[str, Watcher] = weakref.WeakValueDictionary()
        self._settings: dict[str, Sequence[Any]] = {}

    def watch(self, session_id: str, watcher: Watcher) -> None:
        """Have `watcher` act on a session."""
        self._watchers[session_id] = watcher

    def stop(self, session_id: str, trip: Trip) -> None:
        """A guard tripped on a session."""
        watcher = self._watchers.get(session_id)
        if watcher is not None:
            watcher.stop(trip)

    def know(self, session_id: str, settings: Sequence[Any]) -> None:
        """Keep the settings that a session's credentials are in."""
        self._settings[session_id] = settings

    def known(self) -> dict[str, Sequence[Any]]:
        """The settings of the sessions under way."""
        return dict(self._settings)

    def ended(self, session_id: str) -> None:
        """Let go of what a session knew. Its watcher may already be that of the session's next run, and stays."""
        self._settings.pop(session_id, None)

    def leave(self) -> None:
        """Have all sessions end."""
        for watcher in self.watchers().values():
            watcher.leave()

    def abandon(self) -> None:
        """Forget all sessions, and have nothing more told of them."""
        for watcher in self.watchers().values():
            watcher.abandon()
        self._watchers = weakref.WeakValueDictionary()
        self._settings = {}

    def watchers(self) -> dict[str, Watcher]:
        """Who acts on which session."""
        found = ((ref.key, ref()) for ref in self._watchers.valuerefs())
        return {session_id: watcher for session_id, watcher in found if watcher is not None}
