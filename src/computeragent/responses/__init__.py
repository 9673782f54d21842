"""The computer-use proxy: `/responses` over HTTP, server-sent events and WebRTC."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.responses.app import create_responses_server

__all__ = ["create_responses_server"]


def __getattr__(name: str) -> Any:
    if name == "create_responses_server":
        from computeragent.responses.app import create_responses_server

        return create_responses_server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
