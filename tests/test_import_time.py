"""Importing the package costs next to nothing: no third-party module until a name is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED = """
import json, sys
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(code: str) -> set[str]:
    """The modules that some code loads in a fresh interpreter, over what every interpreter has."""
    command = [sys.executable, "-c", LOADED.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def foreign(modules: set[str]) -> set[str]:
    """The top-level names of modules that are neither ours nor the standard library's."""
    names = {name.partition(".")[0] for name in modules if "cython" not in name}  # what yaml's C half calls itself
    return names - set(sys.stdlib_module_names) - {"computeragent"}


def test_importing_the_package_loads_no_third_party_module_and_next_to_none_of_our_own():
    modules = loaded_by("import computeragent")
    assert foreign(modules) == set()
    ours = {name for name in modules if name.startswith("computeragent")}
    assert ours <= {"computeragent", "computeragent.claude", "computeragent.claude.names"}


def test_listing_the_names_loads_nothing_either():
    assert foreign(loaded_by("import computeragent; dir(computeragent); computeragent.__all__")) == set()


LIGHT = {"msgspec", "typing_extensions"}
AGENT = LIGHT | {"anyio", "sniffio", "idna", "yaml", "_yaml"}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("ComputerAgentError", set()),
        ("UserInput", LIGHT),
        ("UsageRollup", LIGHT),
        ("EngineEvent", LIGHT),
        ("tty_approval", AGENT),
        ("ComputerAgent", AGENT),
    ],
)
def test_a_name_of_our_own_loads_what_it_needs_and_never_the_sdk(name: str, allowed: set[str]):
    assert foreign(loaded_by(f"from computeragent import {name}")) <= allowed


def test_every_public_name_exists_and_is_one_object():
    import computeragent

    for name in computeragent.__all__:
        assert getattr(computeragent, name) is getattr(computeragent, name)
        assert name in dir(computeragent)


def test_an_unknown_name_is_an_attribute_error():
    import computeragent

    with pytest.raises(AttributeError, match=r"^module 'computeragent' has no attribute 'Nope'$"):
        computeragent.Nope  # noqa: B018


HOST = """
from computeragent.harness.host import HostHarness
from computeragent.server import create_harness_server
from computeragent.substrates import engine_host
create_harness_server(harness=HostHarness(), allowed_hosts=())
import computeragent.engines.scripted
"""


def test_an_engine_host_loads_nothing_that_only_the_outside_needs():
    modules = loaded_by(HOST)
    assert foreign(modules) & {"httpx2", "yaml", "redis", "rich", "claude_agent_sdk"} == set()
    outside = ("computeragent.telemetry.pipeline", "computeragent.telemetry.redaction", "computeragent.identity.git")
    assert not [name for name in modules if name.startswith(outside)]
