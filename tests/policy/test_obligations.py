"""Obligations: the tool gets the input as the policy wants it, and what cannot be met denies."""

from __future__ import annotations

from typing import Any

import pytest

from computeragent.policy.obligations import ObligationError, fulfil


@pytest.mark.parametrize(
    ("obligation", "given", "changed"),
    [
        ({"kind": "redact", "argument": "a"}, {"a": 1, "b": 2}, {"a": "[REDACTED]", "b": 2}),
        ({"kind": "redact", "argument": "h.auth", "with": ""}, {"h": {"auth": "x"}}, {"h": {"auth": ""}}),
        ({"kind": "redact", "argument": "list.1.x"}, {"list": [{}, {"x": 5}]}, {"list": [{}, {"x": "[REDACTED]"}]}),
        ({"kind": "redact", "argument": "gone.deep"}, {"a": 1}, {"a": 1}),
        ({"kind": "redact", "argument": "list.9"}, {"list": [1]}, {"list": [1]}),
        ({"kind": "cap", "argument": "timeout", "max": 10}, {"timeout": 99}, {"timeout": 10}),
        ({"kind": "cap", "argument": "timeout", "max": 10}, {"timeout": 3}, {"timeout": 3}),
        ({"kind": "cap", "argument": "timeout", "max": 10}, {}, {"timeout": 10}),
    ],
)
def test_the_input_becomes_what_the_policy_wants(obligation: Any, given: Any, changed: Any) -> None:
    before = repr(given)
    assert fulfil([obligation], given) == (changed, None)
    assert repr(given) == before


@pytest.mark.parametrize(
    "obligation",
    [
        "redact",
        {},
        {"kind": "notify"},
        {"kind": "redact"},
        {"kind": "redact", "argument": 5},
        {"kind": "cap", "argument": "timeout"},
        {"kind": "cap", "argument": "timeout", "max": True},
        {"kind": "cap", "argument": "timeout", "max": float("nan")},
        {"kind": "cap", "argument": "text", "max": 1},
        {"kind": "cap", "argument": "gone.deep", "max": 1},
    ],
)
def test_what_is_not_understood_or_cannot_be_met_is_an_error(obligation: Any) -> None:
    with pytest.raises(ObligationError):
        fulfil([obligation], {"text": "x", "timeout": 5})


def test_a_person_can_be_required() -> None:
    assert fulfil([{"kind": "require_approval", "reason": "it is late"}], {"a": 1}) == ({"a": 1}, "it is late")
    assert fulfil([{"kind": "require_approval"}], {})[1] == "the policy requires approval"
