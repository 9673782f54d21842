"""One run of an agent of ours in a sample: its folder, its model, its turns, and how all of it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from inspect_ai.agent import AgentAttempts, AgentState
from inspect_ai.log import transcript
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentImage, ContentReasoning, ContentText
from inspect_ai.scorer import score
from inspect_ai.util import LimitExceededError, SandboxEnvironment, sample_limits
from inspect_ai.util import sandbox as sandbox_of

from computeragent import plugins
from computeragent.agent import ComputerAgent
from computeragent.errors import EngineError, ValidationError
from computeragent.protocol_types import Attachment, LocalSource, Substrate
from computeragent.swe.agents.prompts import prompt_of
from computeragent.swe.sandboxes.types import is_local, unwrapped
from computeragent.swe.sessions.conversation import Conversation
from computeragent.swe.sessions.folder import SampleSubstrate, sample_folder
from computeragent.swe.sessions.memory import ComputerAgentRun, SampleMemory, unseen
from computeragent.swe.sessions.model import ModelAccess, ModelChoice, bridged
from computeragent.wire.events import CaPermissionDecision, CaSessionEnded, HarnessEvent

_CLOSING = 30.0
"""Seconds that an agent has to end."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `computeragent_agent` was given. `agent` are keywords of `ComputerAgent`; `kept` too, where not None."""

    agent: Mapping[str, Any]
    kept: Mapping[str, Any]
    runtime: str | Substrate | None
    options: Mapping[str, Any]
    envs: Mapping[str, str]
    attachments: Sequence[Attachment]
    system_prompt: str | None
    attempts: AgentAttempts
    wired: bool
    choice: ModelChoice
    sandbox: str | None
    cwd: str | None


async def run(plan: Plan, state: AgentState, memory: SampleMemory) -> AgentState:
    """Run the agent on what the conversation asks for. Whatever is raised, `state` has what there was."""
    told = Conversation(state, priced=not plan.wired)
    message = _message(plan, state, first=not memory.filled)
    where = _sandbox(plan.sandbox)
    async with memory.lock, AsyncExitStack() as stack:
        folder = await stack.enter_async_context(sample_folder(where, memory.root, plan.cwd))
        access = await stack.enter_async_context(_access(plan, state))
        substrate = SampleSubstrate(_runtime(plan, where), folder.path, plan.attachments, filled=memory.filled)
        memory.filled = True
        kept: dict[str, Any] = {"session_store": memory.transcript, "event_log": memory.log}
        kept |= {name: value for name, value in plan.kept.items() if value is not None}
        given = dict(plan.agent)
        if given["budget_max_usd"] is not None:
            given["budget_max_usd"] = _left(given["budget_max_usd"], memory)
        if given["source"] is None:
            given["source"] = LocalSource(path=str(folder.path))
        agent = ComputerAgent(
            **given,
            **kept,
            session_id=memory.session_id,
            runtime=substrate,
            options=_merged(access.options, plan.options),
            envs={**_home(plan, where, memory), **access.envs, **plan.envs},
        )
        stack.push_async_callback(_dispose, agent)
        try:
            await _attempt(plan, agent, access, told, message, before_scoring=folder.give_back)
        finally:
            told.close()
            _record(plan, memory, told)
    return state


def _left(budget: float, memory: SampleMemory) -> float:
    """What earlier runs of the session have left of its budget. Raises `LimitExceededError` where that is nothing."""
    if 0 < budget <= memory.cost_usd:
        raise LimitExceededError("cost", value=memory.cost_usd, limit=budget, message="the agent's budget is spent")
    return budget - memory.cost_usd


# ── Before ───────────────────────────────────────────────────────────────────────────────────────────────────


