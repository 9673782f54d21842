"""Which of an agent's tools are ours: its own tool of the same name is not, and must not pass as one."""

import pytest
from inspect_ai.tool import ToolInfo

from computeragent.swe.bridge.record import meant

LONG = "Adds two numbers of the host's, and says what came of it."


@pytest.mark.parametrize(
    ("called", "space", "said"),
    [
        ("mcp__calc__add", "", "other words"),
        ("mcp_calc_add", "", ""),
        ("calc_add", "", ""),
        ("add", "mcp__calc", ""),
        ("mcp__calc__ad1f", "", LONG),
        ("add", "", "Adds."),
    ],
)
def test_a_tool_of_ours_under_the_names_that_agents_give_it(called, space, said):
    description = LONG if said == LONG else "Adds."
    assert meant(ToolInfo(name=called, description=said), {("calc", "add"): description}, space) == (("calc", "add"),)


@pytest.mark.parametrize(
    ("called", "space", "said"),
    [
        ("Add", "", "The agent's own."),
        ("add", "", ""),
        ("add", "mcp__other", ""),
        ("calc_subtract", "", "Adds."),
        ("recalc_add", "", ""),
        ("list_calc_resources_add", "", ""),
    ],
)
def test_another_tool(called, space, said):
    assert meant(ToolInfo(name=called, description=said), {("calc", "add"): "Adds."}, space) == ()
