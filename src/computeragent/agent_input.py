"""What callers write when they define an agent, as data: checked at once, complete when its source is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from computeragent import plugins
from computeragent.errors import ValidationError
from computeragent.policy.config import AnyPolicy, read_policy
from computeragent.protocol_types import (
    Attachment,
    EngineDriver,
    IdentityLoader,
    IdentitySource,
    PolicyDecider,
    PolicyEngine,
    PolicyPrincipal,
    SessionRequest,
    StoreConfig,
)
from computeragent.references import RegisteredAgent
from computeragent.stores.binding import resolve_store
from computeragent.wire.policy import PolicyConfig

DEFAULT_ENGINE = "claude-agent-sdk"


@dataclass(frozen=True, kw_only=True)
class AgentInput:
    """An agent as its caller defined it. `source`, `engine` and `model` may be left to what is registered."""

    source: IdentitySource | None
    engine: str | EngineDriver | None
    model: str | None
    policy: PolicyConfig | PolicyEngine | PolicyDecider | None
    principal: PolicyPrincipal | None
    session_id: str | None
    agent_id: str | None
    agent_name: str | None
    agent_description: str | None
    identity_loader: str | IdentityLoader | None
    session_store: Any
    envs: Mapping[str, str] = field(repr=False)
    options: Mapping[str, Any]
    attachments: Sequence[Attachment]
    git_credentials: Callable[[str], Any] | None
    budget_max_usd: float | None
    approval_timeout: float
    project_key: str

    def request(self, registered: RegisteredAgent | None = None) -> SessionRequest:
        """What opens a session; what the caller said wins over what is registered."""
        source = self.source or (registered.source if registered is not None else None)
        assert source is not None
        known = registered or RegisteredAgent("", source)
        return SessionRequest(
            source=source,
            engine=self.engine or known.harness or DEFAULT_ENGINE,
            model=self.model or known.model,
            identity_loader=self.identity_loader,
            envs=self.envs,
            options=self.options,
            session_id=self.session_id,
            session_store=self.session_store,
            attachments=self.attachments,
            policy=self.policy,
            principal=self.principal,
            git_credentials=self.git_credentials,
            budget_max_usd=self.budget_max_usd,
            approval_timeout=self.approval_timeout,
            project_key=self.project_key,
            agent_id=self.agent_id,
            agent_name=self.agent_name or known.name,
            agent_description=self.agent_description,
        )


def one_engine(engine: str | EngineDriver | None, harness: str | None) -> str | EngineDriver | None:
    """The engine of two words for it. Raises `ValidationError` when they differ."""
    if engine is not None and harness is not None and engine != harness:
        raise ValidationError(
            f"engine={engine!r} and harness={harness!r} name two engines", hint="Give one of them; they mean the same."
        )
    chosen = engine if engine is not None else harness
    return chosen if chosen is None or isinstance(chosen, str) else plugins.engines.check(chosen)


def require_here(given: AgentInput) -> None:
    """Raise unless the names that were given are registered in this process. A server has its own."""
    if isinstance(given.engine, str):
        plugins.engines.require(given.engine)
    if isinstance(given.identity_loader, str):
        plugins.identity_loaders.require(given.identity_loader)
    store = given.session_store
    if isinstance(store, (str, StoreConfig)):
        plugins.stores.require(store if isinstance(store, str) else store.kind)


def environment(envs: Mapping[str, str] | None, base_url: str | None) -> dict[str, str]:
    """The engine's variables. Raises `ValidationError` for values that are no text, and for a URL that is none."""
    chosen = dict(envs or {})
    for name, value in chosen.items():
        if not isinstance(value, str):
            raise ValidationError(f"envs[{name!r}] must be text, got {type(value).__name__}", hint="Use str(value).")
    if base_url is not None:
        if not is_http_url(base_url):
            raise ValidationError(f"base_url {base_url!r} is not an http(s) URL", hint="Such as https://host/path.")
        chosen.setdefault("ANTHROPIC_BASE_URL", base_url)
    return chosen


def is_http_url(text: str) -> bool:
    """Whether a text is an address with a host."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def store_choice(choice: Any) -> Any:
    """A store by name, by name and options, or the object itself. Raises `ValidationError`."""
    if isinstance(choice, Mapping):
        try:
            choice = msgspec.convert(choice, StoreConfig)
        except msgspec.ValidationError as error:
            raise ValidationError(
                f"not a session store: {error}", hint='Use a name, {"kind": "sqlite", "options": {…}}, or a store.'
            ) from error
    return choice if isinstance(choice, (str, StoreConfig)) else resolve_store(choice)


def loader_choice(choice: str | IdentityLoader | None) -> str | IdentityLoader | None:
    """A loader by name, or the object itself. Raises `ValidationError`."""
    return choice if choice is None or isinstance(choice, str) else plugins.identity_loaders.check(choice)


def attachment(item: Attachment | Mapping[str, Any]) -> Attachment:
    """An attachment from a mapping. Raises `ValidationError`."""
    if isinstance(item, Attachment):
        return item
    try:
        return msgspec.convert(item, Attachment)
    except msgspec.ValidationError as error:
        raise ValidationError(
            f"not an attachment: {error}", hint='Use {"path": "notes.txt", "content": "…", "encoding": "utf8"}.'
        ) from error


def policy_choice(policy: AnyPolicy | None, decider: PolicyDecider | None) -> Any:
    """The policy of two words for it. Raises `ValidationError`."""
    if policy is not None and decider is not None:
        raise ValidationError("policy= and policy_decider= mean the same", hint="Give one of them.")
    given = policy if policy is not None else decider
    return None if given is None else read_policy(given)


def principal_choice(principal: PolicyPrincipal | str | None) -> PolicyPrincipal | None:
    """On whose behalf the agent acts, by name or whole. Raises `ValidationError`."""
    if principal is None or isinstance(principal, PolicyPrincipal):
        return principal
    if not isinstance(principal, str) or not principal:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError("a principal is a name or a PolicyPrincipal", hint="Such as principal='alice'.")
    return PolicyPrincipal(principal)
