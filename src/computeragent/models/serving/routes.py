"""What an HTTP request asks a model server for, and the answers that need no model: lists, refusals, errors."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from computeragent.dialects import anthropic, gemini, openai_chat
from computeragent.dialects.model import ModelError, ModelRequest
from computeragent.errors import ValidationError
from computeragent.models.serving.fronts import (
    ANTHROPIC,
    COUNT_TOKENS,
    GEMINI,
    GEMINI_MODELS,
    Front,
    error_front,
    front_for,
)
from computeragent.models.serving.http import HttpRequest, HttpResponse
from computeragent.wire.encoding import to_json


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An answer of the model is asked for, or with `counts` only how many tokens the request has."""

    front: Front
    request: ModelRequest
    counts: bool = False


def route(
    http: HttpRequest, *, models: Sequence[str], about: Mapping[str, str | None], key: str | None = None
) -> Asked | HttpResponse:
    """What `http` asks for, or the answer where none of a model is needed.

    `models` are the names that a list shows, `about` is what a sign of life says.
    With `key`, whatever is not a list or a sign of life must bring it.
    """
    found = front_for(http.path, http.query)
    if http.method in {"GET", "HEAD"} and found is None:
        return _listed(http, models, about)
    if key is not None and not brings_key(http, key):
        front = found[0] if found else error_front(http.path)
        return error_response(front, ModelError(kind="authentication", message="invalid API key"))
    if (counted := COUNT_TOKENS.fullmatch(http.path)) and http.method == "POST":
        return _counted(http, counted["model"])
    if found is None:
        return not_found(http.path)
    front, match = found
    if http.method != "POST":
        return error_response(front, ModelError(kind="invalid_request", message="use POST", status=405))
    try:
        return Asked(front=front, request=front.parse(match, http.body))
    except ValidationError as error:
        return error_response(front, ModelError(kind="invalid_request", message=error.message))


def _counted(http: HttpRequest, gemini_model: str | None) -> Asked | HttpResponse:
    front = ANTHROPIC if gemini_model is None else GEMINI
    try:
        if gemini_model is None:
            request = anthropic.parse_request(http.body)
        else:
            request = gemini.parse_token_count_request(http.body, model=gemini_model)
    except ValidationError as error:
        return error_response(front, ModelError(kind="invalid_request", message=error.message))
    return Asked(front=front, request=request, counts=True)


def _listed(http: HttpRequest, models: Sequence[str], about: Mapping[str, str | None]) -> HttpResponse:
    listed = GEMINI_MODELS.fullmatch(http.path)
    if listed is not None and (listed["version"] != "v1" or "x-goog-api-key" in http.headers):
        return _gemini_models(listed["model"], models)
    if http.path.endswith("/v1/models"):
        speaks_anthropic = "anthropic-version" in http.headers or "x-api-key" in http.headers
        dialect = anthropic if speaks_anthropic else openai_chat
        return json_response(dialect.build_models(models))
    if http.path in {"/", "/health", "/api/hello"}:
        return json_response({"status": "ok", **about})
    return not_found(http.path)


def _gemini_models(name: str | None, models: Sequence[str]) -> HttpResponse:
    """The list of models, or one of them."""
    if name is None:
        return json_response(gemini.build_models(models))
    if name in models:
        return json_response(gemini.build_model(name))
    return error_response(GEMINI, ModelError(kind="not_found", message=f"there is no model models/{name}", status=404))


def api_key(http: HttpRequest) -> str | None:
    """The key of a request, from `x-api-key`, `x-goog-api-key`, a bearer token or `key` of the query."""
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    header = http.headers.get("x-api-key") or http.headers.get("x-goog-api-key")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return header or bearer or next(iter(parse_qs(http.query).get("key", ())), None)


def brings_key(http: HttpRequest, key: str) -> bool:
    """Whether the request brings this key."""
    return hmac.compare_digest((api_key(http) or "").encode(), key.encode())


def count_response(asked: Asked, tokens: int) -> HttpResponse:
    """The answer to a request for a count."""
    own = gemini if asked.front is GEMINI else anthropic
    return json_response(own.build_token_count(tokens))


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Plain data as an answer."""
    return HttpResponse(
        status=status, headers={"content-type": "application/json", **(headers or {})}, body=to_json(value)
    )


def error_response(front: Front, error: ModelError) -> HttpResponse:
    """An error in the words of a wire."""
    headers = dict(front.error_headers(error))
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    return json_response(front.build_error(error), front.error_status(error), headers)


def not_found(path: str) -> HttpResponse:
    """Nothing is served on this path."""
    return error_response(
        error_front(path), ModelError(kind="not_found", message=f"nothing answers on {path}", status=404)
    )
