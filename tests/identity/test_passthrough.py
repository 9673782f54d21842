"""The passthrough loader: a name, and CLAUDE.md where the engine does not load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from computeragent import plugins
from computeragent.errors import IdentityError
from computeragent.identity.passthrough import PassthroughLoader
from computeragent.protocol_types import AgentManifest
from computeragent.wire.identity import GitSource, IdentitySource, InlineSource, LocalSource

pytestmark = pytest.mark.anyio

PRESET = {"type": "preset", "preset": "claude_code", "append": "Be brief."}


async def _load(
    source: IdentitySource, path: Path, *, engine: str = "claude-agent-sdk", trusted: bool = True
) -> AgentManifest:
    return await PassthroughLoader().load(
        source=source, target_engine=engine, workspace_path=path, state_dir=path, trusted=trusted
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (GitSource(url="github.com/org/triage.git"), "triage"),
        (GitSource(url="git@h.example:org/triage.git", subdir="agents/one/"), "one"),
        (LocalSource(path="/srv/agents/hello/"), "hello"),
        (InlineSource(manifest={}), "agent"),
        (InlineSource(manifest={"name": "mine"}), "mine"),
    ],
)
async def test_the_name_is_that_of_the_source(source: IdentitySource, name: str, tmp_path: Path):
    manifest = await _load(source, tmp_path)
    assert (manifest.name, manifest.version, manifest.sha) == (name, "0.0.0", None)
    assert manifest.options == {}


async def test_here_is_the_name_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert (await _load(LocalSource(path="."), tmp_path)).name == tmp_path.name


async def test_an_inline_manifest_sets_version_options_and_sha(tmp_path: Path):
    source = InlineSource(manifest={"name": "a", "version": "2", "options": {"max_turns": 1}, "sha": "abc"})
    manifest = await _load(source, tmp_path)
    assert (manifest.version, manifest.options, manifest.sha) == ("2", {"max_turns": 1}, "abc")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"name": 7}, "name of the inline manifest must be a non-empty string, got 7"),
        ({"version": ""}, "version of the inline manifest must be a non-empty string, got ''"),
        ({"options": []}, "options of the inline manifest must be a mapping, got list"),
    ],
)
async def test_a_wrong_inline_manifest_is_said(manifest: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(IdentityError) as caught:
        await _load(InlineSource(manifest=manifest), tmp_path)
    assert str(caught.value) == message
    assert caught.value.hint


async def test_claude_md_joins_for_a_source_that_is_not_the_callers(tmp_path: Path):
    (tmp_path / "CLAUDE.md").write_text("Be brief.\n")
    source = GitSource(url="h.example/a")
    assert (await _load(source, tmp_path, trusted=True)).options == {}
    assert (await _load(source, tmp_path, trusted=False, engine="scripted")).options == {}
    assert (await _load(source, tmp_path, trusted=False)).options == {"system_prompt": PRESET}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("You are a bot.", "You are a bot.\n\nBe brief."),
        ({"type": "preset", "preset": "claude_code"}, PRESET),
        ({"type": "preset", "preset": "claude_code", "append": "One."}, PRESET | {"append": "One.\n\nBe brief."}),
    ],
)
async def test_claude_md_comes_after_the_prompt_of_the_manifest(given: Any, expected: Any, tmp_path: Path):
    (tmp_path / "CLAUDE.md").write_text("Be brief.")
    source = InlineSource(manifest={"options": {"system_prompt": given}})
    assert (await _load(source, tmp_path, trusted=False)).options["system_prompt"] == expected


async def test_a_claude_md_that_links_out_is_refused(tmp_path: Path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "CLAUDE.md").symlink_to("/etc/passwd")
    with pytest.raises(IdentityError, match=r"^CLAUDE\.md cannot be read: CLAUDE\.md resolves outside"):
        await _load(GitSource(url="h.example/a"), tmp_path / "agent", trusted=False)


def test_the_loader_is_registered():
    assert isinstance(plugins.resolve_identity_loader("passthrough"), PassthroughLoader)
