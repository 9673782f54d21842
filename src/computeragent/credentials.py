"""The model providers that engines talk to: which variables hold their keys, their address, and how a key is sent.

An isolating substrate keeps these keys outside: in the sandbox the variables hold `PLACEHOLDER`, the address is a
relay's, and the relay adds the key to what it forwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

PLACEHOLDER = "held-outside-the-sandbox"
"""What the variables of keys hold in a sandbox."""


@dataclass(frozen=True, slots=True)
class Key:
    """One way to authenticate: the variable that holds the key, and the header that carries it."""

    variable: str
    header: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """A model provider. `keys` in order of precedence; `base_url_variable` overrides `base_url`, which may be empty."""

    name: str
    keys: tuple[Key, ...]
    base_url_variable: str
    base_url: str


PROVIDERS = (
    Provider(
        "anthropic",
        (
            Key("ANTHROPIC_AUTH_TOKEN", "authorization", "Bearer "),
            Key("ANTHROPIC_API_KEY", "x-api-key"),
            Key("CLAUDE_CODE_OAUTH_TOKEN", "authorization", "Bearer "),
        ),
        "ANTHROPIC_BASE_URL",
        "https://api.anthropic.com",
    ),
    Provider(
        "openai",
        (Key("OPENAI_API_KEY", "authorization", "Bearer "),),
        "OPENAI_BASE_URL",
        "https://api.openai.com/v1",
    ),
    Provider(
        "gemini",
        (Key("GEMINI_API_KEY", "x-goog-api-key"),),
        "GOOGLE_GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com",
    ),
    Provider(
        "openrouter",
        (Key("OPENROUTER_API_KEY", "authorization", "Bearer "),),
        "OPENROUTER_BASE_URL",
        "https://openrouter.ai/api/v1",
    ),
    Provider(  # any server of that wire; there is no address that all have
        "openai-compatible",
        (Key("OPENAI_COMPATIBLE_API_KEY", "authorization", "Bearer "),),
        "OPENAI_COMPATIBLE_BASE_URL",
        "",
    ),
)
KEY_HEADERS = frozenset(key.header for provider in PROVIDERS for key in provider.keys)
"""Headers, in lower case, that carry provider keys."""


def of_process(provider_names: frozenset[str] | None = None) -> dict[str, str]:
    """The keys and addresses of providers that this process's own environment states."""
    chosen = [each for each in PROVIDERS if provider_names is None or each.name in provider_names]
    names = [name for each in chosen for name in (each.base_url_variable, *(key.variable for key in each.keys))]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a provider's requests go from the outside, and the header that lets them in; never printed."""

    provider: Provider
    base_url: str
    header: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"Route({self.provider.name!r}, {self.base_url!r})"


def held_outside(envs: Mapping[str, str]) -> tuple[dict[str, str], list[Route]]:
    """Take the provider keys out of an environment.

    Returns what the sandbox may see, keys replaced by `PLACEHOLDER` and addresses left out, and a route for every
    provider that the environment knows a key or an address of.
    """
    inside = dict(envs)
    routes: list[Route] = []
    for provider in PROVIDERS:
        header: tuple[str, str] | None = None
        for key in provider.keys:
            value = inside.get(key.variable)
            if not value:
                continue
            inside[key.variable] = PLACEHOLDER
            header = header or (key.header, f"{key.prefix}{value}")
        stated = inside.pop(provider.base_url_variable, None)
        base_url = (stated or provider.base_url).rstrip("/")
        if base_url and (header is not None or stated):
            routes.append(Route(provider, base_url, header))
    return inside, routes