def _message(plan: Plan, state: AgentState, *, first: bool) -> str | dict[str, Any]:
    """What the agent is asked: the user's messages after the assistant's last one, with their images."""
    prompt = prompt_of(state.messages, plan.system_prompt)
    text = "\n\n".join(part for part in (prompt.system, prompt.whole()) if part) if first else prompt.text
    images = [block for message in _newest(state) for block in _images(message)]
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]} if images else text


def _newest(state: AgentState) -> list[ChatMessageUser]:
    last = max((at for at, each in enumerate(state.messages) if isinstance(each, ChatMessageAssistant)), default=-1)
    return [each for each in state.messages[last + 1 :] if isinstance(each, ChatMessageUser)]


def _images(message: ChatMessageUser) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in message.content_list:
        if isinstance(part, ContentImage):
            kind, comma, data = part.image.partition(";base64,")
            if not comma or not kind.startswith("data:"):
                raise ValidationError(
                    f"the image {part.image[:100]!r} is not in the message itself", hint="Give it as a data: URL."
                )
            source = {"type": "base64", "media_type": kind.removeprefix("data:"), "data": data}
            found.append({"type": "image", "source": source})
        elif not isinstance(part, (ContentText, ContentReasoning)):
            raise ValidationError(
                f"agents of ours take no {part.type} in messages", hint="Put it into the sample's files."
            )
    return found


def _sandbox(name: str | None) -> SandboxEnvironment | None:
    """The sample's sandbox. Without a name there need not be one."""
    try:
        return sandbox_of(name)
    except ProcessLookupError:
        if name is None:
            return None
        raise


def _on_this_machine(where: SandboxEnvironment | None) -> bool:
    return where is None or is_local(unwrapped(where))


def _runtime(plan: Plan, where: SandboxEnvironment | None) -> Substrate:
    """Where the engine runs. Raises `ValidationError` for one that would leave the sandbox's isolation behind."""
    chosen = plan.runtime or ("local" if _on_this_machine(where) else "bwrap")
    if not _on_this_machine(where):
        if chosen in {"local", "local-process"}:
            raise ValidationError(
                "runtime='local' would run the agent outside of the sample's sandbox",
                hint="Leave runtime out, name one that isolates, such as bwrap, or use sandbox='local'.",
            )
        if plan.choice.bridged_tools:
            raise ValidationError(
                "bridged_tools need sandbox='local', or none", hint="Give the agent its tools another way."
            )
    substrate = plugins.resolve_substrate(chosen) if isinstance(chosen, str) else chosen
    plugins.substrates.check(substrate)
    return substrate


def _home(plan: Plan, where: SandboxEnvironment | None, memory: SampleMemory) -> dict[str, str]:
    """A folder of the sample's own for what Claude Code keeps in its home. A jail has a home of its own."""
    if plan.runtime not in {None, "local"} or not _on_this_machine(where):
        return {}
    config = memory.root / "claude"
    config.mkdir(mode=0o700, exist_ok=True)
    return {"CLAUDE_CONFIG_DIR": str(config)}


