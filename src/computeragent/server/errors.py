"""Errors as answers."""

from __future__ import annotations

from starlette.responses import Response

from computeragent.errors import ComputerAgentError
from computeragent.wire.encoding import to_json


def respond(error: ComputerAgentError) -> Response:
    """An error in the envelope of the protocol, with its status."""
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "5"}}.get(error.status)
    return Response(to_json(error.to_wire()), error.status, headers, media_type="application/json")
