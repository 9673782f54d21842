"""What a request to `/responses` may say, and how its faults are told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from computeragent.errors import ComputerAgentError, EngineError, ValidationError, error_classes
from computeragent.wire.encoding import clean_json, from_json

Mode = Literal["first", "turn", "run"]
Include = Literal["computer_call_output.output.image_url", "reasoning.encrypted_content"]


class CreateResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /responses`.

    `mode` is how far to go: ``run`` to the model's answer, ``turn`` one reply of the model with what it asks for done,
    ``first`` the same without the screenshots in the answer. `env` is for this request alone, of the names that
    `allowed_env()` lists. `background` answers at once; the response is read with `GET`. Fields of OpenAI's Responses
    that mean nothing here are refused, so that nobody counts on them.
    """

    model: str
    input: str | list[dict[str, Any]]
    agent_kwargs: dict[str, Any] = {}
    computer_kwargs: dict[str, Any] = {}
    env: dict[str, str | int | float | bool] = {}
    mode: Mode = "run"
    stream: bool = False
    background: bool = False
    previous_response_id: str | None = None
    instructions: str | None = None
    max_steps: int | None = None
    deadline: float | None = None
    include: list[Include] | None = None
    metadata: dict[str, str] = {}
    tools: list[dict[str, Any]] = []
    store: bool = True
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None


class Approve(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /responses/{id}/approvals/{call_id}`."""

    decision: Literal["allow", "deny"]
    reason: str | None = None


class Listed(Struct, frozen=True):
    """Query of `GET /responses/{id}`: as a stream, from after an event."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=0)] | None = None


def read(raw: bytes) -> object:
    """A request's plain data from its bytes, whatever its content type; None for what is no JSON."""
    try:
        return from_json(clean_json(raw))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def model_of(body: object) -> str | None:
    """The model that a request names, whatever else is wrong with it."""
    model = cast("dict[str, Any]", body).get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def create_from(body: object) -> CreateResponse:
    """A request from plain data. Raises `ValidationError`."""
    if not isinstance(body, dict):
        raise ValidationError("Invalid JSON in request body", hint="Send a JSON object.")
    fields = cast("dict[str, Any]", body)
    if not fields.get("model"):
        raise ValidationError("Model is required", hint='Such as "anthropic/claude-sonnet-4-5".')
    if not fields.get("input"):
        raise ValidationError("Input is required", hint="A string, or a list of messages.")
    if not isinstance(fields["input"], (str, list)):
        raise ValidationError("Input must be string or list of messages")
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, CreateResponse)
    except msgspec.ValidationError as error:
        raise ValidationError(f"Invalid request: {error}", hint="See the API's page at /docs.") from None


def envelope(response: dict[str, Any]) -> dict[str, Any]:
    """A finished response as the system that this one stands in for answered it."""
    if response["status"] != "failed":
        return {"success": True, "result": response, "model": response["model"]}
    error: dict[str, Any] = response["error"] or {}
    told = {"success": False, "error": error.get("message"), "model": response["model"], "code": error.get("code")}
    return {**told, **({"hint": error["hint"]} if error.get("hint") else {}), "result": response}


def status_of(response: dict[str, Any]) -> int:
    """The HTTP status of a finished response in `envelope`: what its error has, of this server or of a provider."""
    if response["status"] != "failed":
        return 200
    error: dict[str, Any] = response["error"] or {}
    code = error.get("code")
    return next((each.status for each in error_classes() if each.code == code), EngineError.status)


def failure(error: ComputerAgentError, model: str | None) -> dict[str, Any]:
    """An error in the envelope of the system that this one stands in for."""
    told: dict[str, Any] = {"success": False, "error": error.message, "model": model, "code": error.code}
    if error.hint:
        told["hint"] = error.hint
    if error.details:
        told["details"] = error.details
    return told
