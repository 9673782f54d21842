"""A request as it may be shown, stored and logged: without a single secret of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from computeragent.identity.repository import parse_repository
from computeragent.server.policies import without_secrets
from computeragent.server.sandboxes.shapes import AgentRequest
from computeragent.telemetry.redaction import Redactor
from computeragent.wire.identity import GitSource, IdentitySource, InlineSource, LocalSource
from computeragent.wire.requests import StoreConfig

HIDDEN = "[redacted]"
_DETECTORS = (
    "aws_access_key_id", "aws_secret_key", "aws_session_token", "provider_key", "vcs_token", "slack_token",
    "stripe_key", "package_token", "service_token", "computeragent_key", "jwt", "dsn_password", "private_key",
    "auth_header", "secret",
)  # fmt: skip
_HOLDERS = frozenset({"env", "envs", "environment", "headers"})


def echoed(body: AgentRequest, source: IdentitySource, secrets: Iterable[str]) -> dict[str, Any]:
    """What a request asked for, secrets left out; `secrets` are found by value wherever they stand."""
    shown: dict[str, Any] = {
        "source": shown_source(source),
        "harness": body.harness,
        "runtime": body.runtime,
        "options": shown_options(body.options, secrets),
        "model": body.model,
        "temperature": body.temperature,
        "baseUrl": None if body.base_url is None else clean_url(body.base_url),
        "sessionId": body.session_id,
        "debug": body.debug or None,
        "agentName": body.agent_name,
        "budgetMaxUsd": body.budget_max_usd,
        "envsKeys": sorted(body.envs),
        "hasGitToken": body.git_token is not None,
    }
    if body.identity is not None:
        shown["identity"] = msgspec.to_builtins(body.identity)
    if body.session_store is not None:
        shown["sessionStore"] = shown_store(body.session_store)
    if body.policy is not None:
        kept, lost = without_secrets(body.policy)
        shown["policy"] = msgspec.to_builtins(kept) | {"hasSecrets": bool(lost)}
    if body.attachments:
        shown["attachments"] = [
            {"path": each.path, "bytes": len(each.content.encode("utf-8", "replace")), "encoding": each.encoding}
            for each in body.attachments
        ]
    auto_save = getattr(body, "auto_save", None)
    if auto_save is not None:
        shown["autoSave"] = {"stateStore": shown_store(auto_save.state_store)}
    present = {name: value for name, value in shown.items() if value is not None}
    return cast("dict[str, Any]", _by_value(present, sorted(secrets, key=len, reverse=True)))


def shown_store(store: StoreConfig) -> dict[str, Any]:
    """A store's kind, and the names of its options alone."""
    return {"kind": store.kind, "optionsKeys": sorted(store.options or {})}


def shown_options(options: Mapping[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """An engine's options; environments and headers in them by name alone, secrets hidden."""
    redactor = Redactor(detectors=_DETECTORS, known_values=list(secrets))
    hidden: dict[str, Any] = _without_holders(dict(options))
    return _plain(redactor.redact(hidden))


def shown_source(source: IdentitySource) -> dict[str, Any]:
    """Where the agent comes from; of files given inline, their names and sizes."""
    if isinstance(source, GitSource):
        return cast("dict[str, Any]", msgspec.to_builtins(bare_source(source)))
    if isinstance(source, LocalSource):
        return {"type": "local", "path": source.path}
    files = [{"path": name, "bytes": len(text.encode("utf-8", "replace"))} for name, text in source.files.items()]
    return {"type": "inline", "manifest": _plain(Redactor(detectors=_DETECTORS).redact(source.manifest))} | (
        {"files": files} if files else {}
    )


def bare_source(source: IdentitySource) -> IdentitySource:
    """The source without the credentials that a git address may carry."""
    if isinstance(source, InlineSource | LocalSource):
        return source
    return msgspec.structs.replace(source, url=clean_url(parse_repository(source.url, allow_file=True).url))


def clean_url(url: str) -> str:
    """An address without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    if not parts.scheme or ("@" not in parts.netloc and not parts.query):
        return url
    user, _, place = parts.netloc.rpartition("@")
    keeps_user = parts.scheme == "ssh" and user and ":" not in user
    return urlunsplit((parts.scheme, f"{user}@{place}" if keeps_user else place, parts.path, "", ""))


def without_hidden(value: Any, place: str = "") -> tuple[Any, list[str]]:
    """A shown value without what is hidden in it, and where that was."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        lost: list[str] = []
        for name, item in cast("dict[str, Any]", value).items():
            inner, missing = without_hidden(item, f"{place}.{name}" if place else name)
            lost += missing
            if not (isinstance(item, str) and missing):
                kept[name] = inner
        return kept, lost
    if isinstance(value, list):
        pairs = [without_hidden(item, place) for item in cast("list[Any]", value)]
        hidden = [place] if any(missing for _, missing in pairs) else []
        return [item for item, missing in pairs if not missing or not isinstance(item, str)], hidden
    is_hidden = isinstance(value, str) and (HIDDEN in value or "[REDACTED:" in value)
    return value, [place] if is_hidden else []


def _without_holders(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _hide_all(item) if name.lower() in _HOLDERS else _without_holders(item)
            for name, item in cast("dict[str, Any]", value).items()
        }
    if isinstance(value, list):
        return [_without_holders(item) for item in cast("list[Any]", value)]
    return value


def _hide_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _hide_all(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_hide_all(item) for item in cast("list[Any]", value)]
    return HIDDEN if isinstance(value, str) else value


def _by_value(value: Any, secrets: list[str]) -> Any:
    """The value with every secret cut out, wherever a caller put it."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {name: _by_value(item, secrets) for name, item in found.items()}
    if isinstance(value, list):
        return [_by_value(item, secrets) for item in cast("list[Any]", value)]
    return value


def _plain(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value)
