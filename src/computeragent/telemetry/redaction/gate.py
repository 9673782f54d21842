"""The cheap first look, when google-re2 is installed (extra ``pii``): which families of detectors a text needs at all.

Without it every family has a look of its own that is cheap enough, through byte tables.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

_NEEDED: tuple[tuple[str, str], ...] = (
    ("numbers", r"[0-9](?:[ .()/\n\t-]{0,3}[0-9]){6}"),
    ("numbers", r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),
    ("numbers", r"[0-9][ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9A-D][A-DF-Y]?"),
    ("emails", r"[^\s@]@[^\s@.]+\.[^\s@]|[^\s@]@\["),
    ("emails", r"(?i)%40|&#|&commat|u0040| dot |dot[\])]|at ?[\])}]|[\[(]@"),
    (
        "tokens",
        (
            r"(?:^|[^A-Za-z0-9])(?:cak_|sk[-_]|AIza|hf[_-]|api_org_|gsk_|r8_|fw_|nvapi|together_|esecret|xai|pplx|tvly|csk|jina"
            r"|lsv2_|gh[opsur]_|github_pat|gl[a-z]{2,5}[-_]|ATBB|AT[CA]TT|BBDC-|xox|xapp-|rk_|whsec_|npm_|pypi-|dckr_|rubygems_|cio"
            r"|oy2|do[por]_v1|dapi|shp|EAAA|figd_|sbp_|lin_api|ntn_|NR[AI][KI]-|ph[cx]_|rnd_|PMAK|fly_|sntry|pul-|tfp_|key-"
            r"|atlasv1|AGE-S|A[A-Z]{2}A[A-Z0-9]{12}|IQoJ|F[wQ]oG|eyJ|hv[sb]\.|SG\.|ya29\.|dp\.|1//0|[0-9]{8,10}:AA)"
        ),
    ),
    ("tokens", r"(?:^|[^A-Za-z0-9/+_-])[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+=_-]|$)"),
    ("tokens", r"(?:^|[^A-Za-z0-9])[A-Z]{6}[0-9A-Z]{10}"),
    ("ibans", r"(?:^|[^A-Za-z0-9_])[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{2,4}[ -]?[A-Z0-9]{2}"),
    ("ipv6", r"[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]"),
    (
        "secrets",
        (
            r"(?i)(?:passwor[dt]|passwd|contraseña|mot.de.passe|passphrase|pwd|passcode|pin.?code"
            r"|secret|token|[a-z_-]key|credentials?"
            r"|[_-]auth|[_-]pass|authorization|conn(?:ection)?[_-]?str(?:ing)?)s?[\s\"'\])]{0,4}[:=,]"
        ),
    ),
    ("secrets", r"(?i)bearer\s|cookie[\"']?\s{0,2}:|://[^\s:/@]*:[^\s@]+@"),
    (
        "secrets",
        (
            r"(?i)-[a-z0-9-]*(?:passw|passphrase|pwd|token|secret|key)"
            r"|(?:passw[a-z]*|passphrase|pwd|passcode)(?: is|'s| was| ist| es)"
        ),
    ),
)
FAMILIES = frozenset(family for family, _ in _NEEDED)
"""Every family that a gate can ask for."""

Gate = Callable[[str], frozenset[str]]


def without_re2(text: str) -> frozenset[str]:
    """Every family: each has its own look first."""
    del text
    return FAMILIES


@cache
def with_re2() -> Gate | None:
    """A gate that reads the text once, or None when google-re2 is not installed."""
    patterns = _compiled(pattern for _, pattern in _NEEDED)
    if patterns is None:
        return None
    families = [family for family, _ in _NEEDED]
    nothing: frozenset[str] = frozenset()

    def gate(text: str) -> frozenset[str]:
        matched: list[int] = patterns.Match(text.encode("utf-8", "replace"))
        return frozenset(families[index] for index in matched) if matched else nothing

    return gate


def literals(words: Iterable[str]) -> Callable[[str], bool] | None:
    """A look whether any of these words is in a text, or None when google-re2 is not installed."""
    patterns = _compiled(["|".join(re.escape(word.encode("utf-8", "replace").decode()) for word in words)])
    if patterns is None:
        return None

    def gate(text: str) -> bool:
        return bool(patterns.Match(text.encode("utf-8", "replace")))

    return gate


def _compiled(patterns: Iterable[str]) -> Any:
    """The patterns as one set that tells which of them match, or None when google-re2 is not installed."""
    try:
        re2: Any = importlib.import_module("re2")
    except ImportError:
        return None
    options: Any = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    compiled: Any = re2.Set.SearchSet(options)
    for pattern in patterns:
        compiled.Add(pattern)
    compiled.Compile()
    return compiled
