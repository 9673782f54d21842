"""A module of ours that shows a module of `claude-agent-sdk`: the same objects, imported when one is asked for.

What is asked for is looked up in upstream each time, so names that a newer upstream adds are there too, and
what other tools patch into upstream is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def mirror(upstream: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The module-level `__getattr__` and `__dir__` of a module that mirrors `upstream`."""

    def find(name: str) -> Any:
        if name == "__path__":  # an ordinary module: asking must not look for sub-modules
            raise AttributeError(name)
        module = import_module(upstream)
        if name == "__all__":
            return getattr(module, "__all__", public(module))
        return getattr(module, name)

    def names() -> list[str]:
        return sorted(dir(import_module(upstream)))

    return find, names


def public(module: object) -> list[str]:
    """The names of a module that do not begin with an underscore."""
    return [name for name in dir(module) if not name.startswith("_")]
