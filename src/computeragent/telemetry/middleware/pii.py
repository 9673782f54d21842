"""`PiiRedactor`: personal data and secrets out of every event, before any spool or sink sees it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from re import Pattern
from typing import Any, cast

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.redaction import IGNORED_NETWORKS, Redactor, Strategy, Vault, credentials_in

_EDGE = 512
_SESSIONS = 10_000
_JOINED = ("text", "thinking")


class PiiRedactor:
    """Redacts payloads (keys, texts, numbers, bytes, JSON in texts) and the agent's name, id and description.

    The arguments are those of `Redactor`; `include_builtins=False` leaves only `extra_patterns`, the paths and the
    known values. Paths are relative to the payload, such as ``tool_input.password``. Credentials of the process
    (environment, `options.env`, MCP configuration) are found by value, in any encoding, whatever their format.
    A secret that ends one block of a reply and goes on in the next is taken out where it goes on.
    """

    def __init__(
        self,
        *,
        strategy: Strategy = "mask",
        extra_patterns: Iterable[Pattern[str] | str] | None = None,
        path_allowlist: Iterable[str] | None = None,
        path_denylist: Iterable[str] | None = None,
        include_builtins: bool = True,
        key: bytes | None = None,
        detectors: Iterable[str] | None = None,
        vault: Vault | None = None,
        known_values: Iterable[str] = (),
        ignored_networks: Sequence[str] = IGNORED_NETWORKS,
    ) -> None:
        self._redactor = Redactor(
            strategy,
            extra_patterns=extra_patterns or (),
            path_allowlist=path_allowlist or (),
            path_denylist=path_denylist or (),
            key=key,
            detectors=detectors if include_builtins else (),
            vault=vault,
            known_values=known_values,
            ignored_networks=ignored_networks,
        )
        self._always = frozenset(known_values)
        self._secrets: dict[str, frozenset[str]] = {}
        self._edges: OrderedDict[str, dict[str, str]] = OrderedDict()

    def __repr__(self) -> str:
        return f"PiiRedactor({self._redactor!r})"

    async def __call__(self, event: TelemetryEvent) -> TelemetryEvent | None:
        """Redact one event, in place."""
        payload = event.payload
        if event.kind == "assistant_message" and "parent_tool_use_id" not in payload:
            payload = self._joined(event.session_id, payload)
        elif event.kind in {"turn_started", "session_ended"}:
            self._edges.pop(event.session_id, None)
        event.payload = self._redactor.redact(payload)
        event.agent_name = self._text(event.agent_name)
        event.agent_id = self._text(event.agent_id)
        event.agent_description = self._text(event.agent_description)
        return event

    # ── Known secrets ──

    def learn(self, session_id: str, settings: Sequence[Any]) -> None:
        """Find the credentials among these settings by value, until the session is over."""
        found: set[str] = set()
        for one in settings:
            if isinstance(one, Mapping):
                found.update(credentials_in(cast("Mapping[str, Any]", one)))
        self._secrets[session_id] = frozenset(found)
        self._redactor.known_values(found)

    def forget(self, session_id: str) -> None:
        """The session is over: its credentials are looked for no longer, unless another session has them too."""
        gone = self._secrets.pop(session_id, frozenset[str]())
        still = self._always.union(*self._secrets.values())
        self._redactor.known.discard(gone - still)
        self._edges.pop(session_id, None)

    # ── Texts ──

    def _text(self, text: str | None) -> str | None:
        return self._redactor.redact_text(text) if text else text

    def _joined(self, session_id: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload with what begins in the block before, and goes on in this one, taken out."""
        edges = self._edges.setdefault(session_id, {})
        if len(self._edges) > _SESSIONS:
            self._edges.popitem(last=False)
        changed: dict[str, Any] = {}
        for name in _JOINED:
            text = payload.get(name)
            if not isinstance(text, str) or not text:
                continue
            before = edges.get(name, "")
            edges[name] = (before + text)[-_EDGE:]
            if before:
                head = self._redactor.redact_joined([before, text[:_EDGE]])[1]
                if head != text[:_EDGE]:
                    changed[name] = head + text[_EDGE:]
        return {**payload, **changed} if changed else payload
