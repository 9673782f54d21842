"""mini-swe-agent."""

from __future__ import annotations

import json

from computeragent.clis.types import Cli, Exits, Package, Run

AGENT_MODULE = "computeragent_resumable"
_AGENT = '''\
"""The interactive agent, going on with the trajectory that MSWEA_RESUME names."""

import json
import os
from pathlib import Path

from minisweagent.agents.interactive import InteractiveAgent


class ResumableAgent(InteractiveAgent):
    def add_messages(self, *messages):
        resumed = os.environ.pop("MSWEA_RESUME", "")
        if resumed and Path(resumed).is_file():
            kept = json.loads(Path(resumed).read_text())["messages"]
            submitted = ""
            while kept and kept[-1].get("role") == "exit":
                submitted = kept.pop().get("content") or submitted
            # The call that submitted ended the run: it has no answer, or one that says it was not executed.
            while kept and kept[-1].get("role") == "tool" and "action was not executed" in kept[-1].get("content", ""):
                kept.pop()
            for call in (kept[-1].get("tool_calls") or ()) if kept else ():
                answer = {"role": "tool", "tool_call_id": call["id"], "content": submitted or "submitted"}
                kept.append(answer)
            super().add_messages(*kept)
            messages = [each for each in messages if each.get("role") != "system"]
        return super().add_messages(*messages)
'''


def _trajectory(run: Run) -> str:
    return run.options.get("trajectory", f"{run.home}/mini-swe-agent/trajectory.json")


def _arguments(run: Run) -> tuple[str, ...]:
    arguments = ["--yolo", "--exit-immediately", "--output", _trajectory(run)]
    if run.options.get("agent", "resumable") == "resumable":
        arguments += ["--agent-class", f"{AGENT_MODULE}.ResumableAgent"]
    return (*arguments, f"--task={run.text}")


def _environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "MSWEA_CONFIGURED": "true",
        "MSWEA_GLOBAL_CONFIG_DIR": f"{run.home}/mini-swe-agent",
        "MSWEA_MODEL_NAME": run.model,
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_SILENT_STARTUP": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched, again and again
        "OPENAI_BASE_URL": f"{run.base_url}/v1",
        "OPENAI_API_BASE": f"{run.base_url}/v1",
        "OPENAI_API_KEY": run.api_key,
        "ANTHROPIC_BASE_URL": run.base_url,
        "ANTHROPIC_API_KEY": run.api_key,
        "PYTHONPATH": f"{run.home}/mini-swe-agent",
        **({"MSWEA_RESUME": _trajectory(run)} if run.resume else {}),
    }


def _files(run: Run) -> dict[str, str]:
    return {f"{run.home}/mini-swe-agent/{AGENT_MODULE}.py": _AGENT}


def _answer(trajectory: str) -> str:
    try:
        return str(json.loads(trajectory)["info"]["submission"])
    except (ValueError, LookupError, TypeError):
        return ""


MINI_SWE_AGENT = Cli(
    name="mini_swe_agent",
    title="mini-swe-agent",
    program="mini",
    package=Package(
        registry="pypi",
        index="mini-swe-agent",
        kind="wheels",
        program="env/bin/mini",
        also=("mcp",),  # litellm imports it
        stable="2.2.3",
    ),
    dialect="openai_chat",
    model="openai/inspect",
    shell_tool="bash",
    arguments=_arguments,
    environment=_environment,
    files=_files,
    answer_in=_trajectory,
    answer=_answer,
    mcp=frozenset(),
    resumes="trajectory",
    exits=Exits(notes=("litellm tries for up to a minute at each failure: set a limit.",)),
)
