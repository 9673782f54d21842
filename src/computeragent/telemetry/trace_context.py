"""Trace and span ids of turns, derived from event ids, and the trace that a caller is already in (W3C Trace Context).

OpenTelemetry is not needed: where its API is not installed, there is no current span to join and none is set.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class Parent(NamedTuple):
    """A span that a turn is part of: ids in lower-case hex, and whether its trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True


_asked_in: ContextVar[Parent | None] = ContextVar("computeragent_asked_in", default=None)


def ids_of(event_id: str) -> tuple[str, str]:
    """The trace id (32 hex digits) and root span id (16) of the turn that an event starts. Always the same for it."""
    digest = hashlib.blake2b(event_id.encode(), digest_size=16, person=b"ca-trace").hexdigest()
    return (digest if digest != _NO_TRACE else f"{1:032x}"), span_id_of(event_id, "invoke_agent")


def span_id_of(event_id: str, role: str) -> str:
    """The id (16 hex digits) of the span that an event starts in a role, such as ``chat``. Always the same for both."""
    digest = hashlib.blake2b(f"{role}:{event_id}".encode(), digest_size=8, person=b"ca-span").hexdigest()
    return digest if digest != _NO_SPAN else f"{1:016x}"


def current_parent() -> Parent | None:
    """The span that the caller is in, or None.

    The current one of OpenTelemetry, else the one that the request under way named, else the one of ``TRACEPARENT``.
    """
    trace = sys.modules.get("opentelemetry.trace")  # whoever has a span has imported it
    if trace is not None:
        context: Any = trace.get_current_span().get_span_context()
        if context.is_valid:
            return Parent(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled))
    return _asked_in.get() or parse_traceparent(os.environ.get("TRACEPARENT", ""))


@contextmanager
def asked_in(traceparent: str | None) -> Generator[None, None, None]:
    """What is done inside is asked for by the span that this header names, where it names one."""
    token = _asked_in.set(parse_traceparent(traceparent or ""))
    try:
        yield
    finally:
        _asked_in.reset(token)


def traceparent() -> str | None:
    """The header that tells a server which span asks, where the caller is in one."""
    parent = current_parent()
    return None if parent is None else f"00-{parent.trace_id}-{parent.span_id}-{parent.sampled:02x}"


def parse_traceparent(header: str) -> Parent | None:
    """The span that a ``traceparent`` names, or None when it is not a valid one."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


@contextmanager
def span_as_current(trace_id: str, span_id: str, sampled: bool = True) -> Generator[None, None, None]:
    """Make a span the current one, so that what is started inside becomes its child; the span itself is not touched.

    Enter and leave it in the same context: never keep it open across a ``yield`` of an asynchronous generator.
    """
    api = _api()
    if api is None:
        yield
        return
    context, trace = api
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    span_context = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(span_context)))
    try:
        yield
    finally:
        context.detach(token)


@lru_cache(maxsize=1)
def _api() -> tuple[Any, Any] | None:
    try:
        from opentelemetry import context, trace
    except ImportError:
        return None
    return context, trace
