"""Who is let in to the servers that the command starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from computeragent.server.auth import Authenticate


def known(token: str, introspect_url: str | None) -> Authenticate:
    """Who is let in: whoever has this server's token, and whom the control plane vouches for."""
    from computeragent.server import bearer, introspect
    from computeragent.server.introspection import any_of, secret_of_environment

    own = bearer([token])
    return any_of(own, introspect(introspect_url, secret_of_environment())) if introspect_url else own
