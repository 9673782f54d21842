"""The registries: built in, registered, or from an entry point; and what an unknown name says."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from computeragent import (
    ComputerAgent,
    plugins,
    register_engine,
    register_identity_loader,
    register_session_store,
    register_substrate,
    resolve_engine,
    resolve_identity_loader,
    resolve_session_store,
    resolve_substrate,
)
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import (
    MissingExtraError,
    UnknownEngineError,
    UnknownLoaderError,
    UnknownStoreError,
    UnknownSubstrateError,
    ValidationError,
)
from computeragent.identity.passthrough import PassthroughLoader
from computeragent.stores.binding import resolve_store
from computeragent.stores.memory import MemorySessionStore
from computeragent.substrates import LocalSubstrate

AXES = [plugins.engines, plugins.substrates, plugins.stores, plugins.identity_loaders]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test registers is gone after it."""
    kept = [dict(axis._registered) for axis in AXES]
    yield
    for axis, registered in zip(AXES, kept, strict=True):
        for name in axis._registered.keys() - registered:
            del axis._registered[name]
            axis._made.pop(name, None)


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        (plugins.engines, ["claude-agent-sdk", "scripted"]),
        (plugins.substrates, ["bwrap", "local", "local-process"]),
        (plugins.stores, ["file", "memory", "sqlite"]),
        (plugins.identity_loaders, ["gap", "gitagentprotocol", "passthrough"]),
    ],
    ids=["engines", "substrates", "stores", "loaders"],
)
def test_what_is_built_in_is_there_and_can_be_made(axis: plugins.Registry, names: list[str]):
    assert set(axis.names()) >= set(names)
    for name in names:
        axis.require(name)
        assert axis.resolve(name) is axis.resolve(name)


@pytest.mark.parametrize(
    ("resolve", "error", "message", "hint"),
    [
        (
            resolve_engine,
            UnknownEngineError,
            "engine 'claude' is not registered",
            'Did you mean "claude-agent-sdk"? Available: acp, claude-agent-sdk, computer-use, scripted.',
        ),
        (
            resolve_identity_loader,
            UnknownLoaderError,
            "identity loader 'passthru' is not registered",
            'Did you mean "passthrough"? Available: gap, gitagentprotocol, passthrough.',
        ),
        (
            resolve_session_store,
            UnknownStoreError,
            "session store 'sqlit' is not registered",
            f'Did you mean "sqlite"? Available: {", ".join(plugins.stores.names())}.',
        ),
        (
            resolve_substrate,
            UnknownSubstrateError,
            "runtime 'loca' is not registered",
            f'Did you mean "local"? Available: {", ".join(plugins.substrates.names())}.',
        ),
    ],
    ids=["engine", "loader", "store", "runtime"],
)
def test_an_unknown_name_is_refused_with_what_was_meant(resolve: Any, error: Any, message: str, hint: str):
    with pytest.raises(error) as caught:
        resolve(message.split("'")[1])
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_object_is_registered_as_it_is():
    engine = ScriptedEngine()
    register_engine("mine", engine)
    assert resolve_engine("mine") is engine
    assert "mine" in plugins.engines.names()


def test_a_factory_is_called_once_and_on_first_use():
    made: list[ScriptedEngine] = []

    def factory() -> ScriptedEngine:
        made.append(ScriptedEngine())
        return made[-1]

    register_engine("mine", factory)
    assert made == []
    assert resolve_engine("mine") is resolve_engine("mine") is made[0]
    assert len(made) == 1


def test_a_class_is_a_factory():
    register_substrate("mine", LocalSubstrate)
    register_identity_loader("mine", PassthroughLoader)
    assert isinstance(resolve_substrate("mine"), LocalSubstrate)
    assert isinstance(resolve_identity_loader("mine"), PassthroughLoader)


def test_a_factory_may_build_on_another_name_of_its_axis():
    register_engine("wrapped", lambda: resolve_engine("scripted"))
    assert resolve_engine("wrapped") is resolve_engine("scripted")


def test_registering_again_replaces():
    one, two = ScriptedEngine(), ScriptedEngine()
    register_engine("mine", one)
    assert resolve_engine("mine") is one
    register_engine("mine", two)
    assert resolve_engine("mine") is two


def test_a_registered_name_wins_over_a_built_in_one():
    mine = MemorySessionStore()
    register_session_store("memory", mine)
    assert resolve_session_store("memory") is mine
    del plugins.stores._registered["memory"], plugins.stores._made["memory"]


def test_what_is_not_of_the_axis_is_refused_at_once():
    with pytest.raises(TypeError, match=r"has no method start_session\(\), which computeragent\.engines entries need"):
        register_engine("bad", object())  # type: ignore[arg-type]


def test_a_factory_of_something_else_is_refused_on_use():
    register_engine("bad", list)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no method start_session"):
        resolve_engine("bad")


def test_options_make_a_new_object_each_time(tmp_path: Path):
    choice = {"kind": "file", "options": {"root": str(tmp_path)}}
    assert resolve_store(choice) is not resolve_store(choice)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file", "session store 'file' does not take these options: "),
        ("object", "'object' is registered as an object, not as a factory that takes options"),
    ],
)
def test_options_that_cannot_be_taken_are_refused_not_dropped(name: str, says: str):
    register_session_store("object", MemorySessionStore())
    with pytest.raises(ValidationError, match=says):
        resolve_store({"kind": name, "options": {"colour": "red"}})


def test_a_failed_factory_may_be_tried_again():
    tries = iter([OSError("not yet"), ScriptedEngine()])

    def factory() -> Any:
        made = next(tries)
        if isinstance(made, Exception):
            raise made
        return made

    register_engine("mine", factory)
    with pytest.raises(OSError, match="not yet"):
        resolve_engine("mine")
    assert isinstance(resolve_engine("mine"), ScriptedEngine)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path that declares an engine, and one whose engine cannot be imported."""
    (tmp_path / "third_party.py").write_text(
        "from computeragent.engines.scripted import ScriptedEngine\nclass Engine(ScriptedEngine): ...\n"
    )
    info = tmp_path / "third_party-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[computeragent.engines]\nthird = third_party:Engine\nbroken = third_party:Missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_an_engine_by_its_entry_point(tmp_path: Path):
    assert {"third", "broken"} < set(plugins.engines.names())
    assert type(resolve_engine("third")).__name__ == "Engine"
    assert ComputerAgent(source=tmp_path, engine="third")
    with pytest.raises(AttributeError, match="Missing"):
        resolve_engine("broken")
    for name in ("third", "broken"):
        plugins.engines._made.pop(name, None)


def test_a_name_whose_extra_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins.substrates._built_in, "e2b", "computeragent_not_there:Thing")
    monkeypatch.setitem(plugins.substrates._built_in, "local-process", "computeragent_not_there:Thing")
    for name, extra in (("e2b", "e2b"), ("local-process", "server")):
        plugins.substrates._made.pop(name, None)
        with pytest.raises(MissingExtraError) as raised:
            plugins.substrates.resolve(name)
        assert raised.value.hint == f"pip install 'computer-agent-py[{extra}]'"
