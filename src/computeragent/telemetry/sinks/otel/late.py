"""Loading the SDK in a process that is about to end.

A program may be over before its telemetry was loaded. The SDK detects the resource in an executor, at import already,
and the interpreter lets no executor start once the main thread is through; so then it is detected on this thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from opentelemetry.sdk import resources

T = TypeVar("T")


def loaded(load: Callable[[], T]) -> T:
    """What `load` returns, which may import the SDK; also in a process that is ending."""
    try:
        return load()
    except RuntimeError as error:
        if "after" not in str(error) or "shutdown" not in str(error):
            raise
    with _without_executor():
        return load()


@contextmanager
def _without_executor() -> Generator[None, None, None]:
    before = resources.get_aggregated_resources
    resources.get_aggregated_resources = _detect_here
    try:
        yield
    finally:
        resources.get_aggregated_resources = before


def _detect_here(
    detectors: Sequence[resources.ResourceDetector],
    initial_resource: resources.Resource | None = None,
    timeout: int = 5,  # the signature is the SDK's
) -> resources.Resource:
    found = initial_resource or resources.Resource.get_empty()
    for detector in detectors:
        try:
            found = found.merge(detector.detect())
        except Exception:
            if detector.raise_on_error:
                raise
    return found
