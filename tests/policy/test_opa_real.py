"""OPA's own code behind the Data API, not a stand-in of it: what the sample policy says, and what counts as an answer.

`opa-golib-python-bindings` is OPA as a library. Its metadata asks for a newer Python than it needs, so that no lock can
hold it: it is installed here, into a folder of its own, in the soak tests alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest
from tests.policy.servers import UNDEFINED, OpaServer, RegoCpp, serving
from tests.policy.test_examples import CALLS, REGO
from tests.policy.test_opa import SHAPES

from computeragent.policy import (
    OpaPolicyEngine,
    PolicyAction,
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
)

pytestmark = [pytest.mark.anyio, pytest.mark.soak, pytest.mark.timeout(300)]


class RealOpa:
    """Rego as OPA evaluates it."""

    def __init__(self, library: Any, *sources: str) -> None:
        self._undefined = library.OpaUndefinedError
        self._engine = library.OpaEngine()
        for number, source in enumerate(sources):
            self._engine.add_policy(f"module{number}.rego", source)

    def decide(self, steps: list[str], given: Any) -> Any:
        try:
            return self._engine.eval_document(".".join(steps), given)
        except self._undefined:
            return UNDEFINED


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    folder = str(tmp_path_factory.mktemp("opa"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--ignore-requires-python", "--target", folder]
    subprocess.run([*pip, "opa-golib-python-bindings==0.4.4"], check=True, timeout=200)
    sys.path.insert(0, folder)
    try:
        import opa_bindings

        yield opa_bindings
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize(("tool", "tool_input", "groups", "context", "allowed"), CALLS)
async def test_the_sample_policy(library: Any, tool: str, tool_input: dict, groups: list, context: dict, allowed: bool):
    question = PolicyInput(
        PolicyPrincipal("alice", groups), PolicyAction("tool_use", tool, tool_input), PolicyResource(), context
    )
    rego = RealOpa(library, REGO.read_text())
    with serving(OpaServer(rego).app()) as url:
        for path in ("computeragent/tools/allow", "computeragent.tools.decision"):
            engine = OpaPolicyEngine(url=url, policy_path=path)
            result = await engine.evaluate(question)
            await engine.aclose()
            assert (result.decision is PolicyDecision.ALLOW, result.code) == (allowed, None)
    steps = ["computeragent", "tools", "decision"]
    assert rego.decide(steps, question.to_json()) == RegoCpp(REGO.read_text()).decide(steps, question.to_json())


async def test_shapes_and_what_is_undefined(library: Any):
    question = PolicyInput(PolicyPrincipal("alice"), PolicyAction("tool_use", "Bash", {}), PolicyResource())
    with serving(OpaServer(RealOpa(library, SHAPES)).app()) as url:
        said = {}
        for path in ("shapes/yes", "shapes/no", "shapes/undefined_for_others", "shapes", "other"):
            engine = OpaPolicyEngine(url=url, policy_path=path)
            result = await engine.evaluate(question)
            said[path] = (result.decision.value, result.code)
            await engine.aclose()
    assert said == {
        "shapes/yes": ("allow", None),
        "shapes/no": ("deny", None),
        "shapes/undefined_for_others": ("deny", "POLICY_MALFORMED"),
        "shapes": ("deny", "POLICY_MALFORMED"),
        "other": ("deny", "POLICY_MALFORMED"),
    }
