"""Hypothesis strategies for the neutral model, within what a dialect can say."""

from hypothesis import strategies as st
from msgspec.structs import replace

from computeragent.dialects import (
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Opaque,
    OutputFormat,
    Text,
    Thinking,
    ThinkingConfig,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(names, children, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(names, json_values, max_size=4)
counts = st.integers(0, 10**9)

texts = st.builds(Text, words)
images = st.builds(
    lambda media_type, data: Media(kind="image", media_type=media_type, data=data),
    st.sampled_from(["image/png", "image/jpeg"]),
    st.sampled_from(["aGVsbG8=", "AAAA"]),
)
linked_images = st.builds(lambda path: Media(kind="image", url=f"https://example.org/{path}.png"), names)
calls = st.builds(lambda i, name, value: ToolCall(id=f"call_{i}", name=name, input=value), counts, names, objects)
signed_thinking = st.builds(Thinking, words, words) | st.builds(lambda data: Thinking("", data, True), words)


def results(content, errors):
    return st.builds(
        lambda i, parts, is_error: ToolResult(call_id=f"call_{i}", content=tuple(parts), is_error=is_error),
        counts,
        st.lists(content, max_size=2),
        errors,
    )


def parts(*strategies, min_size=1):
    return st.lists(st.one_of(*strategies), min_size=min_size, max_size=4).map(tuple)


tools = st.builds(
    lambda name, text, schema, strict: Tool(name=name, description=text, input_schema=schema, strict=strict),
    names,
    st.none() | words,
    st.builds(lambda props: {"type": "object", "properties": props}, objects),
    st.none() | st.booleans(),
)
choices = st.sampled_from([None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("tool", "read")])
ratios = st.none() | st.floats(0, 1, allow_nan=False)

settings = {
    "model": names,
    "tools": st.lists(tools, min_size=1, max_size=3).map(tuple),
    "tool_choice": choices,
    "max_tokens": st.integers(1, 10**6),
    "temperature": ratios,
    "top_p": ratios,
    "stop_sequences": st.lists(words, max_size=3).map(tuple),
    "effort": st.sampled_from([None, "low", "high"]),
    "user": st.none() | words,
    "stream": st.booleans(),
}

anthropic_requests = st.builds(
    ModelRequest,
    dialect=st.just("anthropic"),
    messages=st.lists(
        st.one_of(
            st.builds(Message, st.just("user"), parts(texts, images, linked_images, results(texts, st.booleans()))),
            st.builds(Message, st.just("assistant"), parts(texts, calls, signed_thinking)),
            st.builds(Message, st.just("system"), parts(texts)),
        ),
        max_size=5,
    ).map(tuple),
    system=parts(texts, min_size=0),
    top_k=st.none() | st.integers(1, 500),
    thinking=st.sampled_from([None, ThinkingConfig(mode="adaptive"), ThinkingConfig(mode="enabled", budget_tokens=9)]),
    output_format=st.none() | st.builds(lambda schema: OutputFormat(schema=schema), objects),
    **settings,
)

_gemini_calls = st.builds(
    lambda name, value, signature: ToolCall(id=name, name=name, input=value, signature=signature),
    names,
    objects,
    st.none() | words,
)
_gemini_parts = (
    texts,
    images,
    st.builds(lambda path: Media(kind="document", media_type="application/pdf", url=f"gs://{path}"), names),
    _gemini_calls,
    st.builds(Thinking, words, st.none() | words),
    st.just(Opaque("executableCode", {"executableCode": {"language": "PYTHON", "code": "1"}})),
)
_gemini_results = st.builds(
    lambda call_id, text, shown, is_error: ToolResult(
        call_id=call_id, content=(*text, *shown), is_error=is_error and bool(text), extra={"name": "f"}
    ),
    words,
    st.lists(texts, max_size=1),
    st.lists(images, max_size=2),
    st.booleans(),
)
gemini_requests = st.builds(
    ModelRequest,
    dialect=st.just("gemini"),
    messages=st.lists(
        st.builds(Message, st.just("user"), parts(texts, images, _gemini_results))
        | st.builds(Message, st.just("assistant"), parts(*_gemini_parts)),
        max_size=5,
    ).map(tuple),
    system=parts(texts, min_size=0),
    top_k=st.none() | st.integers(1, 500),
    seed=st.none() | st.integers(0, 99),
    thinking=st.sampled_from(
        [None, ThinkingConfig(mode="adaptive", extra={"includeThoughts": True}), ThinkingConfig(mode="disabled")]
    ),
    output_format=st.sampled_from([None, OutputFormat(), OutputFormat(schema={"type": "object"})]),
    extra=st.sampled_from([{}, {"cachedContent": "c", "generationConfig": {"candidateCount": 1}}]),
    **{**settings, "user": st.none(), "tools": st.lists(tools.map(lambda tool: replace(tool, strict=None))).map(tuple)},
)

_text_then_calls = st.builds(
    lambda text, called: (*text, *called),
    st.lists(texts, max_size=1),
    st.lists(calls, min_size=1, max_size=3),
)
openai_requests = st.builds(
    ModelRequest,
    dialect=st.just("openai_chat"),
    messages=st.lists(
        st.one_of(
            st.builds(Message, st.just("user"), parts(texts, images, linked_images)),
            st.builds(Message, st.just("assistant"), _text_then_calls),
        ),
        max_size=5,
    ).map(tuple),
    system=parts(texts, min_size=0),
    parallel_tool_calls=st.none() | st.booleans(),
    seed=st.none() | st.integers(0, 99),
    output_format=st.sampled_from([None, OutputFormat(), OutputFormat(schema={"type": "object"}, name="answer")]),
    stream_usage=st.just(False),
    **settings,
)

usages = st.builds(
    Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, cache_write_tokens=counts
)
anthropic_responses = st.builds(
    ModelResponse,
    id=words,
    model=names,
    content=parts(texts, calls, signed_thinking, min_size=0),
    stop_reason=st.sampled_from(["end_turn", "tool_use", "max_tokens", "pause_turn", "refusal"]),
    usage=usages,
    dialect=st.just("anthropic"),
)
openai_responses = st.builds(
    lambda head, thinking, content, usage: ModelResponse(
        id=head,
        model="m",
        content=(*thinking, *content),
        stop_reason="tool_use",
        usage=usage,
        dialect="openai_chat",
        extra={"created": 7},
    ),
    words,
    st.lists(st.builds(Thinking, words), max_size=1),
    _text_then_calls,
    st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, reasoning_tokens=counts),
)

_ids = st.builds(lambda word: {"id": f"fc_{word}"}, words)
_messages = st.builds(lambda word: {"message": {"id": f"msg_{word}"}}, words)
_response_texts = st.builds(Text, words, _messages)
_response_calls = st.builds(ToolCall, id=words, name=names, input=objects, extra=_ids)
_custom_calls = st.builds(
    lambda call_id, text: ToolCall(
        id=call_id, name="grammar", input={"input": text}, extra={"type": "custom_tool_call", "id": "ctc_1"}
    ),
    words,
    words,
)
_actions = st.sampled_from(
    [{"action": {"type": "click", "x": 1, "y": 2, "button": "left"}}, {"actions": [{"type": "screenshot"}]}]
)
_checks = st.sampled_from([[], [{"id": "sc_1", "code": "malicious_instructions", "message": "Is this wanted?"}]])
_computer_calls = st.builds(
    lambda call_id, value, checks: ToolCall(
        id=call_id,
        name="computer",
        input=value,
        extra={"type": "computer_call", "id": "cu_1", "status": "completed", "pending_safety_checks": checks},
    ),
    words,
    _actions,
    _checks,
)
_reasoning = st.builds(lambda text, proof: Thinking(text, proof, False, {"id": "rs_1"}), words, st.none() | words)
_searches = st.just(Opaque("web_search_call", {"type": "web_search_call", "id": "ws_1", "status": "completed"}))
_screens = st.builds(
    lambda call_id, data, checks: ToolResult(
        call_id=call_id,
        content=(Media(kind="image", media_type="image/png", data=data),),
        extra={"type": "computer_call_output", "acknowledged_safety_checks": checks},
    ),
    words,
    st.just("iVBORw0KGgo="),
    _checks,
)
_answers = parts(_response_texts, _response_calls, _custom_calls, _computer_calls, _reasoning, _searches, min_size=1)
_exchanges = st.builds(
    lambda user, answer, results: (Message("user", user), Message("assistant", answer), Message("user", results)),
    parts(texts, images, linked_images),
    _answers,
    parts(results(texts, st.just(False)), _screens),
)
responses_requests = st.builds(
    ModelRequest,
    dialect=st.just("openai_responses"),
    messages=st.lists(_exchanges, max_size=2).map(lambda found: tuple(each for three in found for each in three)),
    system=parts(texts, min_size=0),
    parallel_tool_calls=st.none() | st.booleans(),
    output_format=st.sampled_from([None, OutputFormat(), OutputFormat(schema={"type": "object"}, name="answer")]),
    **{name: value for name, value in settings.items() if name != "stop_sequences"},
)


def _reason(content):
    return "tool_use" if any(isinstance(part, ToolCall) for part in content) else "end_turn"


responses_responses = st.builds(
    lambda content, limited, **rest: ModelResponse(
        content=content, stop_reason="max_tokens" if limited else _reason(content), **rest
    ),
    parts(_response_texts, _response_calls, _custom_calls, _computer_calls, _reasoning, _searches, min_size=0),
    st.booleans(),
    id=words,
    model=names,
    usage=st.builds(
        Usage,
        input_tokens=counts,
        output_tokens=counts,
        cache_read_tokens=counts,
        cache_write_tokens=counts,
        reasoning_tokens=counts,
    ),
    dialect=st.just("openai_responses"),
)


def _apart(content):
    """No two texts or thoughts in a row: in a stream they would be one."""
    kept = []
    for part in content:
        if not (kept and type(kept[-1]) is type(part) and isinstance(part, (Text, Thinking))):
            kept.append(part)
    return tuple(kept)


gemini_responses = st.builds(
    lambda content, limited, **rest: ModelResponse(
        content=_apart(content), stop_reason="max_tokens" if limited else _reason(_apart(content)), **rest
    ),
    parts(*_gemini_parts, min_size=0),
    st.booleans(),
    id=words,
    model=names,
    usage=st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts),
    dialect=st.just("gemini"),
    extra=st.sampled_from([{}, {"createTime": "2026-11-21", "candidate": {"groundingMetadata": {"a": 1}}}]),
)
