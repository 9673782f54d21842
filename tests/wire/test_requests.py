"""What callers send."""

from __future__ import annotations

import msgspec
import pytest

from computeragent.wire.identity import GitSource, IdentityRef, InlineSource, LocalSource
from computeragent.wire.requests import PermissionDecision, StoreConfig, UserInput, join_messages

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def test_the_text_length_counts_text_alone():
    assert UserInput(content="höflich").text_length() == 7
    blocks = [{"type": "text", "text": "abc"}, IMAGE, {"type": "text", "text": "de"}, {"type": "text"}]
    assert UserInput(content=blocks).text_length() == 5


def test_one_message_is_joined_as_itself():
    message = UserInput(content="alone")
    assert join_messages([message]) is message


def test_messages_are_joined_block_by_block_in_order():
    joined = join_messages([UserInput(content="look:"), UserInput(content=[IMAGE])])
    assert joined.content == [{"type": "text", "text": "look:"}, IMAGE]


def test_joining_leaves_the_messages_as_they_were():
    parts = [UserInput(content=[IMAGE]), UserInput(content="x")]
    join_messages(parts)
    assert parts[0].content == [IMAGE]


def test_a_message_is_from_the_user():
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'assistant' - at `\$\.role`"):
        msgspec.convert({"role": "assistant", "content": "x"}, UserInput)


def test_what_is_absent_stays_off_the_wire():
    assert msgspec.json.encode(PermissionDecision(decision="allow")) == b'{"decision":"allow"}'
    assert msgspec.json.encode(StoreConfig(kind="file")) == b'{"kind":"file"}'
    assert msgspec.json.encode(GitSource(url="u")) == b'{"type":"git","url":"u"}'


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (
            {"type": "git", "url": "https://h/r", "ref": "v1", "subdir": "a"},
            GitSource(url="https://h/r", ref="v1", subdir="a"),
        ),
        ({"type": "local", "path": "/a"}, LocalSource(path="/a")),
        ({"type": "inline", "manifest": {"name": "n"}}, InlineSource(manifest={"name": "n"}, files={})),
    ],
)
def test_a_source_is_told_by_its_type(data, source):
    assert msgspec.convert({"loader": "gap", "source": data}, IdentityRef).source == source
