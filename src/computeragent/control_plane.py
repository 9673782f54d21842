"""Questions to the control plane's API: one POST with the key, to the host that is configured and to no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from anyio import to_thread

from computeragent import discovery
from computeragent.errors import ControlPlaneError

TIMEOUT = 10.0
_LARGEST = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status, and the object that the body is (empty where it is none)."""

    status: int
    body: Mapping[str, Any]

    @property
    def told(self) -> str:
        """What the server said was wrong, or just the status."""
        error = self.body.get("error")
        said: object = cast("Mapping[str, Any]", error).get("message") if isinstance(error, Mapping) else None
        return f"HTTP {self.status}" + (f" {said}" if isinstance(said, str) else "")


async def ask(
    path: str,
    body: Mapping[str, Any],
    *,
    api_base: str | None = None,
    token: str | None = None,
    timeout: float = TIMEOUT,
) -> Answer:
    """Post to a route of the API.

    `api_base` defaults to ``AGENTOS_API_URL`` or what the discovery document names, `token` to the process's key.
    Raises `ControlPlaneError` when neither is configured or nobody answers. Redirects are not followed, and neither
    the key nor an answer is ever logged.
    """
    import httpx2

    base = api_base or await to_thread.run_sync(discovery.endpoint, "api")
    key = token or discovery.agent_key()
    if not base:
        raise ControlPlaneError(
            "the control plane's API is not configured", hint="Set AGENTOS_DISCOVERY_URL, or AGENTOS_API_URL."
        )
    if not key or not key.isascii() or not key.isprintable():
        raise ControlPlaneError("there is no key for the control plane", hint="Set COMPUTERAGENT_HARNESS_TOKEN.")
    place = discovery.without_credentials(base)
    headers = {"authorization": f"Bearer {key}", "accept": "application/json"}
    try:
        with discovery.unlogged():
            async with (
                httpx2.AsyncClient(timeout=timeout, follow_redirects=False) as client,
                client.stream("POST", f"{base.rstrip('/')}/{path}", json=dict(body), headers=headers) as response,
            ):
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > _LARGEST:
                        raise ControlPlaneError(f"the answer of {place} is too large", hint="Is the address right?")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ControlPlaneError(
            f"the control plane at {place} cannot be reached: {type(error).__name__}",
            hint="Check AGENTOS_DISCOVERY_URL or AGENTOS_API_URL, and the network.",
        ) from None
    return Answer(response.status_code, _object(bytes(data)))


def _object(data: bytes) -> Mapping[str, Any]:
    import msgspec

    from computeragent.wire.encoding import from_json

    try:
        answer = from_json(data)
    except msgspec.DecodeError:
        return {}
    return cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else {}
