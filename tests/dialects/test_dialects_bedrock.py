"""Bedrock's framing: AWS event-stream messages and their checksums."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeragent.dialects import Failed, ModelError, Ping, bedrock
from computeragent.dialects.eventstream import EventMessage, EventStreamDecoder, encode_message
from computeragent.errors import ValidationError

# The test vector "one string header" of the published AWS event-stream suite.
GOLDEN = bytes.fromhex(
    "0000003d0000002007fd83960c636f6e74656e742d7479706507001061"
    "70706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1"
)


def test_a_message_has_the_published_layout():
    headers, payload = {"content-type": "application/json"}, b"{'foo':'bar'}"
    assert encode_message(headers, payload) == GOLDEN
    assert list(EventStreamDecoder().feed(GOLDEN)) == [EventMessage(headers, payload)]


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50), max_size=4),
    st.binary(max_size=300),
    st.integers(1, 40),
)
def test_messages_survive_any_cutting(headers, payload, cut):
    data = encode_message(headers, payload) * 2
    decoder = EventStreamDecoder()
    got = [message for at in range(0, len(data), cut) for message in decoder.feed(data[at : at + cut])]
    assert got == [EventMessage(headers, payload)] * 2


@pytest.mark.parametrize("position", range(len(GOLDEN)))
def test_a_flipped_bit_never_passes(position):
    broken = bytearray(GOLDEN)
    broken[position] ^= 1
    with pytest.raises(ValidationError):
        list(EventStreamDecoder().feed(bytes(broken)))


def test_a_chunk_holds_one_event_as_base64():
    [message] = EventStreamDecoder().feed(bedrock.stream_builder().encode(Ping()))
    assert message.headers == {
        ":event-type": "chunk",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert json.loads(base64.b64decode(json.loads(message.payload)["bytes"])) == {"type": "ping"}


def test_a_failure_is_an_exception_message():
    error = ModelError(kind="rate_limit", message="slow")
    data = bedrock.stream_builder().encode(Failed(error))
    [message] = EventStreamDecoder().feed(data)
    assert message.headers[":exception-type"] == "throttlingException"
    [event] = bedrock.stream_parser().feed(data)
    assert (event.error.kind, event.error.message) == ("rate_limit", "slow")


def test_errors_have_the_shape_of_aws():
    error = ModelError(kind="overloaded", message="busy")
    assert (bedrock.error_status(error), bedrock.error_type(error)) == (503, "ServiceUnavailableException")
    assert bedrock.parse_error(503, b'{"message":"busy"}').kind == "overloaded"
