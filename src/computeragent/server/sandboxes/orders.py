"""From a request's body to an order: checked before anything starts, and ready to be run."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from computeragent import plugins
from computeragent.errors import PathEscapeError, ValidationError
from computeragent.identity.credentials import is_github
from computeragent.identity.repository import parse_repository
from computeragent.identity.sources import parse_source
from computeragent.ids import check_session_id
from computeragent.policy.config import check_policy
from computeragent.protocol_types import PermissionRequest, PolicyVerdict, SessionRequest
from computeragent.server.auth import Principal
from computeragent.server.policies import allowed_options, allowed_policy, on_behalf_of, policy_secrets
from computeragent.server.sandboxes import echo
from computeragent.server.sandboxes.errors import (
    MissingHarnessError,
    MissingMessageError,
    MissingSourceError,
    UnknownRuntimeError,
)
from computeragent.server.sandboxes.shapes import AgentRequest
from computeragent.server.sandboxes.tenants import Tenant
from computeragent.settings import home
from computeragent.wire.identity import IdentitySource, LocalSource
from computeragent.wire.policy import PolicyConfig
from computeragent.wire.requests import Attachment, StoreConfig, UserInput, join_messages

_MODES = ("permissionMode", "permission_mode")
IN_FOLDER = {"file": "root", "sqlite": "path"}
"""Session stores that are files, which are kept in the tenant's folder, and the option that names them."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """An agent to run: what was asked for, what may be shown of it, and who asked."""

    owner: Principal
    tenant: Tenant
    source: IdentitySource
    engine: str
    runtime: str
    envs: Mapping[str, str] = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    model: str | None
    session_id: str | None
    store: StoreConfig | None = field(repr=False)
    attachments: Sequence[Attachment] = field(repr=False)
    git_token: str | None = field(repr=False)
    policy: PolicyConfig | None = field(repr=False)
    bypassed: bool
    budget: float | None
    approval_timeout: float
    config: dict[str, Any]
    given_envs: frozenset[str] = frozenset()
    asked_store: StoreConfig | None = field(default=None, repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)

    def request(self, session_id: str, *, attach: bool = True) -> SessionRequest:
        """What opens a session for this order."""
        return SessionRequest(
            source=self.source,
            engine=self.engine,
            envs=self.envs,
            options=self.options,
            model=self.model,
            session_id=session_id,
            session_store=self.store,
            attachments=self.attachments if attach else (),
            policy=self.policy or (_bypassed if self.bypassed else None),
            principal=on_behalf_of(self.owner, self.policy),
            git_credentials=self.git_credentials,
            budget_max_usd=self.budget,
            approval_timeout=self.approval_timeout,
            project_key=self.tenant.project_key,
        )

    def git_credentials(self, url: str) -> dict[str, str] | None:
        """The git token, for GitHub alone; git gets it where no other process sees it."""
        if self.git_token is None or not is_github(parse_repository(url), self.envs):
            return None
        return {"token": self.git_token}


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where orders are taken: what this server offers, and what it forwards of its own environment."""

    engines: Sequence[str]
    runtimes: Sequence[str]
    default_runtime: str
    forward_env: Sequence[str] = ()
    source_roots: Sequence[Path] | None = None
    approval_timeout: float = 600.0

    def order(self, body: AgentRequest, owner: Principal, tenant: Tenant) -> Order:
        """A checked order. Raises a `ValidationError` of its code for whatever is wrong."""
        if body.source is None or body.source == "":
            raise MissingSourceError("the request names no agent", hint="Send source: a git address or a folder.")
        if not body.harness:
            raise MissingHarnessError("the request names no engine", hint=f"Send harness: {', '.join(self.engines)}.")
        source = self._source(body.source, owner)
        plugins.engines.require(body.harness)
        if body.harness not in self.engines:
            raise ValidationError(
                f"engine {body.harness!r} is not offered here", hint=f"Offered: {', '.join(self.engines)}."
            )
        envs = self._envs(body)
        options = allowed_options(body.options, owner)
        if body.temperature is not None:
            options.setdefault("temperature", body.temperature)
        return Order(
            owner=owner,
            tenant=tenant,
            source=source,
            engine=body.harness,
            runtime=self.runtime(body.runtime),
            envs=envs,
            options=options,
            model=body.model,
            session_id=None if body.session_id is None else check_session_id(body.session_id),
            store=_store(body.session_store, owner, tenant),
            attachments=_attachments(body.attachments),
            git_token=body.git_token,
            policy=_policy(body.policy, owner),
            # A caller who asks for this mode has thereby answered all requests itself.
            bypassed=any(options.get(name) == "bypassPermissions" for name in _MODES),
            budget=body.budget_max_usd,
            approval_timeout=self.approval_timeout,
            config=echo.echoed(body, source, secrets_of(body)),
            given_envs=frozenset(body.envs),
            asked_store=body.session_store,
            secrets=secrets_of(body),
        )

    def runtime(self, name: str | None) -> str:
        """The runtime of this name, or the default one. Raises `UnknownRuntimeError`."""
        if name is None:
            return self.default_runtime
        if name not in self.runtimes:
            raise UnknownRuntimeError(name, self.runtimes)
        return name

    def _envs(self, body: AgentRequest) -> dict[str, str]:
        """What is forwarded, below what the request says. A caller's own endpoint never gets the server's keys."""
        asked = dict(body.envs)
        if body.base_url is not None:
            if urlsplit(body.base_url).scheme not in {"http", "https"}:
                raise ValidationError("baseUrl is not an http(s) address", hint="Such as https://host/path.")
            asked.setdefault("ANTHROPIC_BASE_URL", body.base_url)
        if body.debug:
            asked.setdefault("COMPUTERAGENT_LOG", "debug")
        elsewhere = tuple(name.removesuffix("BASE_URL") for name in asked if name.endswith("_BASE_URL"))
        forwarded = {
            name: os.environ[name]
            for name in self.forward_env
            if name in os.environ and not (elsewhere and name.startswith(elsewhere))
        }
        for name, value in asked.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValidationError(f"envs has a name that cannot be: {name[:40]!r}", hint="Use NAME: value.")
        return forwarded | asked

    def _source(self, given: str | IdentitySource, owner: Principal) -> IdentitySource:
        source = parse_source(given)
        if isinstance(source, LocalSource):
            path = Path(os.path.realpath(Path(source.path).expanduser()))
            state = Path(os.path.realpath(home()))
            allowed = any(path.is_relative_to(root) for root in self.source_roots or ())
            allowed = allowed or (self.source_roots is None and owner.local)
            if not allowed or path.is_relative_to(state) or state.is_relative_to(path):
                raise ValidationError("this folder is not offered to agents", hint="Use a git or inline source.")
        return source


def said(message: str | list[UserInput] | UserInput | None) -> UserInput:
    """The one message of a turn. Raises `MissingMessageError`."""
    if not message:
        raise MissingMessageError("the request has no message", hint='Send message: "…".')
    if isinstance(message, str):
        return UserInput(content=message)
    return message if isinstance(message, UserInput) else join_messages(message)


def secrets_of(body: AgentRequest) -> list[str]:
    """Every value of a request that may be secret, to be found wherever it stands."""
    found = [body.git_token, *policy_secrets(body.policy)]
    found += [value for value in body.envs.values() if len(value) >= 8]
    for store in (body.session_store, getattr(getattr(body, "auto_save", None), "state_store", None)):
        found += _texts(None if store is None else store.options)
    return [value for value in found if value and len(value) >= 4]


def check_attachments(attachments: Sequence[Attachment]) -> Sequence[Attachment]:
    """Attachments whose paths and encoding are right. Raises `ValidationError` and `PathEscapeError`."""
    return _attachments(attachments)


def _policy(policy: PolicyConfig | None, owner: Principal) -> PolicyConfig | None:
    """The policy of a request. Nothing runs with one that cannot be read, or that this caller may not name."""
    if policy is not None:
        check_policy(policy)
    return allowed_policy(policy, owner)


async def _bypassed(request: PermissionRequest, /) -> PolicyVerdict:
    del request
    return PolicyVerdict("allow", rule="permissionMode: bypassPermissions")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _attachments(attachments: Sequence[Attachment]) -> Sequence[Attachment]:
    for each in attachments:
        parts = PurePosixPath(each.path).parts
        if not each.path.strip() or "\0" in each.path or each.path.startswith("/") or ".." in parts:
            raise PathEscapeError(
                f"attachment {each.path[:100]!r} leaves the working directory", hint="Give a relative path inside it."
            )
        if each.encoding == "base64":
            try:
                base64.b64decode(each.content, validate=True)
            except binascii.Error as error:
                raise ValidationError(
                    f"attachment {each.path[:100]!r} is not valid base64",
                    hint="Encode the file's bytes with base64, or send text with encoding 'utf8'.",
                ) from error
    return attachments


def _store(given: StoreConfig | None, owner: Principal, tenant: Tenant) -> StoreConfig | None:
    """The session store that was asked for; one that is a file is the tenant's own, wherever it wants to be."""
    if given is None:
        return None
    plugins.stores.require(given.kind)
    options = dict(given.options or {})
    where = IN_FOLDER.get(given.kind)
    if where is None:
        if options and not owner.local:
            raise ValidationError(
                "where a session store keeps its data is the server's to say", hint="Send its kind alone."
            )
        return given
    unknown: Iterable[str] = set(options) - {where}
    name = options.get(where, given.kind)
    if unknown or not isinstance(name, str) or not PurePosixPath(name).name or name.startswith(("/", "~")):
        raise ValidationError(
            f"session store {given.kind!r} takes {where}, a relative path, and nothing else here",
            hint="The server keeps it in a folder of yours.",
        )
    if ".." in PurePosixPath(name).parts or "\0" in name:
        raise PathEscapeError(f"{where} {name[:100]!r} leaves your folder", hint="Give a relative path without '..'.")
    return StoreConfig(kind=given.kind, options={where: str(tenant.folder / "stores" / name)})
