"""The redactor: the one thing to put in front of whatever leaves the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network
from re import Pattern
from typing import Any

from computeragent.errors import ValidationError
from computeragent.telemetry.redaction.engine import Engine
from computeragent.telemetry.redaction.extra import compiled
from computeragent.telemetry.redaction.findings import Finding, merge
from computeragent.telemetry.redaction.kinds import chosen
from computeragent.telemetry.redaction.known import KnownValues
from computeragent.telemetry.redaction.paths import PathRules
from computeragent.telemetry.redaction.strategies import PLACEHOLDER, TOKEN, Strategy, replacement
from computeragent.telemetry.redaction.vault import Vault
from computeragent.telemetry.redaction.walk import Walk, may_be_json

IGNORED_NETWORKS = ("127.0.0.0/8", "0.0.0.0/8", "224.0.0.0/3", "::1/128", "::/128", "ff00::/8")
"""Addresses that are nobody's: loopback, unspecified, multicast, and the upper range where netmasks are."""
_ROUNDS = 8


class Redactor:
    """Takes personal data and secrets out of texts and of nested plain data.

    `strategy` says what stands in their place: ``mask`` (``[REDACTED:EMAIL]``), ``hash`` (a keyed HMAC), ``tokenize``
    (undone by `restore`, through `vault`) or ``drop``. `detectors` names those to use, by default all. `extra_patterns`
    are regular expressions of your own. Values at paths of `path_denylist` are redacted whole, those of
    `path_allowlist` are left alone; the denylist wins. `known_values` are secrets to find by value. Addresses in
    `ignored_networks` are no findings. `pause` is called between windows of a large text. Safe to use from any thread.
    """

    def __init__(
        self,
        strategy: Strategy = "mask",
        *,
        extra_patterns: Iterable[str | Pattern[str]] = (),
        path_allowlist: Iterable[str] = (),
        path_denylist: Iterable[str] = (),
        key: bytes | None = None,
        detectors: Iterable[str] | None = None,
        vault: Vault | None = None,
        known_values: KnownValues | Iterable[str] = (),
        ignored_networks: Sequence[str] = IGNORED_NETWORKS,
        pause: Callable[[], object] | None = None,
        use_re2: bool = True,
    ) -> None:
        self.strategy = strategy
        self._replace, self._vault = replacement(strategy, key, vault)
        self._kinds = chosen(detectors)
        self._known = known_values if isinstance(known_values, KnownValues) else KnownValues(known_values)
        self._allow = PathRules(path_allowlist)
        self._deny = PathRules(path_denylist)
        self._engine = Engine(
            kinds=self._kinds,
            placeholder=PLACEHOLDER,
            known=self._known,
            extra=compiled(extra_patterns, use_re2=use_re2),
            ignored=_ignored(ignored_networks),
            pause=pause,
            use_re2=use_re2,
        )

    def __repr__(self) -> str:
        return f"Redactor(strategy={self.strategy!r}, {len(self._kinds)} detectors, {self._known!r})"

    @property
    def known(self) -> KnownValues:
        """The secrets found by value; add to them and take from them at any time."""
        return self._known

    def known_values(self, values: Iterable[str]) -> None:
        """Find these secrets too from now on, by value and in whatever encoding."""
        self._known.add(values)

    def redact(self, value: Any) -> Any:
        """The value without what is sensitive: a copy where something changed, else the same object."""
        if type(value) is str and not (self._allow or self._deny or may_be_json(value)):
            return self.redact_text(value)  # as the walk would, without its set-up
        return Walk(self.redact_text, self._replace, self._kinds, self._allow, self._deny).run(value)

    def redact_text(self, text: str, hint: str = "") -> str:
        """One text, redacted. `hint` is the name it stands under, such as ``phone``."""
        found = self._engine.find(text, hint)
        # what a replacement leaves side by side may be a finding itself; again until nothing is found
        for _ in range(_ROUNDS):
            if not found:
                break
            text, changed = self._applied(text, found)
            found = self._engine.find_near(text, changed, hint)
        return text

    def redact_joined(self, parts: Sequence[str]) -> list[str]:
        """Pieces of one text, each redacted, with what is spread over several of them found."""
        pieces = list(parts)
        for _ in range(_ROUNDS):
            joined = "".join(pieces)
            found = self._engine.find(joined)
            place = 0
            if len(pieces) > 1:
                # a piece may begin a new text, so what stands at its edge counts as it stands alone too
                for piece in pieces:
                    alone = self._engine.find(piece)
                    found.extend(Finding(one.kind, one.start + place, one.end + place) for one in alone)
                    place += len(piece)
            if not found:
                break
            pieces = self._spread(joined, pieces, merge(found))
        return pieces

    def find(self, text: str) -> list[Finding]:
        """What is sensitive in a text: kinds and spans, in order, never the values."""
        return self._engine.find(text)

    def restore(self, text: str) -> str:
        """The text with its tokens turned back into values; for ``strategy="tokenize"`` alone."""
        vault = self._vault
        if vault is None:
            raise ValidationError(
                f"the strategy {self.strategy!r} cannot be undone", hint='Use strategy="tokenize" with a vault.'
            )
        return TOKEN.sub(lambda match: vault.get(match.group()) or match.group(), text)

    def _applied(self, text: str, found: list[Finding]) -> tuple[str, list[tuple[int, int]]]:
        """The text with the findings replaced, and where the replacements are."""
        parts: list[str] = []
        changed: list[tuple[int, int]] = []
        place = shift = 0
        for one in found:
            parts.append(text[place : one.start])
            parts.append(self._replace(one.kind, text[one.start : one.end]))
            place = one.end
            start = one.start + shift
            changed.append((start, start + len(parts[-1])))
            shift += len(parts[-1]) - (one.end - one.start)
        parts.append(text[place:])
        return "".join(parts), changed

    def _spread(self, joined: str, pieces: list[str], found: list[Finding]) -> list[str]:
        """The findings taken out of every piece they touch; the replacement goes where each begins."""
        spread: list[str] = []
        start = 0
        first = 0
        for piece in pieces:
            end = start + len(piece)
            parts: list[str] = []
            place = start
            while first < len(found) and found[first].end <= start:
                first += 1
            for one in found[first:]:
                if one.start >= end:
                    break
                parts.append(joined[place : max(place, one.start)])
                if one.start >= start:
                    parts.append(self._replace(one.kind, joined[one.start : one.end]))
                place = min(end, one.end)
            parts.append(joined[place:end])
            spread.append("".join(parts))
            start = end
        return spread


def _ignored(networks: Sequence[str]) -> Callable[[str], bool]:
    ranges = [ip_network(network, strict=False) for network in networks]

    def is_ignored(address: str) -> bool:
        spelled = ip_address(address)
        return any(spelled in network for network in ranges if network.version == spelled.version)

    return is_ignored
