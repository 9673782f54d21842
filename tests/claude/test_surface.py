"""Every upstream name is here, by identity, on the paths that users import from."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import claude_agent_sdk
import pytest
from claude_agent_sdk import types as upstream_types
from tests.telemetry.listening import Listener

import computeragent
from computeragent import types
from computeragent.claude.names import MADE_WITH, UPSTREAM_NAMES

WRAPPERS = {"query", "ClaudeSDKClient"}  # documented in docs/drop-in.md; their behaviour is in test_wrappers.py


@pytest.mark.parametrize("name", sorted({*claude_agent_sdk.__all__} - {"__version__"} - WRAPPERS))
def test_each_name_is_upstreams_own_object(name: str) -> None:
    assert getattr(computeragent, name) is getattr(claude_agent_sdk, name)
    assert name in computeragent.__all__
    assert name in dir(computeragent)


def test_types_has_every_name_of_upstreams_module() -> None:
    public = [name for name in dir(upstream_types) if not name.startswith("__")]
    assert [name for name in public if getattr(types, name) is not getattr(upstream_types, name)] == []


def test_star_imports_bring_upstreams_names() -> None:
    namespace: dict[str, object] = {}
    exec("from computeragent.types import *", namespace)
    assert namespace["ResultMessage"] is claude_agent_sdk.ResultMessage


def test_names_that_a_newer_upstream_adds_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_agent_sdk, "added_tomorrow", 1, raising=False)
    assert computeragent.added_tomorrow == 1


def test_what_other_tools_patch_into_upstream_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    patched = object()
    monkeypatch.setattr(claude_agent_sdk, "tool", patched)
    assert computeragent.tool is patched


def test_the_names_were_made_with_the_upstream_that_is_installed() -> None:
    assert claude_agent_sdk.__version__ == MADE_WITH
    assert computeragent.upstream_version == MADE_WITH
    assert {name for name in claude_agent_sdk.__all__ if not name.startswith("__")} == set(UPSTREAM_NAMES)


def test_our_own_names_avoid_upstreams() -> None:
    own = {name for names in computeragent.OWN_NAMES.values() for name in names}
    assert own & set(claude_agent_sdk.__all__) == WRAPPERS


def test_objects_pickle_and_signatures_are_upstreams() -> None:
    block = computeragent.TextBlock(text="hello")
    assert pickle.loads(pickle.dumps(block)) == block
    assert inspect.signature(computeragent.create_sdk_mcp_server) == inspect.signature(
        claude_agent_sdk.create_sdk_mcp_server
    )


def test_every_option_goes_to_upstream_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[claude_agent_sdk.ClaudeAgentOptions] = []

    async def query(**given: Any) -> AsyncIterator[Any]:
        seen.append(given["options"])
        return
        yield

    monkeypatch.setattr(claude_agent_sdk, "query", query)
    fields = [field.name for field in dataclasses.fields(claude_agent_sdk.ClaudeAgentOptions)]
    options = computeragent.ClaudeAgentOptions(**{name: object() for name in fields})
    before = dict(vars(options))

    async def run() -> None:
        async for _ in computeragent.query(prompt="hi", options=options):
            pass

    for sinks in ([], [Listener()]):
        pipeline = computeragent.configure(sinks=sinks)
        anyio.run(run)
        pipeline.close(5)
    computeragent.configure(sinks=[])
    assert [one is options for one in seen] == [True, True]
    assert vars(options) == before
    assert len(fields) >= 50


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        computeragent.no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        exec("from computeragent.types import NoSuchType")


def test_listing_names_does_not_import_upstream() -> None:
    program = "import computeragent, sys; len(computeragent.__all__); assert 'claude_agent_sdk' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
