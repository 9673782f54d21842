"""Which model is whose: one table from a model's name to the wire, the address and the key that it is reached with.

A model is named ``provider/model``; the best-known names need no provider. The variables of this table are all that a
request may set for itself (`allowed_env`). Keys are never printed, logged or put into errors.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from computeragent import credentials
from computeragent.credentials import Key
from computeragent.errors import UnknownModelError, ValidationError

_CLI_LOGIN = "CLAUDE_CODE_OAUTH_TOKEN"  # a login of the Claude CLI, no key of the API
_LONGEST_NAME = 300
_VERSION = re.compile(r"/v\d\w*(?=/)")


@dataclass(frozen=True, slots=True)
class Row:
    """How the models of one provider are reached: `dialect` is their wire, `path` is added to the base URL.

    Where the wire wants the model's name in the path, it takes the place of ``{model}``.

    `bare` finds the names that need no prefix. Without `key_required` a server may do without one.
    """

    prefix: str
    dialect: str
    path: str
    keys: tuple[Key, ...]
    base_url_variable: str
    base_url: str
    bare: re.Pattern[str] | None = None
    key_required: bool = True

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of its keys, in order of precedence."""
        return tuple(key.variable for key in self.keys)


def _row(prefix: str, dialect: str, path: str, *, bare: str | None = None, key_required: bool = True) -> Row:
    provider = next(each for each in credentials.PROVIDERS if each.name == prefix)
    keys = tuple(key for key in provider.keys if key.variable != _CLI_LOGIN)
    pattern = re.compile(bare, re.IGNORECASE) if bare else None
    return Row(prefix, dialect, path, keys, provider.base_url_variable, provider.base_url, pattern, key_required)


PROVIDERS: tuple[Row, ...] = (
    _row("anthropic", "anthropic", "/v1/messages", bare=r"claude-.+"),
    _row("openai", "openai_responses", "/responses", bare=r"(chat)?gpt-.+|o\d(-.+)?|computer-use-preview(-.+)?"),
    _row("openrouter", "openai_chat", "/chat/completions"),
    _row("gemini", "gemini", "/v1beta/models/{model}:streamGenerateContent?alt=sse", bare=r"gemini-.+"),
    _row("openai-compatible", "openai_chat", "/chat/completions", key_required=False),
)
"""The providers of models, by the prefix of their models' names."""

HERE = ("scripted", "human")
"""Prefixes of models that need no provider: a script file, a person."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers: the address that takes its requests, and the header that lets them in (never printed)."""

    provider: str
    model: str
    dialect: str
    url: str
    header: tuple[str, str] | None = field(default=None, repr=False)
    key_variables: tuple[str, ...] = ()


def allowed_env(*, addresses: bool = True) -> frozenset[str]:
    """The variables that a request may set for itself: keys and, with `addresses`, base URLs."""
    names = {name for row in PROVIDERS for name in row.variables}
    return frozenset(names | {row.base_url_variable for row in PROVIDERS} if addresses else names)


def request_env(
    given: Mapping[str, str], own: Mapping[str, str] | None = None, *, addresses: bool = True
) -> dict[str, str]:
    """The environment of one request: what it states, over what this process has (`own`, default `os.environ`).

    A key of ours never goes to an address that the request states, and with a key it states none of ours is used.
    Raises `ValidationError` for a variable that is not in `allowed_env`.
    """
    own = os.environ if own is None else own
    allowed = allowed_env(addresses=addresses)
    for name, value in given.items():
        if name not in allowed:
            raise ValidationError(
                f"the variable {name[:100]!r} cannot be set by a request",
                hint=f"Allowed: {', '.join(sorted(allowed))}.",
            )
        if not isinstance(value, str):
            raise ValidationError(f"the value of the variable {name!r} must be a string")
    merged: dict[str, str] = {}
    for row in PROVIDERS:
        stated = {name: given[name] for name in (*row.variables, row.base_url_variable) if given.get(name)}
        ours = {name: own[name] for name in (*row.variables, row.base_url_variable) if own.get(name)}
        if row.base_url_variable in stated:
            ours = {}
        elif stated:
            ours = {name: value for name, value in ours.items() if name == row.base_url_variable}
        merged |= ours | stated
    return merged


