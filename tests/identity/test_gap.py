"""The GAP loader: agent.yaml with its lines, the texts, the skills, what may not be loosened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from computeragent import plugins
from computeragent.errors import IdentityError
from computeragent.identity.gap import GapIdentityLoader
from computeragent.identity.loading import default_loader
from computeragent.protocol_types import AgentManifest
from computeragent.wire.identity import IdentitySource, InlineSource, LocalSource

pytestmark = pytest.mark.anyio

HEAD = 'name: hello\nversion: "0.1.0"\n'


class Agent:
    """An agent's directory under test."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent"
        self.state = folder / "state"
        self.path.mkdir()
        self.state.mkdir()

    def write(self, **files: str) -> Agent:
        for name, text in files.items():
            path = self.path / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def put(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def load(
        self, yaml: str | None = HEAD, *, engine: str = "claude-agent-sdk", trusted: bool = True, source: Any = None
    ) -> AgentManifest:
        if yaml is not None:
            self.put("agent.yaml", yaml)
        chosen: IdentitySource = source or LocalSource(path=str(self.path))
        return await GapIdentityLoader().load(
            source=chosen, target_engine=engine, workspace_path=self.path, state_dir=self.state, trusted=trusted
        )

    async def prompt(self, yaml: str = HEAD, *, trusted: bool = True) -> str:
        prompt = (await self.load(yaml, trusted=trusted)).options["system_prompt"]
        assert (prompt["type"], prompt["preset"]) == ("preset", "claude_code")
        return prompt["append"]


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


# ── agent.yaml ───────────────────────────────────────────────────────────────────────────────────────────────

FULL = """\
spec_version: 0.1
name: hello
version: "0.1.0"
description: Says hello.
model:
  preferred: anthropic:claude-haiku-4-5
  constraints: {temperature: 0.2}
runtime:
  max_turns: 7
  budget_usd: 0.5
  permission_mode: acceptEdits
  allowed_tools: [Read, Glob]
something_else: {kept: true}
"""


async def test_agent_yaml_sets_options_of_the_claude_engine(agent: Agent):
    manifest = await agent.load(FULL)
    options = {key: value for key, value in manifest.options.items() if key != "system_prompt"}
    assert (manifest.name, manifest.version, manifest.sha) == ("hello", "0.1.0", None)
    assert options == {
        "model": "claude-haiku-4-5",
        "max_turns": 7,
        "max_budget_usd": 0.5,
        "permission_mode": "acceptEdits",
        "allowed_tools": ["Read", "Glob"],
        "temperature": 0.2,
    }
    assert manifest.notes == ()


@pytest.mark.parametrize("engine", ["scripted", "someone-elses"])
async def test_other_engines_get_model_turns_and_a_plain_prompt(engine: str, agent: Agent):
    manifest = await agent.load(FULL, engine=engine)
    assert manifest.options == {
        "model": "anthropic:claude-haiku-4-5",
        "max_turns": 7,
        "system_prompt": "# Identity\n\nYou are hello, version 0.1.0. Says hello.",
    }


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("claude-x", "claude-x"),
        ("anthropic:claude-x", "claude-x"),
        ("anthropic/claude-x", "claude-x"),
        ("bedrock:us.anthropic.claude-x-v1:0", "us.anthropic.claude-x-v1:0"),
        ("us.anthropic.claude-x-v1:0", "us.anthropic.claude-x-v1:0"),
        ("arn:aws:bedrock:eu-west-1:1:profile/x", "arn:aws:bedrock:eu-west-1:1:profile/x"),
    ],
)
async def test_the_providers_name_before_a_model_is_dropped(written: str, model: str, agent: Agent):
    manifest = await agent.load(f'{HEAD}model: {{preferred: "{written}"}}\n')
    assert manifest.options["model"] == model


