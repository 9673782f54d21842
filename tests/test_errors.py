"""One family of errors: code, message, hint, status; the same in the library, on the wire and after pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import computeragent
from computeragent.errors import (
    ComputerAgentError,
    EngineError,
    EventsGoneError,
    NotFoundError,
    TurnFailedError,
    UnknownEngineError,
    UnknownIdentityLoaderError,
    UnknownLoaderError,
    UnknownSessionStoreError,
    UnknownStoreError,
    UnknownSubstrateError,
    error_classes,
)


def test_an_error_is_its_message():
    error = NotFoundError("a.txt does not exist", hint="Look around.")
    assert str(error) == error.message == "a.txt does not exist"
    assert (error.code, error.status, error.hint, error.details) == ("NOT_FOUND", 404, "Look around.", None)


def test_on_the_wire_what_is_absent_is_left_out():
    assert NotFoundError("m").to_wire() == {"error": {"code": "NOT_FOUND", "message": "m"}}
    full = NotFoundError("m", hint="h", details={"path": "x"}).to_wire()
    assert full == {"error": {"code": "NOT_FOUND", "message": "m", "hint": "h", "details": {"path": "x"}}}


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("m", hint="h", details={"a": 1}),
        UnknownEngineError("x", ["a", "b"]),
        EventsGoneError(3, 9),
        TurnFailedError("m"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_an_error_survives_the_way_to_another_process(error: ComputerAgentError, through: Any):
    back = through(error)
    assert type(back) is type(error)
    assert back.to_wire() == error.to_wire()
    assert back.__dict__ == error.__dict__


def test_every_class_has_a_code_of_its_own_a_status_and_a_docstring():
    classes = error_classes()
    codes = [cls.code for cls in classes]
    assert codes == sorted(set(codes))
    for cls in classes:
        assert 400 <= cls.status < 600
        assert (cls.__doc__ or "").endswith((".", ".\n    "))


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            UnknownEngineError("claude", ["claude-agent-sdk", "scripted"]),
            "engine 'claude' is not registered",
            'Did you mean "claude-agent-sdk"? Available: claude-agent-sdk, scripted.',
        ),
        (
            UnknownEngineError("scriptd", ["scripted", "claude-agent-sdk"]),
            "engine 'scriptd' is not registered",
            'Did you mean "scripted"? Available: claude-agent-sdk, scripted.',
        ),
        (UnknownStoreError("zzz", ["file"]), "session store 'zzz' is not registered", "Available: file."),
        (UnknownLoaderError("x", []), "identity loader 'x' is not registered", "Available: none."),
        (UnknownSubstrateError("", ["local"]), "runtime '' is not registered", "Available: local."),
    ],
)
def test_an_unknown_name_says_what_there_is_and_what_was_meant(error: Any, message: str, hint: str):
    assert (error.message, error.hint) == (message, hint)
    assert error.status == 400
    assert error.details == {"available": error.available}


def test_a_class_that_has_two_names_is_one_class():
    assert UnknownStoreError is UnknownSessionStoreError is computeragent.UnknownSessionStoreError
    assert UnknownLoaderError is UnknownIdentityLoaderError is computeragent.UnknownIdentityLoaderError
    assert computeragent.HarnessError is ComputerAgentError


def test_a_failed_turn_is_an_engine_error_too():
    assert issubclass(TurnFailedError, EngineError)
    assert TurnFailedError("m").result is None
