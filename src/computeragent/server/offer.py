"""What a server offers by name: engines, identity loaders and session stores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from computeragent import plugins
from computeragent.errors import ValidationError


class Choice:
    """The names of one axis that may be asked for; None for all that are registered.

    Raises the axis's `Unknown…Error` for a name that is not there.
    """

    def __init__(self, axis: plugins.Registry, what: str, names: Sequence[str] | None) -> None:
        for name in names or ():
            axis.require(name)
        self._axis = axis
        self._what = what
        self._only = tuple(sorted(set(names))) if names else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All of them, looked up when first asked for: all that is installed is read for that."""
        return self._only or tuple(self._axis.names())

    def require(self, name: str) -> None:
        """Raise the axis's `Unknown…Error` for what is not there, `ValidationError` for what is not offered."""
        self._axis.require(name)
        if self._only is not None and name not in self._only:
            raise ValidationError(
                f"{self._what} {name!r} is not offered here", hint=f"Offered: {', '.join(self._only)}."
            )


class Offer:
    """What a server's callers may choose among."""

    def __init__(
        self,
        *,
        engines: Sequence[str] | None = None,
        loaders: Sequence[str] | None = None,
        stores: Sequence[str] | None = None,
    ) -> None:
        self.engines = Choice(plugins.engines, "engine", engines)
        self.loaders = Choice(plugins.identity_loaders, "identity loader", loaders)
        self.stores = Choice(plugins.stores, "session store", stores)
