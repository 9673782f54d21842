"""The computer-use proxy: `/responses` over HTTP, server-sent events and WebRTC."""

from computeragent.responses.app import create_responses_server

__all__ = ["create_responses_server"]
