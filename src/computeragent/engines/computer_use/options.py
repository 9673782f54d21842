"""The engine's options: read once per run, every name and value checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct

from computeragent.errors import NotRemotableError, UnknownOptionError, ValidationError

_ALSO = {"max_turns": "max_steps"}  # what agent.yaml calls it
_LIVE = ("computer", "tools")

Positive = Annotated[float, Meta(gt=0)]
Dollars = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Side = Annotated[int, Meta(ge=64, le=16_384)]


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in US dollars per million tokens. What was cached costs as `input` where nothing is said."""

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the engine `computer-use`.

    Attributes:
        model: Whom to ask: ``anthropic/…``, ``openai/…``, ``scripted/<file>``, ``human/human`` … A name with ``+`` is
            two models: the one before it finds elements on the screen, the one behind it thinks.
        computer: A mapping that says which computer (``{"kind": "x11", "width": 1280}``), or in library mode a
            `Computer` or a mapping of functions. Default: what this machine can do.
        system_prompt: Instructions; there is none of ours.
        tool_format: How the model is told of the computer; default by its name. See `formats.NAMES`.
        model_screen: The size that the model is shown, ``[width, height]``. Default: the screen's own, made smaller
            where the model wants it.
        max_steps: How often the model may be asked in one turn.
        deadline: Seconds that one turn may take.
        only_n_most_recent_images: How many screenshots the model is shown again; None shows all.
        trajectory_dir: A folder for what the run did: requests, answers, screenshots.
        max_trajectory_budget: US dollars after which the run ends, as `budget_max_usd`.
        price: What the model costs, for those that the price table does not have.
        screenshot_delay: Seconds between an action and its screenshot. Default: until the screen stands still.
        keep_computer: Seconds that a computer is kept between turns; 0 gives it back after each turn.
        computer_timeout: Seconds to wait for a computer to come free.
        max_tokens: The longest answer.
        temperature: The model's own setting.
        use_prompt_caching: Have Anthropic keep the conversation in its cache.
        include_partial_messages: Tell text as it is written.
        redact_pii: Personal data and secrets in texts reach the model as tokens, which its actions turn back.
            Pictures are not redacted.
        verbosity: The level of this run's log: ``debug``, ``info``, ``warning``, ``error``, or a number of `logging`.
        tools: Python functions that the model may call as well, in library mode.
        history: What was said before the first message: neutral messages in the spelling of Responses, as data. Used
            where the session remembers nothing.
        max_retries: How often an answer that broke off is asked for again.

    """

    model: str
    computer: Any = None
    system_prompt: str | None = None
    tool_format: str | None = None
    model_screen: tuple[Side, Side] | None = None
    max_steps: Count = 100
    deadline: Positive | None = None
    only_n_most_recent_images: Count | None = 3
    trajectory_dir: str | None = None
    max_trajectory_budget: Dollars | None = None
    price: Price | None = None
    screenshot_delay: Annotated[float, Meta(ge=0, le=60)] | None = None
    keep_computer: Annotated[float, Meta(ge=0)] = 600.0
    computer_timeout: Positive = 60.0
    max_tokens: Count = 4096
    temperature: float | None = None
    use_prompt_caching: bool = False
    include_partial_messages: bool = True
    redact_pii: bool = False
    verbosity: str | int | None = None
    tools: tuple[Any, ...] = ()
    history: tuple[Any, ...] = ()
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2


def read_options(given: Mapping[str, Any], *, library_mode: bool) -> Options:
    """The options of a run.

    Raises `UnknownOptionError` for a name that there is not, `ValidationError` for a value that is none, and
    `NotRemotableError` for live objects where only data can travel.
    """
    known = {field.name for field in msgspec.structs.fields(Options)}
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        meant = _ALSO.get(name, name)
        if meant not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"Options are: {', '.join(sorted(known))}."
            raise UnknownOptionError(f"engine computer-use has no option {name!r}", hint=hint)
        if meant in _LIVE and not library_mode and not _is_data(value):
            raise NotRemotableError(
                f"option {name!r} holds a Python object, which cannot travel", hint="Pass it in library mode."
            )
        if meant == name or meant not in given:
            chosen[meant] = str(value) if isinstance(value, Path) else value
    if not chosen.get("model"):
        raise ValidationError("engine computer-use needs a model", hint='Such as model="anthropic/claude-sonnet-4-5".')
    if isinstance(chosen.get("max_trajectory_budget"), Mapping):  # the older spelling of the same
        chosen["max_trajectory_budget"] = chosen["max_trajectory_budget"].get("max_budget")
    try:
        return msgspec.convert(chosen, Options)
    except msgspec.ValidationError as error:
        raise ValidationError(f"options of engine computer-use: {error}", hint="Mend options=.") from None


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_data(item) for item in cast("Mapping[str, Any]", value).values())
    if isinstance(value, (list, tuple)):
        return all(_is_data(item) for item in cast("list[Any]", value))
    return value is None or isinstance(value, (str, int, float, bool))
