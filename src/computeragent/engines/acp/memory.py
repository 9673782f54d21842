"""What a session store keeps of a run: which session of the agent's own it was, and what was said."""

from __future__ import annotations

import uuid
from typing import Any, cast

from computeragent.protocol_types import EngineContext

_SESSION = "ca_acp_session"
_SAID = {"ca_user": "User", "ca_agent": "You"}
_LONGEST = 200_000


class Memory:
    """One session's memory; empty without a store. `recall` first."""

    def __init__(self, ctx: EngineContext, agent: str) -> None:
        self._store = ctx.session_store
        self._key: Any = {"project_key": ctx.project_key, "session_id": ctx.session_id}
        self._agent = agent
        self._said: list[tuple[str, str]] = []
        self.session_id: str | None = None
        """The agent's own name of the session; None where there was none, or another agent's."""

    async def recall(self) -> None:
        """Read what is kept."""
        if self._store is None:
            return
        for each in await self._store.load(self._key) or []:
            entry = cast("dict[str, Any]", each)
            kind = entry.get("type")
            if kind == _SESSION:
                self.session_id = str(entry.get("id")) if entry.get("agent") == self._agent else None
            elif kind in _SAID:
                self._said.append((_SAID[kind], str(entry.get("text", ""))))

    async def remember_session(self, session_id: str) -> None:
        """Keep the agent's own name of the session."""
        if session_id != self.session_id:
            self.session_id = session_id
            await self._append({"type": _SESSION, "agent": self._agent, "id": session_id})

    async def remember(self, user: str, agent: str) -> None:
        """Keep a turn."""
        await self._append({"type": "ca_user", "text": user}, {"type": "ca_agent", "text": agent})

    @property
    def story(self) -> str:
        """The conversation so far as a text, for an agent that does not have it any more; its end, where it is long."""
        lines = [f"{who}: {text}" for who, text in self._said if text]
        if not lines:
            return ""
        told = "\n\n".join(lines)[-_LONGEST:]
        return f"What was said in this conversation before:\n\n{told}\n\nGo on from there."

    async def _append(self, *entries: dict[str, Any]) -> None:
        if self._store is not None:
            kept: Any = [{**entry, "uuid": str(uuid.uuid4())} for entry in entries]
            await self._store.append(self._key, kept)
