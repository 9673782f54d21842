"""JSON Schemas of tools in Inspect's words: nothing is lost that has a word there, and nothing gets stricter."""

from computeragent.swe.bridge.schemas import json_schema, tool_params


def test_words_that_inspect_does_not_know_are_said_in_its_own():
    params = tool_params(
        {
            "type": "object",
            "properties": {
                "kind": {"const": "file"},
                "place": {"$ref": "#/$defs/place", "description": "where"},
                "size": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
                "both": {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["b"]}]},
            },
            "required": ["kind"],
            "additionalProperties": True,
            "$defs": {"place": {"type": "array", "items": {"type": "number"}}},
        }
    )
    found = params.properties
    assert found["kind"].enum == ["file"]
    assert (found["place"].type, found["place"].items.type, found["place"].description) == ("array", "number", "where")
    assert [option.type for option in found["size"].anyOf] == ["integer", "null"]
    assert (list(found["both"].properties), {*found["both"].required}) == (["a"], {"a", "b"})
    assert (params.required, params.additionalProperties) == (["kind"], True)


def test_a_schema_that_holds_itself_ends():
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}}
    assert json_schema(tree).properties["next"].properties is not None


def test_a_short_schema_that_means_a_huge_one_is_cut():
    node = {"$ref": "#/$defs/node"}
    tree = {"properties": dict.fromkeys("abcdefgh", node)}
    params = tool_params({"properties": {"root": node}, "$defs": {"node": tree}})
    assert {*params.properties["root"].properties["h"].properties} == {*"abcdefgh"}
    doubled = {f"n{n}": {"properties": {x: {"$ref": f"#/$defs/n{n + 1}"} for x in "ab"}} for n in range(30)}
    assert [*json_schema({"$ref": "#/$defs/n0", "$defs": doubled}).properties] == ["a", "b"]
    nested: dict = {"properties": {"a": {"type": "string"}}}
    for _ in range(35):
        nested = {"allOf": [nested]}
    assert json_schema(nested) is not None


def test_the_alternatives_of_a_tool_are_all_its_parameters():
    one = {"properties": {"kind": {"const": "one"}, "a": {"type": "string"}}, "required": ["kind", "a"]}
    two = {"properties": {"kind": {"const": "two"}, "b": {"type": "string"}}, "required": ["kind"]}
    params = tool_params({"type": "object", "oneOf": [one, two], "properties": {"c": {"type": "integer"}}})
    assert (params.required, params.additionalProperties) == (["kind"], True)
    assert {*params.properties} == {"a", "b", "c", "kind"}
    assert [each.enum for each in params.properties["kind"].anyOf] == [["one"], ["two"]]
    assert tool_params({"anyOf": [{**one, "required": [[]]}, {**two, "required": [[]]}]}).additionalProperties is True


def test_nonsense_is_left_open():
    assert tool_params({"properties": 7, "required": "x"}).properties == {}
    odd = tool_params({"properties": {"a": {"type": "file", "items": [{}], "enum": "x"}, "b": True}})
    assert (odd.properties["a"].type, odd.properties["a"].enum, odd.properties["b"].type) == (None, None, None)
    assert tool_params({"properties": {"a": {"minimum": "low"}}}).additionalProperties is True
    assert json_schema({"maxLength": "long"}).maxLength is None
