"""What a request to `/responses` may say, and how its faults are told."""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from computeragent.errors import ComputerAgentError, ValidationError
from computeragent.wire.encoding import from_json

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
    starting_after: int | None = None


def parse_create(raw: bytes) -> CreateResponse:
    """A request from its bytes, whatever its content type. Raises `ValidationError`."""
    try:
        body = from_json(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValidationError("Invalid JSON in request body", hint="Send a JSON object.") from None
    return create_from(body)


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


def failure(error: ComputerAgentError, model: str | None) -> dict[str, Any]:
    """An error in the envelope of the system that this one stands in for."""
    told: dict[str, Any] = {"success": False, "error": error.message, "model": model, "code": error.code}
    if error.hint:
        told["hint"] = error.hint
    if error.details:
        told["details"] = error.details
    return told
