"""`generationConfig` of Gemini: sampling, limits, thinking, the shape of the answer."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.gemini.schemas import json_schema
from computeragent.dialects.gemini.spelling import inner
from computeragent.dialects.model import ModelRequest, OutputFormat, ThinkingConfig

JSON = "application/json"
_OLDER = re.compile(r"(models/)?gemini-[12](\D|$)")
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192}
_LARGE_BUDGET = 24_576


def is_older(model: str) -> bool:
    """Whether it is a Gemini before 3: it thinks by budget, not by level, and signs no calls."""
    return _OLDER.match(model) is not None


class Settings(Struct, frozen=True, kw_only=True):
    """What `generationConfig` says; `rest` is what the neutral model has no word for."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop_sequences: tuple[str, ...]
    thinking: ThinkingConfig | None
    effort: str | None
    output_format: OutputFormat | None
    rest: dict[str, Any]


def parse_settings(body: Fields) -> Settings:
    """Read `generationConfig`. Raises `ValidationError`."""
    fields = inner(body, "generationConfig") or Fields({})
    thinking, effort = _parse_thinking(fields)
    output_format = _parse_format(fields)
    return Settings(
        max_tokens=fields.integer("maxOutputTokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("topP"),
        top_k=fields.integer("topK"),
        seed=fields.integer("seed"),
        stop_sequences=fields.strings("stopSequences"),
        thinking=thinking,
        effort=effort,
        output_format=output_format,
        rest=fields.rest(),  # last: what no line above has taken
    )


def _parse_thinking(fields: Fields) -> tuple[ThinkingConfig | None, str | None]:
    config = inner(fields, "thinkingConfig")
    if config is None:
        return None, None
    budget, level = config.integer("thinkingBudget"), config.optional_string("thinkingLevel")
    effort = None if level is None else level.lower()
    rest = config.rest()
    if budget == 0:
        return ThinkingConfig(mode="disabled", extra=rest), effort
    if budget is not None and budget > 0:
        return ThinkingConfig(mode="enabled", budget_tokens=budget, extra=rest), effort
    extra = {**rest, **absent_if_none(thinkingBudget=budget)}  # -1: as much as the model sees fit
    return (ThinkingConfig(mode="adaptive", extra=extra) if extra else None), effort


def _parse_format(fields: Fields) -> OutputFormat | None:
    if fields.whole().get("responseMimeType") != JSON:
        return None
    fields.take("responseMimeType")
    schema, given = fields.take("responseJsonSchema"), fields.take("responseSchema")
    if schema is not None:
        return OutputFormat(schema=Fields({"schema": schema}, fields.path).mapping("schema"))
    if given is not None:
        schema = json_schema(given, fields.at("responseSchema"))
        return OutputFormat(schema=schema, extra={"responseSchema": given})
    return OutputFormat()


def build_settings(request: ModelRequest, *, own: bool) -> dict[str, Any]:
    """Write `generationConfig`."""
    rest: dict[str, Any] = request.extra.get("generationConfig", {}) if own else {}
    known = absent_if_none(
        maxOutputTokens=request.max_tokens,
        temperature=request.temperature,
        topP=request.top_p,
        topK=request.top_k,
        seed=request.seed,
        stopSequences=list(request.stop_sequences) or None,
        thinkingConfig=_build_thinking(request, own=own) or None,
    )
    return {**rest, **known, **_build_format(request.output_format, own=own)}


def _build_thinking(request: ModelRequest, *, own: bool) -> dict[str, Any]:
    thinking, built = request.thinking, dict[str, Any]()
    if thinking is not None:
        budget = 0 if thinking.mode == "disabled" else thinking.budget_tokens
        built = absent_if_none(thinkingBudget=budget)
        built |= thinking.extra if own else {} if thinking.mode == "disabled" else {"includeThoughts": True}
    effort = request.effort
    if effort is None or (not own and "thinkingBudget" in built):  # not both
        return built
    if own:
        return {**built, "thinkingLevel": effort.upper()}
    if is_older(request.model):
        return {**built, "thinkingBudget": _BUDGETS.get(effort, _LARGE_BUDGET)}
    return {**built, "thinkingLevel": _LEVELS.get(effort, "HIGH")}


def _build_format(shape: OutputFormat | None, *, own: bool) -> dict[str, Any]:
    if shape is None:
        return {}
    given = shape.extra.get("responseSchema") if own else None
    if given is not None and json_schema(given, "responseSchema") == shape.schema:
        return {"responseMimeType": JSON, "responseSchema": given}
    return {"responseMimeType": JSON, **absent_if_none(responseJsonSchema=shape.schema)}