@pytest.mark.parametrize(
    ("yaml", "message", "hint"),
    [
        (
            f"{HEAD}# a comment\n\nmodel: {{}}\nruntime:\n  max_turns: many\n",
            "agent.yaml:7: runtime.max_turns must be an integer greater than 0, got 'many'",
            "For example: max_turns: 20",
        ),
        (
            f"{HEAD}runtime:\n  max_turns: 0\n",
            "agent.yaml:4: runtime.max_turns must be an integer greater than 0, got 0",
            "For example: max_turns: 20",
        ),
        (
            f"{HEAD}runtime:\n  max_turns: true\n",
            "agent.yaml:4: runtime.max_turns must be an integer greater than 0, got True",
            "For example: max_turns: 20",
        ),
        (
            f"{HEAD}runtime: {{budget_usd: -1}}\n",
            "agent.yaml:3: runtime.budget_usd must be a number, 0 or more, got -1",
            "For example: budget_usd: 1.5",
        ),
        (
            f"{HEAD}runtime: {{budget_usd: .nan}}\n",
            "agent.yaml:3: runtime.budget_usd must be a number, 0 or more, got nan",
            "For example: budget_usd: 1.5",
        ),
        (
            f"{HEAD}runtime:\n  permission_mode: yolo\n",
            (
                "agent.yaml:4: runtime.permission_mode must be one of "
                "default, acceptEdits, plan, dontAsk, auto, bypassPermissions, got 'yolo'"
            ),
            "For example: permission_mode: default",
        ),
        (
            f"{HEAD}runtime:\n  allowed_tools: Read\n",
            "agent.yaml:4: runtime.allowed_tools must be a list of strings, got 'Read'",
            "For example: allowed_tools: [one, two]",
        ),
        (
            f"{HEAD}model: claude\n",
            "agent.yaml:3: model must be a mapping, got 'claude'",
            "Write preferred: … on a line below it, indented.",
        ),
        (
            "name: hello\nversion: 0.10\n",
            "agent.yaml:2: version must be a non-empty string, got 0.1",
            'Quote it: version: "0.10"',
        ),
        ("name: 7\nversion: 'x'\n", "agent.yaml:1: name must be a non-empty string, got 7", 'Quote it: name: "7"'),
        (
            "name: ' '\nversion: 'x'\n",
            "agent.yaml:1: name must be a non-empty string, got ' '",
            "For example: name: text",
        ),
        ("name: hello\n", "agent.yaml: version is required", 'Add a line such as: version: "0.1.0"'),
        ("version: '1'\n", "agent.yaml: name is required", 'Add a line such as: name: "my-agent"'),
        ("", "agent.yaml:1: the file must be a mapping of keys, got None", "Start with: name: my-agent"),
        (
            "- a\n- b\n",
            "agent.yaml:1: the file must be a mapping of keys, got ['a', 'b']",
            "Start with: name: my-agent",
        ),
        (
            "name: hello\nversion: '1\n",
            "agent.yaml:2: found unexpected end of stream",
            "Check the indentation and quotes near this line.",
        ),
        (
            "name: hello\n\tversion: 1\n",
            "agent.yaml:2: found character '\\t' that cannot start any token",
            "Check the indentation and quotes near this line.",
        ),
        (
            f"{HEAD}x: !!python/object/apply:os.system [id]\n",
            (
                "agent.yaml:3: could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/object/apply:os.system'"
            ),
            "Check the indentation and quotes near this line.",
        ),
        (
            f"{HEAD}compliance: {{supervision: {{human_in_the_loop: sometimes}}}}\n",
            (
                "agent.yaml:3: compliance.supervision.human_in_the_loop must be one of none, destructive, always, "
                "got 'sometimes'"
            ),
            "For example: human_in_the_loop: none",
        ),
        (f"{HEAD}x: {'[' * 5000}\n", "agent.yaml: not valid YAML: nested too deeply", "Save it as plain UTF-8 text."),
    ],
)
async def test_what_is_wrong_is_said_with_its_line(yaml: str, message: str, hint: str, agent: Agent):
    with pytest.raises(IdentityError) as caught:
        await agent.load(yaml)
    assert (str(caught.value), caught.value.hint) == (message, hint)
    assert caught.value.code == "IDENTITY_INVALID"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "bomb",
    [
        "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30)),
        "".join(f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30)),
    ],
)
async def test_aliases_that_multiply_do_no_harm(bomb: str, agent: Agent):
    with pytest.raises(IdentityError) as caught:
        await agent.load(f"{HEAD}l0: &l0 {{a: b}}\n{bomb}runtime: {{max_turns: *l29}}\n")
    assert len(str(caught.value)) < 300


