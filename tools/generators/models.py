"""docs/reference/models.md: how models are named, whose they are, and the variables that a request may set."""

from __future__ import annotations

from computeragent.models.providers import PROVIDERS, Row

TARGET = "docs/reference/models.md"
_BARE = {
    "anthropic": "`claude-…`",
    "openai": "`gpt-…`, `chatgpt-…`, `o3`, `computer-use-preview`",
    "gemini": "`gemini-…`",
}
_WIRES = {
    "anthropic": "Anthropic Messages",
    "openai_responses": "OpenAI Responses",
    "openai_chat": "OpenAI Chat Completions",
    "gemini": "Gemini generateContent",
}


def generate() -> str:
    """The page."""
    return "\n".join(
        [
            "# Models",
            "",
            "Generated. A model is named `provider/model`; well-known names need no provider. Keys and addresses come",
            "from these variables, of the process or, on a server that allows it, of the request, which sets no other.",
            "A request that states an address brings its key: the server's own never goes there.",
            "",
            "| Name | Also as | Wire | Key | Address | Default address |",
            "|---|---|---|---|---|---|",
            *map(_line, PROVIDERS),
            "| `scripted/FILE` |  | none: a [script](../simulator.md), played in the process |  |  |  |",
            "| `human/human` |  | none: a person answers |  |  |  |",
            "",
        ]
    )


def _line(row: Row) -> str:
    keys = " or ".join(f"`{name}`" for name in reversed(row.variables)) + (
        "" if row.key_required else " (if it needs one)"
    )
    bare = _BARE[row.prefix] if row.bare is not None else ""
    address = f"`{row.base_url}`" if row.base_url else "none"
    wire = _WIRES[row.dialect]
    return f"| `{row.prefix}/…` | {bare} | {wire} | {keys} | `{row.base_url_variable}` | {address} |"
