"""One request of an agent answered by a model of Inspect: filter, compaction, refusals, approval, and the log."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from inspect_ai.approval import ApprovalPolicy, approval
from inspect_ai.model import (
    ChatMessage,
    Compact,
    CompactionStrategy,
    GenerateConfig,
    GenerateFilter,
    GenerateInput,
    Model,
    ModelOutput,
    ModelRefusalError,
    compaction,
)
from inspect_ai.tool import Tool, ToolChoice, ToolDef, ToolInfo, WebSearchProviders

from computeragent.dialects.model import ModelRequest, ModelResponse
from computeragent.errors import ModelCallError
from computeragent.models.serving.fronts import Front
from computeragent.swe.bridge.approvals import ATTEMPTS, review, too_often
from computeragent.swe.bridge.conversation import Conversations, Place
from computeragent.swe.bridge.faults import FatalError
from computeragent.swe.bridge.host_tools import HostTools
from computeragent.swe.bridge.incoming import config_of, messages_of
from computeragent.swe.bridge.models import Models
from computeragent.swe.bridge.outgoing import response_of
from computeragent.swe.bridge.record import Bridge
from computeragent.swe.bridge.tools import declared


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is done to each request; the words of `agent_bridge`."""

    filter: GenerateFilter | None = None
    retry_refusals: int | None = None
    compaction: CompactionStrategy | None = None
    web_search: WebSearchProviders | None = None
    forward_generation_config: bool = False
    approval: list[ApprovalPolicy] | None = None


@dataclass(frozen=True)
class _Asked:
    """What the model is asked."""

    model: Model
    messages: list[ChatMessage]
    tools: Sequence[ToolInfo | Tool]
    choice: ToolChoice | None
    config: GenerateConfig


class Generation:
    """Answers the requests of one bridge. Any number may be under way at once."""

    def __init__(self, bridge: Bridge, models: Models, host: HostTools, settings: Settings) -> None:
        self._bridge = bridge
        self._models = models
        self._host = host
        self._settings = settings
        self._prefix = list(bridge.state.messages)
        self._conversations = Conversations(bridge.state)
        self._compact: Compact | None = None

    async def answer(self, front: Front, request: ModelRequest, answer_id: str) -> ModelResponse:
        """The answer to a request, on its wire.

        Raises `ValidationError` for what cannot be asked, `FatalError` for what must end the sample, and what the
        model raises.
        """
        self._bridge.requests += 1
        tools = declared(request, self._settings.web_search)
        infos = tool_infos(tools.tools)
        names = [info.name for info in infos]
        self._bridge.note_tools(infos, tools.spaces)
        messages = self._conversations.recognise(messages_of(request, tools))
        model = self._models.choose(request.model)
        config = config_of(request, forward=self._settings.forward_generation_config)
        if not self._settings.forward_generation_config:
            config = config.merge(model.config)
        compact = self._compaction(self._conversations.place(messages, names), model, tools.tools)
        asked, summary = _Asked(model, messages, tools.tools, tools.choice, config), None
        if compact is not None:
            shorter, summary = await compact.compact_input(messages)
            asked = replace(asked, messages=shorter)
        output = await self._approved(asked, tools.spaces, compact)
        if self._conversations.record(messages, names, output, summary):
            self._compact = compact
        self._bridge.note_output(output)
        return response_of(output, front, answer_id, request.model, tools)

    def _compaction(self, place: Place, model: Model, tools: Sequence[ToolInfo | Tool]) -> Compact | None:
        # One for each conversation: it keeps all that it is given, and would mix another one's words in.
        strategy = self._settings.compaction
        if strategy is None or place == "beside":
            return None
        if place == "main" and self._compact is not None:
            return self._compact
        return compaction(strategy, prefix=self._prefix, tools=tools, model=model)

    async def _approved(self, asked: _Asked, spaces: Mapping[str, str], compact: Compact | None) -> ModelOutput:
        """An answer whose calls may be run: what is rejected is told to the model, which is asked again."""
        told: list[ChatMessage] = []
        for _ in range(ATTEMPTS):
            attempt, output = await self._unrefused(replace(asked, messages=[*asked.messages, *told]))
            if compact is not None:
                await compact.record_output(attempt.messages, output)
            infos = tool_infos(attempt.tools)
            policies = self._settings.approval
            with approval(policies) if policies else nullcontext():
                proposals = self._host.proposals(output, infos, spaces)
                own = frozenset(each.call_id for each in proposals)
                reviewed = await review(output, attempt.messages, own=own)
            if not reviewed.rejection:
                self._host.propose(proposals)
                return reviewed.output
            told.extend(reviewed.rejection)
        raise too_often()

    async def _unrefused(self, asked: _Asked) -> tuple[_Asked, ModelOutput]:
        """An answer that is no refusal, within the tries for one; the filter sees each try as if it were the first."""
        left = self._settings.retry_refusals or 0
        while True:
            try:
                attempt, output = await self._attempt(asked)
            except ModelRefusalError as error:
                if not left:
                    raise FatalError(error) from error
            else:
                if not left or output.empty or output.stop_reason != "content_filter":
                    return attempt, output
            left -= 1

    async def _attempt(self, asked: _Asked) -> tuple[_Asked, ModelOutput]:
        if self._settings.filter is not None:
            filtered = await self._filtered(self._settings.filter, asked)
            if isinstance(filtered, ModelOutput):
                return asked, filtered
            if filtered is not None:
                asked = _Asked(asked.model, *filtered)
        output = await asked.model.generate(
            asked.messages, tools=asked.tools, tool_choice=asked.choice, config=asked.config
        )
        return asked, output

    async def _filtered(self, chosen: GenerateFilter, asked: _Asked) -> ModelOutput | GenerateInput | None:
        ask = cast("Any", chosen)
        first = asked.model.name if takes_name(chosen) else asked.model
        try:
            return await ask(first, list(asked.messages), tool_infos(asked.tools), asked.choice, asked.config)
        except ModelRefusalError:
            raise
        except TimeoutError as error:
            raise FatalError(ModelCallError(f"the filter did not end in time: {error}")) from error
        except Exception as error:  # a filter is the evaluation's own: what fails there is no provider's fault
            raise FatalError(error) from error


def takes_name(chosen: GenerateFilter) -> bool:
    """Whether a filter is of the older kind, which gets the model's name instead of the model."""
    first = next(iter(inspect.signature(chosen).parameters.values()), None)
    return first is not None and first.annotation in {str, "str"}


def tool_infos(tools: Sequence[ToolInfo | Tool]) -> list[ToolInfo]:
    """The tools as the model sees them."""
    return [tool if isinstance(tool, ToolInfo) else _described(tool) for tool in tools]


def _described(tool: Tool) -> ToolInfo:
    known = ToolDef(tool)
    options = None if known.options is None else dict(known.options)
    return ToolInfo(name=known.name, description=known.description, parameters=known.parameters, options=options)
