"""What a request means: which model with whose key, which computer, which options of the engine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from computeragent.computer.kinds import spec_of
from computeragent.computer.pool import LIMIT
from computeragent.dialects import openai_responses
from computeragent.dialects.anthropic.content import build_content
from computeragent.dialects.model import Message
from computeragent.engines.computer_use import ComputerUseEngine
from computeragent.engines.computer_use.options import read_options
from computeragent.errors import UnknownModelError, ValidationError
from computeragent.jail import Jail
from computeragent.models import providers
from computeragent.policy_types import PolicyPrincipal
from computeragent.protocol_types import PermissionRequest, PolicyVerdict, SessionRequest
from computeragent.responses.bodies import CreateResponse
from computeragent.server.auth import Principal
from computeragent.settings import home
from computeragent.wire.identity import InlineSource
from computeragent.wire.requests import UserInput

COMPUTER_ENV = frozenset({"CUA_API_KEY", "CUA_CONTAINER_NAME"})
"""Variables of a request that are for its computer."""
_ENGINE = ComputerUseEngine(confined=False)  # what it is given is checked here
_ADDRESSES = frozenset({"api_host", "api_base_url", "host", "url", "name"})
_APPROVAL_TIMEOUT = 600.0
_FOLDER = re.compile(r"\w[\w. -]{0,99}")
_FAR = ("run_command", "callbacks", "custom_loop", "tools", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class Offered:
    """What a server's callers may ask for.

    `attach` lets them drive this machine's own display; `computer` is what `computer_kwargs` are where a request says
    nothing; `computers` is how many there may be at a time; `remote_hosts` are those whose computer-servers may be used
    (None: any but this machine's). `trajectories` is where `save_trajectory` keeps them
    (default: in the state folder). `scripts` is the folder of the models ``scripted/FILE``; without it there are none.
    """

    attach: bool = False
    computer: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trajectories: Path | None = None
    computers: int = LIMIT
    remote_hosts: Collection[str] | None = None
    scripts: Path | None = None


def resolve(
    request: CreateResponse, offered: Offered, *, session_id: str, principal: Principal
) -> tuple[SessionRequest, UserInput]:
    """The session that a request opens, and the message that it sends. Raises `ValidationError` and its kin."""
    given = {name: _variable(value) for name, value in request.env.items()}
    for_computer = {name: given.pop(name) for name in COMPUTER_ENV & given.keys()}
    options, envs = _agent(request, offered)
    envs = providers.request_env({**given, **envs}, addresses=principal.local)
    model = _model(request.model, envs, offered)
    history, message = _conversation(request)
    if history:
        options["history"] = msgspec.to_builtins(history)
    wanted = {**offered.computer, **_tool_size(request), **request.computer_kwargs}
    env = _computer_env(wanted, for_computer)
    spec = spec_of(wanted, env, allow_host=offered.attach, remote_hosts=offered.remote_hosts)
    options["computer"] = msgspec.to_builtins(spec)
    opening = SessionRequest(
        source=InlineSource(manifest={"name": "computer-use", "version": "1.0.0"}),
        engine=_ENGINE,
        model=model,
        envs=envs,
        options=options,
        session_id=session_id,
        session_store="memory",
        principal=PolicyPrincipal(id=principal.id),
        policy=_act,
        approval_timeout=_APPROVAL_TIMEOUT,
        agent_name="computer-use",
    )
    return opening, message


def _computer_env(wanted: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a computer: the request's, else ours, whose key goes to no address that a request names."""
    if given or _ADDRESSES & wanted.keys():
        return dict(given)
    return {name: os.environ[name] for name in COMPUTER_ENV if os.environ.get(name)}


async def _act(request: PermissionRequest) -> PolicyVerdict:
    """To act is what is asked for here: nobody is asked about each action, unless a server's own policy says so.

    What the provider wants a person to look at is asked whatever this says.
    """
    del request
    return PolicyVerdict("allow", engine="responses")


def _model(name: str, envs: Mapping[str, str], offered: Offered) -> str:
    """The model to ask. Raises `UnknownModelError` where nobody serves it, or its key is missing."""
    kind, _, rest = name.partition("/")
    if kind == "scripted":
        if offered.scripts is None:
            raise UnknownModelError("this server offers no scripted models", hint="Start it with --scripts DIR.")
        Jail(offered.scripts).read_bytes(rest)  # nothing outside, and it is there
        return f"scripted/{offered.scripts / rest}"
    for each in name.split("+"):
        if each != "human/human":
            providers.find(each, envs)  # a script's file, named behind a plus, is none of theirs
    return name


# ── agent_kwargs ──


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ValidationError(f"agent_kwargs.{name} is a number, not below zero")
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValidationError(f"agent_kwargs.{name} is a whole number, not below zero")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValidationError(f"agent_kwargs.{name} is true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValidationError(f"agent_kwargs.{name} is a text")
    return value


def _variable(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _budget(name: str, value: Any) -> float:
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).get("max_budget")
    return _number(name, value)


def _telemetry(name: str, value: Any) -> bool:
    if not _flag(name, value):
        raise ValidationError("telemetry cannot be turned off by a request", hint="Whoever runs this server decides.")
    return True


AGENT_KWARGS: dict[str, tuple[str | None, Callable[[str, Any], Any]]] = {
    "save_trajectory": ("trajectory_dir", _flag),
    "trajectory_dir": ("trajectory_dir", _text),
    "verbosity": ("verbosity", _whole),
    "max_trajectory_budget": ("max_trajectory_budget", _budget),
    "only_n_most_recent_images": ("only_n_most_recent_images", _whole),
    "max_retries": ("max_retries", _whole),
    "screenshot_delay": ("screenshot_delay", _number),
    "use_prompt_caching": ("use_prompt_caching", _flag),
    "instructions": ("system_prompt", _text),
    "max_steps": ("max_steps", _whole),
    "deadline": ("deadline", _number),
    "redact_pii": ("redact_pii", _flag),
    "telemetry_enabled": (None, _telemetry),
    "api_key": (None, _text),
    "api_base": (None, _text),
}
"""`agent_kwargs` by name: the engine's option, and what reads the value. Without an option it is done here."""


def _agent(request: CreateResponse, offered: Offered) -> tuple[dict[str, Any], dict[str, str]]:
    """The engine's options, and the variables that `api_key` and `api_base` stand for."""
    options: dict[str, Any] = {}
    for name, value in request.agent_kwargs.items():
        if name in _FAR:
            raise ValidationError(f"agent_kwargs.{name} cannot be sent", hint="It needs code: use the library.")
        if name not in AGENT_KWARGS:
            raise ValidationError(f"agent_kwargs has no {name!r}", hint=f"Known: {', '.join(sorted(AGENT_KWARGS))}.")
        if value is None:
            continue
        option, read = AGENT_KWARGS[name]
        read_value = read(name, value)
        if option is not None:
            options[option] = read_value
    wanted = options.pop("trajectory_dir", False)
    if wanted is not False:
        options["trajectory_dir"] = str(_trajectories(wanted, offered))
    if request.instructions is not None:
        options["system_prompt"] = request.instructions
    if request.max_steps is not None:
        options["max_steps"] = request.max_steps
    if request.deadline is not None:
        options["deadline"] = request.deadline
    if request.mode != "run":
        options["max_steps"] = 1
    read_options({**options, "model": request.model}, library_mode=False)
    return options, _provider_env(request)


def _trajectories(wanted: bool | str, offered: Offered) -> Path:
    root = offered.trajectories or home("trajectories")
    if wanted is True or not wanted:
        return root
    if _FOLDER.fullmatch(str(wanted)) is None:
        raise ValidationError("agent_kwargs.trajectory_dir is the name of a folder, not a path", hint="Such as demo.")
    return root / str(wanted)


def _provider_env(request: CreateResponse) -> dict[str, str]:
    key, base = request.agent_kwargs.get("api_key"), request.agent_kwargs.get("api_base")
    if key is None and base is None:
        return {}
    prefix = providers.provider_of(request.model.rpartition("+")[2])
    row = next(row for row in providers.PROVIDERS if row.prefix == prefix)
    envs = {row.variables[-1]: str(key)} if key is not None else {}
    return {**envs, **({row.base_url_variable: str(base)} if base is not None else {})}


# ── input and tools ──


def _conversation(request: CreateResponse) -> tuple[list[Message], UserInput]:
    """What was said before, and the message that is new: the last one, which is the user's."""
    given = request.input
    items = given if isinstance(given, str) else [_item(item) for item in given]
    read = openai_responses.parse_request({"model": request.model, "input": items})
    messages = list(read.messages)
    if not messages or messages[-1].role != "user":
        raise ValidationError("the input does not end with a message of the user", hint="Add what is to be done.")
    last = messages.pop()
    if request.previous_response_id is not None and messages:
        raise ValidationError("with previous_response_id the input is the new message alone")
    if not messages and all(set(block) == {"type", "text"} for block in build_content(last.content, own=False)):
        return [], UserInput(content=last.text)
    return messages, UserInput(content=build_content(last.content, own=False))


def _item(item: Any) -> Any:
    """An input item, with the parts that Chat Completions has in the words of Responses."""
    if not isinstance(item, dict):
        raise ValidationError("Input must be string or list of messages")
    fields = cast("dict[str, Any]", item)
    content = fields.get("content")
    if not isinstance(content, list):
        return fields
    return {**fields, "content": [_part(part, fields.get("role")) for part in cast("list[Any]", content)]}


def _part(part: Any, role: Any) -> Any:
    if not isinstance(part, dict):
        return part
    fields = cast("dict[str, Any]", part)
    if fields.get("type") == "text":
        return {**fields, "type": "output_text" if role == "assistant" else "input_text"}
    url: object = fields.get("image_url")
    if fields.get("type") == "image_url":
        return {
            "type": "input_image",
            "image_url": cast("dict[str, Any]", url).get("url") if isinstance(url, dict) else url,
        }
    return fields


def _tool_size(request: CreateResponse) -> dict[str, Any]:
    """The size that a computer tool states, as OpenAI's clients send it. Other tools need code on our side."""
    size: dict[str, Any] = {}
    for tool in request.tools:
        if tool.get("type") not in {"computer_use_preview", "computer"}:
            raise ValidationError(
                f"a tool of type {str(tool.get('type'))[:60]!r} cannot be sent", hint="The computer is the tool here."
            )
        width, height = tool.get("display_width"), tool.get("display_height")
        if isinstance(width, int) and isinstance(height, int):
            size = {"display": f"{width}x{height}"}
    return size
