"""The pages: templates, what belongs to them, and the headers that keep them to themselves."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

KEPT = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}
"""Headers of every page."""


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("computeragent.desk"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> bytes:
    """A page."""
    return _environment().get_template(template).render(inline=inline, **values).encode()


@cache
def static(name: str) -> str:
    """A script or style sheet of ours."""
    return (files("computeragent.desk") / "static" / name).read_text("utf-8")


def inline(name: str) -> Markup:
    """The same, to stand inside a page."""
    return Markup(static(name).replace("</", "<\\/") if name.endswith(".js") else static(name))  # noqa: S704 - ours
