"""Which model is whose, with which key; and what a request may set for itself."""

import pytest

from computeragent.errors import UnknownModelError, ValidationError
from computeragent.models import allowed_env, find, open_model, request_env
from computeragent.models.providers import PROVIDERS

KEY = "sk-secret-0123456789"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models"
ENVS = {variable: KEY for row in PROVIDERS for variable in row.variables[-1:]}


@pytest.mark.parametrize(
    ("name", "provider", "model", "dialect", "url"),
    [
        ("anthropic/claude-x", "anthropic", "claude-x", "anthropic", "https://api.anthropic.com/v1/messages"),
        ("claude-opus-5-5", "anthropic", "claude-opus-5-5", "anthropic", "https://api.anthropic.com/v1/messages"),
        ("openai/gpt-5.4", "openai", "gpt-5.4", "openai_responses", "https://api.openai.com/v1/responses"),
        ("computer-use-preview", "openai", "computer-use-preview", "openai_responses", None),
        ("o3", "openai", "o3", "openai_responses", None),
        ("o4-mini", "openai", "o4-mini", "openai_responses", None),
        ("openrouter/qwen/qwen3-vl", "openrouter", "qwen/qwen3-vl", "openai_chat", None),
        (
            "gemini/models/gemini-3",
            "gemini",
            "models/gemini-3",
            "gemini",
            f"{GOOGLE}/gemini-3:streamGenerateContent?alt=sse",
        ),
        ("gemini-3", "gemini", "gemini-3", "gemini", f"{GOOGLE}/gemini-3:streamGenerateContent?alt=sse"),
        ("Anthropic/claude-x", "anthropic", "claude-x", "anthropic", None),
    ],
)
def test_a_name_says_whose_model_it_is(name, provider, model, dialect, url):
    found = find(name, ENVS)
    assert (found.provider, found.model, found.dialect) == (provider, model, dialect)
    assert url is None or found.url == url


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1"])
def test_anthropic_s_address_is_given_with_and_without_its_version(base):
    assert find("claude-x", {**ENVS, "ANTHROPIC_BASE_URL": base}).url == "http://127.0.0.1:1/v1/messages"


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "http://127.0.0.1:1/v1beta/"])
def test_google_s_key_goes_into_its_own_header_and_the_model_into_the_path(base):
    found = find("gemini/a b/../x?y", {**ENVS, "GOOGLE_GEMINI_BASE_URL": base})
    assert found.url == "http://127.0.0.1:1/v1beta/models/a%20b%2F..%2Fx%3Fy:streamGenerateContent?alt=sse"
    assert found.header == ("x-goog-api-key", KEY)


def test_a_server_of_your_own_needs_an_address_and_no_key():
    found = find("openai-compatible/qwen", {"OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:8000/v1"})
    assert (found.url, found.header) == ("http://127.0.0.1:8000/v1/chat/completions", None)
    with pytest.raises(UnknownModelError) as caught:
        find("openai-compatible/qwen", {})
    assert "OPENAI_COMPATIBLE_BASE_URL" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("antropic/claude-x", 'Did you mean "anthropic/claude-x"?'),
        ("cluade-opus-5-5", 'Did you mean "claude-opus-5-5"?'),
        ("llama-3", "Write it as provider/model"),
        ("openai/", "Write it as openai/NAME"),
        ("scripted/", "scripted/FILE"),
        ("", "Write it as provider/model"),
    ],
)
def test_an_unknown_model_is_told_with_what_was_probably_meant(name, hint):
    with pytest.raises(UnknownModelError) as caught:
        open_model(name, ENVS)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["claude-" + "x" * 400, "claude-\nx"])
def test_a_name_that_is_none_is_not_repeated(name):
    with pytest.raises(UnknownModelError) as caught:
        find(name, ENVS)
    assert name not in caught.value.message


def test_a_missing_key_is_named_by_its_variable():
    with pytest.raises(UnknownModelError) as caught:
        find("claude-x", {"CLAUDE_CODE_OAUTH_TOKEN": KEY})  # a login of the CLI is no key of the API
    assert caught.value.hint == "Set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN."


def test_a_key_is_never_on_show():
    model = open_model("claude-x", ENVS)
    assert (
        KEY not in f"{model!r} {model.endpoint!r} {vars(model.endpoint) if hasattr(model.endpoint, '__dict__') else ''}"
    )
    assert model.endpoint.header == ("x-api-key", KEY)


@pytest.mark.parametrize("key", ["k\nx", "kéy"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key):
    with pytest.raises(ValidationError) as caught:
        find("claude-x", {"ANTHROPIC_API_KEY": key})
    assert key not in str(caught.value.to_wire())


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://user:pw@host", "http://h/?a=1", "http://[", "/etc"])
def test_an_address_that_is_none_is_refused_and_not_repeated(url):
    with pytest.raises(ValidationError) as caught:
        find("gpt-5", {**ENVS, "OPENAI_BASE_URL": url})
    assert "OPENAI_BASE_URL" in caught.value.message
    assert "pw" not in str(caught.value.to_wire())


def test_the_table_is_the_list_of_what_a_request_may_set():
    assert {"ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "OPENAI_BASE_URL"} <= allowed_env()
    assert not any(name.endswith("_BASE_URL") for name in allowed_env(addresses=False))
    with pytest.raises(ValidationError, match="LD_PRELOAD"):
        request_env({"LD_PRELOAD": "x"}, {})
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL"):
        request_env({"OPENAI_BASE_URL": "http://h"}, {}, addresses=False)
    with pytest.raises(ValidationError, match="string"):
        request_env({"OPENAI_API_KEY": 1}, {})


def test_our_key_never_goes_to_an_address_that_a_request_names():
    own = {"OPENAI_API_KEY": "ours", "ANTHROPIC_API_KEY": "ours too", "PATH": "/bin"}
    assert request_env({"OPENAI_BASE_URL": "http://theirs"}, own) == {
        "OPENAI_BASE_URL": "http://theirs",
        "ANTHROPIC_API_KEY": "ours too",
    }


def test_a_request_s_key_is_used_alone_and_at_our_address():
    own = {"ANTHROPIC_AUTH_TOKEN": "ours", "ANTHROPIC_BASE_URL": "http://gateway"}
    merged = request_env({"ANTHROPIC_API_KEY": "theirs"}, own)
    assert merged == {"ANTHROPIC_API_KEY": "theirs", "ANTHROPIC_BASE_URL": "http://gateway"}


def test_a_request_that_states_nothing_gets_ours():
    own = {"OPENAI_API_KEY": "ours", "PATH": "/bin"}
    assert request_env({"OPENAI_API_KEY": ""}, own) == {"OPENAI_API_KEY": "ours"}


def test_a_name_runs_no_program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('it ran')")
    with pytest.raises(UnknownModelError, match="Python"):
        open_model(f"scripted/{script}")
