"""A Cedar policy judges every tool call of a Claude agent, in this process. Needs `computer-agent-py[cedar]`."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parent))

from small_project import model, project

from computeragent import ClaudeAgentOptions, PolicyPrincipal, PolicyResource, query
from computeragent.policy import CedarPolicyEngine, PolicyToolAuthorizer
from computeragent.types import AssistantMessage, TextBlock, ToolUseBlock

cedar = CedarPolicyEngine(
    policies=(Path(__file__).parent / "policies" / "computeragent.cedar").read_text(),
    fail_mode="deny",
)
authorizer = PolicyToolAuthorizer(
    engine=cedar,
    principal_resolver=lambda ctx: PolicyPrincipal(id="alice", groups=["engineer"]),
    resource_resolver=lambda ctx: PolicyResource(agent_name="nordassist", model="claude-sonnet-4-5"),
    context_resolver=lambda ctx: {"env": "prod"},
)


async def main() -> None:
    with project() as work, model(work) as env:
        options = ClaudeAgentOptions(
            cwd=work,
            env=env,
            permission_mode="bypassPermissions",  # the policy judges all the same
            can_use_tool=authorizer,
        )
        async for message in query(prompt="Read the README, then clean up.", options=options):
            if isinstance(message, AssistantMessage):
                for block in message.content:
                    if isinstance(block, TextBlock):
                        print(block.text)
                    elif isinstance(block, ToolUseBlock):
                        print(f"  {block.name} {block.input}")


if __name__ == "__main__":
    anyio.run(main)