async def test_a_missing_agent_yaml_is_an_error_of_gap(agent: Agent):
    with pytest.raises(IdentityError) as caught:
        await agent.load(None)
    assert str(caught.value) == "agent.yaml not found in the agent's directory"
    assert caught.value.hint == (
        "Add one with name and version, choose the agent's folder with subdir, or leave the loader out."
    )


def test_the_default_loader_goes_by_agent_yaml(agent: Agent):
    assert default_loader(agent.path) == "passthrough"
    agent.put("agent.yaml", HEAD)
    assert default_loader(agent.path) == "gap"


@pytest.mark.parametrize("name", ["gap", "gitagentprotocol"])
def test_the_loader_is_registered(name: str):
    assert isinstance(plugins.resolve_identity_loader(name), GapIdentityLoader)


# ── The prompt ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_texts_are_stitched_in_order(agent: Agent):
    for name, text in {
        "SOUL.md": "Kind.\n",
        "RULES.md": "\ufeffNo harm.",
        "AGENTS.md": "Use make.",
        "CLAUDE.md": "C.",
    }.items():
        agent.put(name, text)
    assert await agent.prompt() == (
        "# Identity\n\nYou are hello, version 0.1.0.\n\n# Soul\n\nKind.\n\n# Rules\n\nNo harm.\n\n# Agents\n\nUse make."
    )


async def test_claude_md_joins_where_the_engine_does_not_load_it(agent: Agent):
    agent.put("CLAUDE.md", "Be brief.")
    assert "Be brief." not in await agent.prompt(trusted=True)
    assert (await agent.prompt(trusted=False)).endswith("\n\n# Instructions\n\nBe brief.")
    assert "Be brief." not in (await agent.load(engine="scripted", trusted=False)).options["system_prompt"]


async def test_claude_md_that_repeats_agents_md_comes_once(agent: Agent):
    agent.put("AGENTS.md", "Use make.")
    (agent.path / "CLAUDE.md").symlink_to("AGENTS.md")
    assert (await agent.prompt(trusted=False)).count("Use make.") == 1


async def test_a_text_that_links_out_of_the_agent_is_refused(agent: Agent):
    (agent.path / "SOUL.md").symlink_to("/etc/passwd")
    with pytest.raises(IdentityError) as caught:
        await agent.load()
    assert str(caught.value) == "SOUL.md cannot be read: SOUL.md resolves outside the workspace"


async def test_a_text_that_is_too_large_is_refused(agent: Agent):
    agent.put("RULES.md", "x" * 70_000)
    with pytest.raises(IdentityError, match=r"^RULES\.md has 70000 bytes, more than 65536$"):
        await agent.load()


async def test_texts_that_are_too_large_together_are_refused(agent: Agent):
    for name in ("SOUL.md", "RULES.md", "AGENTS.md"):
        agent.put(name, "x" * 60_000)
    with pytest.raises(IdentityError) as caught:
        await agent.load()
    assert str(caught.value) == "the agent's texts have 180074 bytes together, more than 122880"


