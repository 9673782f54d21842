"""Models that can be called: a provider over HTTP, a script, a person. Start with `open_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from computeragent.errors import UnknownModelError

if TYPE_CHECKING:
    from computeragent.models.http import HttpModel
    from computeragent.models.providers import Endpoint, allowed_env, find, request_env
    from computeragent.models.scripted import ScriptedModel
    from computeragent.models.types import Model

_HOMES = {
    "Endpoint": "providers",
    "HttpModel": "http",
    "Model": "types",
    "ScriptedModel": "scripted",
    "allowed_env": "providers",
    "find": "providers",
    "request_env": "providers",
}
__all__ = ["Endpoint", "HttpModel", "Model", "ScriptedModel", "allowed_env", "find", "open_model", "request_env"]


def open_model(name: str, envs: Mapping[str, str] | None = None, **settings: Any) -> Model:
    """The model of this name, to be closed with `aclose`. Nothing is connected before the first call.

    `name` is ``provider/model``, a well-known name alone (``claude-…``, ``gpt-…``, ``computer-use-preview``),
    ``scripted/FILE`` (a YAML script) or ``human/human``. Keys and base URLs come from `envs` (default: this process's
    environment). `settings` are those of its kind (`HttpModel`). Raises `UnknownModelError`, `ValidationError` and
    `ScriptError`.
    """
    prefix, _, rest = name.partition("/")
    if prefix in {"scripted", "human"} and not rest:
        raise UnknownModelError(f"{name!r} names no model", hint="Write scripted/FILE or human/human.")
    if prefix == "scripted":
        from computeragent.models.scripted import ScriptedModel

        if rest.endswith(".py"):  # a name may come from anywhere, and would run code
            hint = "Give a YAML file, or in Python ScriptedModel(FILE) itself."
            raise UnknownModelError("a model's name cannot be a Python script", hint=hint)
        return ScriptedModel(rest, name=name, **settings)
    if name == "human/human":
        from computeragent.models.human import HumanModel

        return HumanModel(**settings)
    from computeragent.models.http import HttpModel
    from computeragent.models.providers import find

    return HttpModel(find(name, envs), **settings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
