"""Which model of Inspect answers to which name."""

from __future__ import annotations

from collections.abc import Mapping

from inspect_ai.model import Model, get_model, model_roles

ACTIVE = "inspect"
"""The name that means the model of the evaluation."""


class Models:
    """The models of a bridge: `aliases` by exact name first, then ``inspect``, the `pin`, and the evaluation's model.

    A name that the agent made up never chooses a model. Raises what `get_model` raises for a name that is none.
    """

    def __init__(self, pin: str | Model | None, aliases: Mapping[str, str | Model] | None) -> None:
        self.active = get_model()
        self._aliases = {name: self._named(model) for name, model in (aliases or {}).items()}
        self._pin = None if pin is None or pin == ACTIVE else self._named(pin)

    def choose(self, asked: str) -> Model:
        """The model that answers a request for `asked`."""
        if asked in self._aliases:
            return self._aliases[asked]
        if asked == ACTIVE or self._pin is None:
            return self.active
        return self._pin

    @property
    def names(self) -> tuple[str, ...]:
        """What a list of models shows."""
        return tuple(dict.fromkeys([ACTIVE, self.active.name, *self._aliases]))

    def _named(self, model: str | Model) -> Model:
        if isinstance(model, Model):
            return model
        name = model.removeprefix(f"{ACTIVE}/")
        if name in model_roles():
            return get_model(role=name)
        # The evaluation's own, with the settings that it has there.
        return self.active if name in {ACTIVE, str(self.active), self.active.name} else get_model(name)