async def test_knowledge_is_listed_and_loaded_where_marked(agent: Agent):
    agent.put(
        "knowledge/index.yaml",
        "documents:\n- path: guide.md\n  description: How we work\n"
        "- {path: knowledge/facts.md, always_load: true}\n- plain.md\n",
    )
    agent.put("knowledge/facts.md", "Water is wet.\n")
    assert (await agent.prompt()).endswith(
        "# Knowledge\n\nRead these files when they bear on the task:\n\n"
        "- knowledge/guide.md: How we work\n- knowledge/facts.md\n- knowledge/plain.md\n\n"
        "## knowledge/facts.md\n\nWater is wet."
    )


async def test_knowledge_that_does_not_fit_or_leads_out_is_noted(agent: Agent):
    agent.put(
        "knowledge/index.yaml",
        "".join(f"- {{path: {path}, always_load: true}}\n" for path in ("big.md", "out.md", "../../x")),
    )
    agent.put("knowledge/big.md", "x" * 40_000)
    (agent.path / "knowledge" / "out.md").symlink_to("/etc/passwd")
    manifest = await agent.load()
    assert manifest.notes == (
        "knowledge/big.md is not loaded: knowledge/big.md has 40000 bytes",
        "knowledge/out.md is not loaded: knowledge/out.md resolves outside the workspace",
        "knowledge/../../x is not loaded: parent traversal is not allowed",
    )
    assert "root:" not in manifest.options["system_prompt"]["append"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("documents: guide.md\n", "knowledge/index.yaml:1: documents must be a list of documents, got 'guide.md'"),
        (
            "documents:\n- a.md\n- title: b\n",
            "knowledge/index.yaml:3: documents.1 must have a path, got {'title': 'b'}",
        ),
        ("- 7\n", "knowledge/index.yaml:1: 0 must have a path, got 7"),
    ],
)
async def test_a_wrong_index_is_said_with_its_line(index: str, message: str, agent: Agent):
    agent.put("knowledge/index.yaml", index)
    with pytest.raises(IdentityError) as caught:
        await agent.load()
    assert str(caught.value) == message


@pytest.mark.parametrize("index", ["", "documents:\n", "about: nothing\n"])
async def test_an_empty_index_is_no_section(index: str, agent: Agent):
    agent.put("knowledge/index.yaml", index)
    assert "Knowledge" not in await agent.prompt()


# ── Skills ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_skills_become_a_plugin_outside_the_workspace(agent: Agent):
    agent.put("skills/greet/SKILL.md", "---\nname: greet\ndescription: greets\n---\nSay hi.")
    agent.put("skills/greet/scripts/hi.sh", "#!/bin/sh\n")
    (agent.path / "skills/greet/scripts/hi.sh").chmod(0o755)
    before = sorted(agent.path.rglob("*"))
    manifest = await agent.load(f"{HEAD}description: Says hello.\n")
    [plugin] = manifest.options["plugins"]
    path = Path(plugin["path"])
    assert plugin["type"] == "local"
    assert path.is_relative_to(agent.state)
    assert json.loads((path / ".claude-plugin/plugin.json").read_text()) == {
        "name": "hello",
        "version": "0.1.0",
        "description": "Says hello.",
    }
    assert (path / "skills/greet/SKILL.md").read_text().endswith("Say hi.")
    assert (path / "skills/greet/scripts/hi.sh").stat().st_mode & 0o777 == 0o700
    assert sorted(agent.path.rglob("*")) == sorted([*before, agent.path / "agent.yaml"])


async def test_a_plugin_is_made_anew_each_time(agent: Agent):
    agent.put("skills/one/SKILL.md", "1")
    await agent.load()
    (agent.path / "skills/one").rename(agent.path / "skills/two")
    [plugin] = (await agent.load()).options["plugins"]
    assert [path.name for path in (Path(plugin["path"]) / "skills").iterdir()] == ["two"]