def find(model: str, envs: Mapping[str, str] | None = None) -> Endpoint:
    """Where `model` answers, by its name and an environment (default: this process's).

    Raises `UnknownModelError` where no provider has such a model or its key is missing, and `ValidationError` for a
    base URL or key that cannot be used.
    """
    envs = os.environ if envs is None else envs
    row, name = _row_of(model)
    header = _header(row, model, envs)
    return Endpoint(
        row.prefix, name, row.dialect, _base_url(row, model, envs) + _path(row, name), header, row.variables
    )


def provider_of(model: str) -> str:
    """The provider's prefix of a model's name. Raises `UnknownModelError`."""
    return _row_of(model)[0].prefix


def _row_of(model: str) -> tuple[Row, str]:
    prefix, slash, name = model.partition("/")
    if len(model) > _LONGEST_NAME or not model.isprintable():
        raise UnknownModelError("the model's name is too long or not printable")
    for row in PROVIDERS:
        if slash and name and prefix.lower() == row.prefix:
            return row, name
        if not slash and row.bare is not None and row.bare.fullmatch(model):
            return row, model
    raise _unknown(model)


def _unknown(model: str) -> UnknownModelError:
    prefix, slash, name = model.partition("/")
    prefixes = [row.prefix for row in PROVIDERS] + list(HERE)
    listed = ", ".join(f"{each}/…" for each in prefixes)
    if slash and prefix in prefixes:
        return UnknownModelError(f"{model!r} names no model", hint=f"Write it as {prefix}/NAME.")
    if slash:
        close = difflib.get_close_matches(prefix.lower(), prefixes, n=1)
        meant = f'Did you mean "{close[0]}/{name}"? ' if close else ""
    else:
        word = model.partition("-")[0].lower()
        close = difflib.get_close_matches(word, ("claude", "gpt", "gemini", "computer"), n=1)
        meant = f'Did you mean "{close[0]}{model[len(word) :]}"? ' if close and close[0] != word else ""
    message = f"no provider here serves a model named {model!r}"
    return UnknownModelError(message, hint=f"{meant}Write it as provider/model: {listed}.")


def _header(row: Row, model: str, envs: Mapping[str, str]) -> tuple[str, str] | None:
    for key in row.keys:
        value = (envs.get(key.variable) or "").strip()
        if not value:
            continue
        if not value.isascii() or not value.isprintable():
            raise ValidationError(f"the key in {key.variable} cannot be sent", hint="A key is plain ASCII on one line.")
        return key.header, key.prefix + value
    if not row.key_required:
        return None
    variables = " or ".join(reversed(row.variables))
    raise UnknownModelError(
        f"there is no key for the model {model!r}", hint=f"Set {variables}.", details={"variables": list(row.variables)}
    )


def _path(row: Row, name: str) -> str:
    return row.path.replace("{model}", quote(name.removeprefix("models/"), safe=""))


def _base_url(row: Row, model: str, envs: Mapping[str, str]) -> str:
    variable = row.base_url_variable
    base = (envs.get(variable) or "").strip() or row.base_url
    if not base:
        raise UnknownModelError(
            f"there is no address for the model {model!r}",
            hint=f"Set {variable} to the base URL of its server, such as http://127.0.0.1:8000/v1.",
            details={"variables": [variable]},
        )
    try:
        parts = urlsplit(base)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good, parts = False, None
    if not good or parts is None or "@" in parts.netloc or parts.query or parts.fragment or not base.isprintable():
        raise ValidationError(
            f"{variable} is no base URL",
            hint="It is an http or https URL without user, password, query and fragment.",
        )
    base = base.rstrip("/")
    if (version := _VERSION.match(row.path)) is not None:  # such a base is given with and without its version
        base = base.removesuffix(version[0])
    return base
