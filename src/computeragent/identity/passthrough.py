"""`PassthroughLoader`: a plain directory as an agent; its name is all that we make of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from anyio import to_thread

from computeragent.errors import IdentityError
from computeragent.identity.prompt import read_text
from computeragent.identity.repository import parse_repository
from computeragent.jail import Jail
from computeragent.protocol_types import AgentManifest, GitSource, IdentitySource, InlineSource, LocalSource


class PassthroughLoader:
    """Takes name, version and options from an inline manifest, or the name from the directory or repository.

    CLAUDE.md of a source that the caller does not own joins the system prompt: the engine does not load it then.
    """

    async def load(
        self, *, source: IdentitySource, target_engine: str, workspace_path: Path, state_dir: Path, trusted: bool
    ) -> AgentManifest:
        """Describe the agent in `workspace_path`."""
        options = inline_options(source)
        if target_engine == "claude-agent-sdk" and not trusted:
            text = await to_thread.run_sync(read_text, Jail(workspace_path), "CLAUDE.md")
            if text:
                options["system_prompt"] = _joined(options.get("system_prompt"), text)
        manifest = source.manifest if isinstance(source, InlineSource) else {}
        sha = manifest.get("sha")
        return AgentManifest(
            name=_text(manifest, "name") or _name_of(source, workspace_path),
            version=_text(manifest, "version") or "0.0.0",
            options=options,
            sha=sha if isinstance(sha, str) else None,
        )


def inline_options(source: IdentitySource) -> dict[str, Any]:
    """The engine options of an inline manifest. Only there: a fetched file must not set them."""
    options = source.manifest.get("options") if isinstance(source, InlineSource) else None
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise IdentityError(
            f"options of the inline manifest must be a mapping, got {type(options).__name__}",
            hint='For example "options": {"max_turns": 5}.',
        )
    return dict(cast("Mapping[str, Any]", options))


def _text(manifest: Mapping[str, Any], key: str) -> str | None:
    value = manifest.get(key)
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise IdentityError(
        f"{key} of the inline manifest must be a non-empty string, got {value!r}", hint=f'For example "{key}": "1.0".'
    )


def _name_of(source: IdentitySource, workspace: Path) -> str:
    match source:
        case GitSource():
            inside = (source.subdir or "").strip("/").rpartition("/")[2]
            return inside or parse_repository(source.url, allow_file=True).name.rpartition("/")[2]
        case LocalSource():
            return Path(source.path).expanduser().resolve().name or workspace.name or "agent"
        case InlineSource():
            return "agent"


def _joined(given: Any, text: str) -> Any:
    """CLAUDE.md after what the inline manifest says, in the shape that it says it in."""
    if isinstance(given, str):
        return f"{given}\n\n{text}"
    preset = dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else {}
    before = preset.get("append")
    joined = f"{before}\n\n{text}" if before else text
    return {"type": "preset", "preset": "claude_code"} | preset | {"append": joined}
