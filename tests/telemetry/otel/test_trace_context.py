"""Ids that follow from events, and the trace that a caller is in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from computeragent.telemetry.trace_context import Parent, current_parent, ids_of, span_as_current, span_id_of

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_ids_are_the_same_each_time_and_different_for_each_event() -> None:
    assert ids_of("event-1") == ids_of("event-1")
    assert len({ids_of(f"event-{number}") for number in range(1000)}) == 1000
    trace_id, span_id = ids_of("event-1")
    assert (len(trace_id), len(span_id)) == (32, 16)
    assert int(trace_id, 16)
    assert int(span_id, 16)


def test_each_role_of_an_event_has_a_span_id_of_its_own() -> None:
    assert len({span_id_of("event-1", role) for role in ("invoke_agent", "chat", "execute_tool")}) == 3


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (TRACEPARENT, Parent("a" * 32, "b" * 16, True)),
        (TRACEPARENT[:-2] + "00", Parent("a" * 32, "b" * 16, False)),
        ("01" + TRACEPARENT[2:] + "-more", Parent("a" * 32, "b" * 16, True)),
        (TRACEPARENT + "-more", None),
        ("ff" + TRACEPARENT[2:], None),
        (TRACEPARENT.upper(), None),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"00-{'a' * 32}-{'0' * 16}-01", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_environment_names_a_parent(header: str, parent: Parent | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", header)
    assert current_parent() == parent


def test_the_current_span_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("outer") as span:
        context = span.get_span_context()
        assert current_parent() == Parent(f"{context.trace_id:032x}", f"{context.span_id:016x}", True)


def test_a_span_is_current_while_it_is_said_to_be() -> None:
    with span_as_current("a" * 32, "b" * 16):
        assert current_parent() == Parent("a" * 32, "b" * 16, True)
        with span_as_current("c" * 32, "d" * 16, sampled=False):
            assert current_parent() == Parent("c" * 32, "d" * 16, False)
    assert not trace.get_current_span().get_span_context().is_valid


WITHOUT = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "opentelemetry":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Missing())
    from computeragent.errors import MissingExtraError
    from computeragent.telemetry.sinks import content, otel
    from computeragent.telemetry.trace_context import current_parent, span_as_current

    with span_as_current("a" * 32, "b" * 16):
        assert current_parent() == ("c" * 32, "d" * 16, True)
    assert otel.GEN_AI_PROVIDER_NAME == "gen_ai.provider.name"
    assert otel.auto_sink() is None
    try:
        otel.OtelSink()
    except MissingExtraError as error:
        assert "pip install 'computer-agent-py[otel]'" in error.hint
    else:
        raise SystemExit("no error")
"""


def test_without_opentelemetry_there_is_a_hint_and_no_span() -> None:
    env = {
        **os.environ,
        "TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT)], env=env, check=True, timeout=50)
