"""The seven events: their exact spelling on the wire, and that nothing is lost on the way back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from computeragent.protocol_types import EngineCapabilities
from computeragent.wire.events import (
    PROTOCOL_VERSION,
    AgentIdentity,
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    HarnessEvent,
    SdkMessage,
    UnknownEvent,
    decode_event,
    encode_event,
    raw_payload,
)
from computeragent.wire.requests import UserInput

CAPABILITIES = EngineCapabilities(
    streaming_input=True, partial_messages=False, permission_callback=True, sessions=True, budget=False
)
EXAMPLES: list[tuple[HarnessEvent, dict[str, Any]]] = [
    (
        CaSessionStarted(
            session_id="s", engine="e", identity=AgentIdentity(name="n", version="1"), capabilities=CAPABILITIES
        ),
        {
            "kind": "ca_session_started",
            "sessionId": "s",
            "engine": "e",
            "identity": {"name": "n", "version": "1"},
            "capabilities": {
                "streamingInput": True,
                "partialMessages": False,
                "permissionCallback": True,
                "sessions": True,
                "budget": False,
            },
            "protocolVersion": PROTOCOL_VERSION,
        },
    ),
    (
        CaTurnStarted(session_id="s", turn_index=0, message=UserInput(content="hi"), user_text_len=2),
        {
            "kind": "ca_turn_started",
            "sessionId": "s",
            "turnIndex": 0,
            "message": {"content": "hi", "role": "user"},
            "userTextLen": 2,
        },
    ),
    (
        SdkMessage(session_id="s", raw=raw_payload(None), turn_index=0),
        {"kind": "sdk_message", "sessionId": "s", "payload": None, "turnIndex": 0},
    ),
    (
        SdkMessage(session_id="s", raw=raw_payload({"type": "result"}), ends_turn=True),
        {"kind": "sdk_message", "sessionId": "s", "payload": {"type": "result"}, "endsTurn": True},
    ),
    (
        CaPermissionRequest(session_id="s", call_id="c", tool_name="Bash", input=None, risk="high"),
        {
            "kind": "ca_permission_request",
            "sessionId": "s",
            "callId": "c",
            "toolName": "Bash",
            "input": None,
            "risk": "high",
        },
    ),
    (
        CaPermissionDecision(session_id="s", call_id="c", decision="deny", reason="no", latency_ms=1.5),
        {
            "kind": "ca_permission_decision",
            "sessionId": "s",
            "callId": "c",
            "decision": "deny",
            "reason": "no",
            "latencyMs": 1.5,
        },
    ),
    (
        CaUsageSnapshot(session_id="s", input_tokens=0, cost_usd=0.5, cost_semantic="delta"),
        {"kind": "ca_usage_snapshot", "sessionId": "s", "inputTokens": 0, "costUsd": 0.5, "costSemantic": "delta"},
    ),
    (
        CaSessionEnded(session_id="s", reason="error", error_message="boom", error_code="X", error_hint="try"),
        {
            "kind": "ca_session_ended",
            "sessionId": "s",
            "reason": "error",
            "errorMessage": "boom",
            "errorCode": "X",
            "errorHint": "try",
        },
    ),
]


@pytest.mark.parametrize(("event", "wire"), EXAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_an_event_has_its_exact_fields_and_absent_ones_are_not_null(event: HarnessEvent, wire: dict[str, Any]):
    assert json.loads(encode_event(event)) == wire


@pytest.mark.parametrize(("event", "wire"), EXAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_an_event_comes_back_as_it_was(event: HarnessEvent, wire: dict[str, Any]):
    back = decode_event(json.dumps(wire).encode())
    assert type(back) is type(event)
    assert json.loads(encode_event(back)) == wire
    assert back.kind == event.kind


def test_an_unknown_kind_is_relayed_byte_for_byte():
    data = b'{"kind":"ca_new_thing","sessionId":"s","turnIndex":3,"deep":{"x":[1,null]}}'
    event = decode_event(data)
    assert isinstance(event, UnknownEvent)
    assert (event.kind, event.session_id, event.turn_index) == ("ca_new_thing", "s", 3)
    assert encode_event(event) == data


def test_an_unknown_field_of_a_known_kind_does_no_harm():
    event = decode_event(b'{"kind":"ca_session_ended","sessionId":"s","reason":"complete","later":1}')
    assert event == CaSessionEnded(session_id="s", reason="complete")


@pytest.mark.parametrize(
    "data",
    [
        b'{"kind":"sdk_message","sessionId":"s"}',
        b'{"kind":"ca_permission_request","sessionId":"s","callId":"c","toolName":"t"}',
        b'{"kind":"ca_session_ended","sessionId":"s","reason":"tired"}',
        b'{"kind":"ca_usage_snapshot","sessionId":"s","inputTokens":1.5}',
        b'{"kind":"ca_turn_started"}',
        b'{"sessionId":"s"}',
        b"[]",
    ],
)
def test_a_known_kind_with_wrong_fields_is_refused(data: bytes):
    with pytest.raises(msgspec.ValidationError):
        decode_event(data)


def test_what_is_no_json_is_refused():
    with pytest.raises(msgspec.DecodeError):
        decode_event(b"data: {")


def test_a_raw_payload_is_kept_as_the_engine_wrote_it():
    payload = Raw(b'{"type": "result",  "n": 1.0}')
    assert b'"payload":{"type": "result",  "n": 1.0}' in encode_event(
        SdkMessage(session_id="s", raw=raw_payload(payload))
    )


def test_a_payload_never_breaks_the_line():
    assert bytes(raw_payload(Raw(b'{\n "type":\r\n "result"}'))) == b'{"type":"result"}'
    assert b"\n" not in encode_event(UnknownEvent(kind="x", session_id="s", raw=Raw(b'{"kind":"x",\n"a":1}')))


def test_a_raw_payload_that_is_no_json_is_refused():
    with pytest.raises(msgspec.DecodeError):
        raw_payload(Raw(b"oops"))


def test_lone_surrogates_in_a_payload_become_the_replacement_character():
    assert SdkMessage(session_id="s", raw=raw_payload({"text": "a\ud800"})).payload == {"text": "a�"}
    assert SdkMessage(session_id="s", raw=raw_payload(Raw(rb'{"text":"a\ud800"}'))).payload == {"text": "a�"}


def test_a_payload_is_decoded_once():
    event = SdkMessage(session_id="s", raw=raw_payload({"type": "x"}))
    assert event.payload is event.payload