async def test_what_is_no_skill_is_noted(agent: Agent):
    agent.put("skills/flat.md", "x")
    agent.put("skills/empty/readme.md", "x")
    agent.put("skills/good/SKILL.md", "x")
    (agent.path / "skills/good/passwd").symlink_to("/etc/passwd")
    (agent.path / "skills/out").symlink_to("/etc")
    manifest = await agent.load(f"{HEAD}skills: [good, absent]\n")
    assert manifest.notes == (
        "agent.yaml: skill absent is not in skills/",
        "skills/empty is not a skill: it has no readable SKILL.md",
        "skills/flat.md is not a skill: it has no readable SKILL.md",
        "skills/good/passwd is not copied: skills/good/passwd resolves outside the workspace",
        "skills/out is not a skill: it has no readable SKILL.md",
    )


async def test_no_skills_no_plugin(agent: Agent):
    assert "plugins" not in (await agent.load()).options
    agent.put("skills/flat.md", "x")
    assert "plugins" not in (await agent.load()).options


# ── Harden and notes ─────────────────────────────────────────────────────────────────────────────────────────

MODES = ["default", "plan", "acceptEdits", "dontAsk", "auto", "bypassPermissions"]


@pytest.mark.parametrize(
    ("supervision", "loosened"),
    [("none", []), ("destructive", ["bypassPermissions"]), ("always", MODES[2:])],
)
@pytest.mark.parametrize("mode", MODES)
async def test_human_in_the_loop_cannot_be_loosened(supervision: str, loosened: list[str], mode: str, agent: Agent):
    manifest = await agent.load(f"{HEAD}compliance: {{supervision: {{human_in_the_loop: {supervision}}}}}\n")
    given = {"permission_mode": mode, "max_turns": 3}
    hardened = manifest.harden(given)
    assert hardened == {"permission_mode": "default" if mode in loosened else mode, "max_turns": 3}
    assert given["permission_mode"] == mode


async def test_harden_covers_settings_files_and_flags(agent: Agent):
    manifest = await agent.load(f"{HEAD}compliance: {{supervision: {{human_in_the_loop: destructive}}}}\n")
    assert manifest.harden({}) == {"permission_mode": "default"}
    extra = {"dangerously-skip-permissions": None, "--permission-mode": "auto", "verbose": None}
    assert manifest.harden({"extra_args": extra})["extra_args"] == {"verbose": None}
    plain = await agent.load(None, engine="scripted")
    assert plain.harden({}) == {}
    assert plain.harden({"permission_mode": "bypassPermissions"}) == {"permission_mode": "default"}


async def test_what_is_not_honoured_is_noted(agent: Agent):
    for name in ("tools/x.yaml", "hooks/hooks.yaml", "agents/helper.yaml"):
        agent.put(name, "")
    manifest = await agent.load(
        f"{HEAD}model: {{fallback: [a], constraints: {{temperature: 1, top_p: 1}}}}\nruntime: {{timeout: 5}}\n"
        "tools: [x]\ncompliance: {supervision: {kill_switch: true, escalation_triggers: [x]}}\n"
    )
    assert manifest.notes == (
        "agent.yaml: model.fallback is not honoured",
        "agent.yaml: runtime.timeout is not honoured",
        "agent.yaml: compliance.supervision.kill_switch is not honoured",
        "agent.yaml: compliance.supervision.escalation_triggers is not honoured",
        "agent.yaml: tools is not honoured",
        "agent.yaml: model.constraints.top_p is not honoured",
        "tools/ is not used: tools of agents are not supported",
        "hooks/ is not used: hooks of agents are not supported",
        "agents/ is not used: sub-agents of agents are not supported",
    )


async def test_options_of_an_inline_manifest_count_and_those_of_a_file_do_not(agent: Agent):
    yaml = f"{HEAD}runtime: {{max_turns: 3}}\noptions: {{cwd: /}}\n"
    source = InlineSource(manifest={"name": "hello", "options": {"max_turns": 9}})
    assert (await agent.load(yaml, source=source)).options["max_turns"] == 9
    assert "cwd" not in (await agent.load(yaml)).options