def _merged(ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's options; tool servers of both sides are there."""
    merged = {**ours, **given}
    if "mcp_servers" in ours and isinstance(given.get("mcp_servers"), Mapping):
        merged["mcp_servers"] = {**given["mcp_servers"], **ours["mcp_servers"]}
    return merged


@asynccontextmanager
async def _access(plan: Plan, state: AgentState) -> AsyncGenerator[ModelAccess]:
    if not plan.wired:
        yield ModelAccess()
        return
    async with bridged(plan.choice, state) as access:
        yield access


# ── The turns ────────────────────────────────────────────────────────────────────────────────────────────────


async def _attempt(
    plan: Plan,
    agent: ComputerAgent,
    access: ModelAccess,
    told: Conversation,
    message: str | dict[str, Any],
    *,
    before_scoring: Callable[[], Awaitable[None]],
) -> None:
    """Turn after turn, until an answer is right or there are no more attempts."""
    tries = plan.attempts
    for number in range(1, tries.attempts + 1):
        await _turn(plan, agent, access, told, message)
        if number == tries.attempts:
            return
        told.close()
        await before_scoring()
        scores = await score(told.state)
        if tries.score_value(scores[0].value) == 1.0:
            return
        wrong = tries.incorrect_message
        message = wrong if isinstance(wrong, str) else await wrong(told.state, scores)
        told.ask(message)


async def _turn(
    plan: Plan, agent: ComputerAgent, access: ModelAccess, told: Conversation, message: str | dict[str, Any]
) -> None:
    handle = agent.chat(message)
    try:
        async for event in handle:
            told.take(event)
            _tell(event)
            if access.bridge is None:
                _check_limits(told)
            if isinstance(event, CaSessionEnded):
                told.turns += 1
                access.check()
                _raise_for(plan, event, told)
        if not access.refused:
            await handle.result()
    except EngineError:
        if not access.refused:
            raise


def _raise_for(plan: Plan, ended: CaSessionEnded, told: Conversation) -> None:
    if ended.reason == "budget_exceeded":
        limit = plan.agent["budget_max_usd"] or 0.0
        raise LimitExceededError(
            "cost", value=told.usage.cost_usd or limit, limit=limit, message="the agent's budget is spent"
        )
    if ended.reason == "cancelled":
        raise EngineError("the agent's turn was cancelled", hint="Nothing of the evaluation's did that.")


def _check_limits(told: Conversation) -> None:
    """Hold what an engine with a provider of its own has used to the sample's limits, with what else was."""
    limits = sample_limits()
    earlier_tokens, earlier_cost = unseen()
    tokens = told.usage.total_tokens + earlier_tokens + int(limits.token.usage)
    cost = (told.usage.cost_usd or 0.0) + earlier_cost + limits.cost.usage
    if limits.token.limit is not None and tokens > limits.token.limit:
        raise LimitExceededError("token", value=tokens, limit=limits.token.limit)
    if limits.cost.limit is not None and cost > limits.cost.limit:
        raise LimitExceededError("cost", value=cost, limit=limits.cost.limit)


def _tell(event: HarnessEvent) -> None:
    """Write what the conversation does not show into Inspect's transcript: calls denied or changed, and by whom."""
    if not isinstance(event, CaPermissionDecision) or event.decision == "allow":
        return
    transcript().info({"permission": event.decision, "tool": event.tool_name, **_why(event)}, source="computeragent")
    if event.decision == "deny":
        record = ComputerAgentRun()
        record.denied = [*record.denied, {"tool": event.tool_name, **_why(event)}]


def _why(event: CaPermissionDecision) -> dict[str, Any]:
    said = {
        "reason": event.reason,
        "rule": event.rule,
        "engine": event.engine,
        "code": event.code,
        "decided_by": event.decided_by,
    }
    return {name: value for name, value in said.items() if value is not None}


# ── After ────────────────────────────────────────────────────────────────────────────────────────────────────


def _record(plan: Plan, memory: SampleMemory, told: Conversation) -> None:
    """Add what a run used to what the sample's store says."""
    engine = plan.agent["engine"]
    cost = told.usage.cost_usd or 0.0
    memory.cost_usd += cost
    if not plan.wired:
        memory.unseen = (memory.unseen[0] + told.usage.total_tokens, memory.unseen[1] + cost)
    record = ComputerAgentRun()
    record.session_id = memory.session_id
    record.engine = engine if isinstance(engine, str) else engine.name
    record.turns += told.turns
    record.input_tokens += told.usage.input_tokens
    record.output_tokens += told.usage.output_tokens
    if told.usage.cost_usd is not None and told.priced:
        record.cost_usd = (record.cost_usd or 0.0) + told.usage.cost_usd


async def _dispose(agent: ComputerAgent) -> None:
    """End the agent, also when the sample was cancelled."""
    with anyio.move_on_after(_CLOSING, shield=True):
        await agent.dispose()
