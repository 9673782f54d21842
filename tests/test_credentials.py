"""Provider keys stay outside of sandboxes."""

from computeragent.credentials import PLACEHOLDER, held_outside


def test_keys_are_replaced_and_addresses_left_out():
    inside, routes = held_outside({"OPENROUTER_API_KEY": "k", "OPENAI_BASE_URL": "http://gateway/", "PATH": "/bin"})
    assert inside == {"OPENROUTER_API_KEY": PLACEHOLDER, "PATH": "/bin"}
    assert {route.provider.name: (route.base_url, route.header) for route in routes} == {
        "openai": ("http://gateway", None),
        "openrouter": ("https://openrouter.ai/api/v1", ("authorization", "Bearer k")),
    }


def test_a_key_without_an_address_leads_nowhere():
    inside, routes = held_outside({"OPENAI_COMPATIBLE_API_KEY": "k"})
    assert inside == {"OPENAI_COMPATIBLE_API_KEY": PLACEHOLDER}
    assert routes == []


def test_a_server_of_your_own_is_reached_without_a_key():
    _, [route] = held_outside({"OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:8000/v1"})
    assert (route.base_url, route.header) == ("http://127.0.0.1:8000/v1", None)
    assert "8000" in repr(route)
