"""What a failure means: an error that the agent is told of, or the end of the sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspect_ai.model import ModelRefusalError
from inspect_ai.util import LimitExceededError

from computeragent.dialects.model import ModelError
from computeragent.dialects.retry import kind_of_status


class FatalError(Exception):
    """The sample must end with `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def is_final(error: Exception) -> bool:
    """Whether the sample ends with this error: a limit, a forbidden refusal, or a fault that no provider told of.

    Inspect has tried again already what may be tried again; an agent that does so once more only loses time.
    """
    return isinstance(error, (LimitExceededError, ModelRefusalError)) or status_of(error) is None


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a provider answered with, of the error or of what it comes from."""
    for each in _causes(error):
        for name in ("status_code", "code", "status"):
            value: Any = getattr(each, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
                return value
    return None


def model_error(error: BaseException) -> ModelError:
    """The error as an agent is told of it."""
    status = status_of(error)
    told: Any = getattr(error, "provider_message", None)
    message = told if isinstance(told, str) and told else _message(error)
    if status is None:
        return ModelError(kind="server", message=message, status=500)
    return ModelError(kind=kind_of_status(status), message=message, status=status)


def _message(error: BaseException) -> str:
    innermost = [str(each) for each in _causes(error) if str(each)]
    return innermost[-1] if type(error).__name__ == "RetryError" and innermost else str(error) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it comes from; of a call that was tried several times the last one."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        attempt: Any = getattr(current, "last_attempt", None)
        following = current.__cause__
        if following is None and attempt is not None and attempt.done():
            following = attempt.exception()
        current = following
