from computeragent.dialects import (
    Media,
    Message,
    ModelRequest,
    Text,
    Tool,
    ToolCall,
    estimate_output_tokens,
    estimate_request_tokens,
)


def test_input_is_about_four_characters_a_token():
    request = ModelRequest(model="m", system=(Text("x" * 400),), messages=(Message("user", (Text("y" * 388),)),))
    assert estimate_request_tokens(request) == 200


def test_tools_and_images_count():
    bare = ModelRequest(model="m", messages=(Message("user", (Text("hi"),)),))
    full = ModelRequest(
        model="m",
        messages=(Message("user", (Text("hi"), Media(kind="image", data="AAAA"))),),
        tools=(Tool(name="Read", description="d" * 400),),
    )
    assert estimate_request_tokens(full) - estimate_request_tokens(bare) > 1_500


def test_an_answer_is_never_free():
    assert estimate_output_tokens([]) == 1
    assert estimate_output_tokens([ToolCall(id="t", name="Read", input={"file_path": "a.txt"})]) == 7
