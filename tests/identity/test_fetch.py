"""`fetch`: a source becomes a directory, in place or as a copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from computeragent.errors import PathEscapeError, SourceError, ValidationError, WorkspaceError
from computeragent.identity.sources import fetch, parse_source
from computeragent.wire.identity import GitSource, InlineSource, LocalSource

from .conftest import TOKEN, GitServer, Repo, git

pytestmark = pytest.mark.anyio


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "work" / "source"


# ── Local ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_local_directory_is_used_where_it_is(tmp_path: Path, into: Path):
    (tmp_path / "agent").mkdir()
    fetched = await fetch(LocalSource(path=str(tmp_path / "agent")), into=into, in_place=True)
    assert (fetched.path, fetched.root, fetched.sha) == (tmp_path / "agent", tmp_path / "agent", None)
    assert not into.parent.exists()


async def test_a_local_checkout_has_a_commit(repo: Repo, into: Path):
    fetched = await fetch(LocalSource(path=str(repo.path)), into=into, in_place=True)
    assert fetched.sha == repo.commits[2]


async def test_home_is_expanded(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "agent").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    fetched = await fetch(LocalSource(path="~/agent"), into=into, in_place=True)
    assert fetched.path == tmp_path / "agent"


async def test_a_copy_has_the_files_and_not_what_leads_out_or_can_be_made_again(repo: Repo, tmp_path: Path, into: Path):
    source = repo.path
    (source / "node_modules" / "x").mkdir(parents=True)
    (source / "sub" / "__pycache__").mkdir(parents=True)
    (source / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (source / "sub" / "run.sh").chmod(0o755)
    (source / "inside").symlink_to("sub/run.sh")
    (source / "folder").symlink_to("sub")
    (source / "passwd").symlink_to("/etc/passwd")
    (source / "up").symlink_to("../")
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    told: list[str] = []
    fetched = await fetch(LocalSource(path=str(source)), into=into, progress=told.append)
    assert fetched.path == into
    assert fetched.sha == repo.commits[2]
    names = {str(path.relative_to(into)) for path in into.rglob("*")}
    assert names == {
        *("agents", "agents/triage", "agents/triage/agent.yaml", "number.txt", "inside", "folder", "sub"),
        *("sub/run.sh", "broken"),
    }
    assert os.access(into / "inside", os.X_OK)
    assert (into / "folder").is_symlink()
    assert told == ["Copied 6 files"]
    (into / "number.txt").write_text("changed")
    assert (source / "number.txt").read_text() == "3"


async def test_a_copy_into_the_directory_itself_does_not_copy_itself(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    fetched = await fetch(LocalSource(path=str(tmp_path)), into=tmp_path / "state" / "source")
    assert sorted(path.name for path in fetched.path.rglob("*")) == ["file", "state"]


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_directory_that_is_not_there(
    in_place: bool, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"^directory \./agnet does not exist$"):
        await fetch(LocalSource(path="./agnet"), into=into, in_place=in_place)
    with pytest.raises(SourceError, match=r"^\./file is not a directory$"):
        await fetch(LocalSource(path="./file"), into=into, in_place=in_place)
    assert not into.exists()


# ── Git ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_subdir_is_the_agents_folder(server: GitServer, repo: Repo, into: Path):
    source = parse_source(server.url("private/agent.git?ref=v1&subdir=agents/triage"))
    fetched = await fetch(source, into=into, envs={"GIT_TOKEN": TOKEN})
    assert (fetched.path, fetched.root, fetched.sha) == (into / "agents/triage", into, repo.commits[0])
    assert (fetched.path / "agent.yaml").read_text() == 'name: triage\nversion: "1"\n'


async def test_the_query_of_a_source_object_counts_too(server: GitServer, repo: Repo, into: Path):
    fetched = await fetch(GitSource(url=server.url("public/agent.git?ref=v2")), into=into)
    assert fetched.sha == repo.commits[1]


@pytest.mark.parametrize("subdir", ["agents/traige", "number.txt"])
async def test_a_subdir_that_is_not_there(subdir: str, server: GitServer, into: Path):
    with pytest.raises(SourceError) as caught:
        await fetch(GitSource(url=server.url("public/agent.git"), subdir=subdir), into=into)
    assert str(caught.value) == f"subdir {subdir!r} not found in {server.host}/public/agent"
    assert caught.value.hint == "Directories there: agents."
    assert not into.exists()


@pytest.mark.parametrize("subdir", ["..", "../..", "/etc", "agents/../..", "out"])
async def test_a_subdir_never_leads_out(subdir: str, repo: Repo, into: Path):
    (repo.path / "out").symlink_to("/etc")
    git("add", "-A", cwd=repo.path)
    git("commit", "-q", "-m", "link", cwd=repo.path)
    with pytest.raises(PathEscapeError, match=r"^subdir '"):
        await fetch(GitSource(url=f"file://{repo.path}", subdir=subdir), into=into, in_place=True)


async def test_file_repositories_are_for_library_mode(repo: Repo, into: Path):
    with pytest.raises(ValidationError) as caught:
        await fetch(GitSource(url=f"file://{repo.path}"), into=into)
    assert str(caught.value) == "git addresses with 'file' are not allowed"
    assert caught.value.hint == "Use one of: https, http, ssh, git. Local repositories work in library mode only."


async def test_a_second_fetch_keeps_the_agents_work(repo: Repo, into: Path):
    """A session that is resumed finds its files as they were, also when the branch has moved on."""
    source = GitSource(url=f"file://{repo.path}", subdir="agents")
    first = await fetch(source, into=into, in_place=True)
    (first.path / "result.txt").write_text("work")
    (repo.path / "new").write_text("")
    git("add", "-A", cwd=repo.path)
    git("commit", "-q", "-m", "later", cwd=repo.path)
    second = await fetch(source, into=into, in_place=True)
    assert second == first
    assert (second.path / "result.txt").read_text() == "work"


async def test_another_source_replaces_the_directory(repo: Repo, into: Path):
    await fetch(GitSource(url=f"file://{repo.path}"), into=into, in_place=True)
    await fetch(InlineSource(manifest={}, files={"x": "1"}), into=into)
    assert [path.name for path in into.iterdir()] == ["x"]


async def test_what_a_broken_off_fetch_left_is_replaced(repo: Repo, into: Path):
    into.mkdir(parents=True)
    (into / "half").write_text("")
    into.with_name("source.part").mkdir()
    fetched = await fetch(GitSource(url=f"file://{repo.path}"), into=into, in_place=True)
    assert fetched.sha == repo.commits[2]
    assert not (into / "half").exists()
    assert sorted(path.name for path in into.parent.iterdir()) == ["source", "source.json"]


async def test_nothing_is_left_of_a_fetch_that_fails(server: GitServer, into: Path):
    with pytest.raises(SourceError):
        await fetch(GitSource(url=server.url("private/agent.git")), into=into)
    assert list(into.parent.iterdir()) == []


async def test_the_note_beside_a_clone_has_no_address(server: GitServer, into: Path):
    url = server.url("private/agent.git").replace("http://", f"http://{TOKEN}@")
    await fetch(GitSource(url=url), into=into)
    assert TOKEN not in into.with_name("source.json").read_text()


# ── Inline ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_inline_files_are_written(into: Path):
    files = {"agent.yaml": "name: a\nversion: '1'\n", "skills/x/SKILL.md": "do x", "..notes": "ü"}
    fetched = await fetch(InlineSource(manifest={"name": "ignored"}, files=files), into=into)
    assert fetched.sha is None
    assert {name: (into / name).read_text("utf-8") for name in files} == files


async def test_a_manifest_becomes_agent_yaml(into: Path):
    manifest = {"name": "a", "version": "0.1", "model": {"preferred": "m"}, "options": {"hooks": print}}
    await fetch(InlineSource(manifest=manifest), into=into)
    assert (into / "agent.yaml").read_text() == "name: a\nversion: '0.1'\nmodel:\n  preferred: m\n"


async def test_a_manifest_without_name_or_version_gets_them(into: Path):
    await fetch(InlineSource(manifest={"description": "d"}), into=into)
    assert (into / "agent.yaml").read_text() == "name: agent\nversion: 0.0.0\ndescription: d\n"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("../x", PathEscapeError, "inline file '../x': parent traversal is not allowed"),
        ("a/../../x", PathEscapeError, "inline file 'a/../../x': parent traversal is not allowed"),
        ("/tmp/x", PathEscapeError, "inline file '/tmp/x': absolute paths are not allowed"),
        (".git/config", WorkspaceError, "inline file '.git/config': git's own folder cannot be given"),
        ("a/.GIT/hooks/x", WorkspaceError, "inline file 'a/.GIT/hooks/x': git's own folder cannot be given"),
        ("a\0b", WorkspaceError, "inline file 'a\\x00b': path contains a null byte"),
        ("", WorkspaceError, "inline file '': path must be a non-empty string"),
    ],
)
async def test_inline_files_never_leave_the_directory(name: str, error: type[Exception], message: str, into: Path):
    with pytest.raises(error) as caught:
        await fetch(InlineSource(manifest={}, files={"fine": "", name: "x"}), into=into)
    assert str(caught.value) == message
    assert list(into.parent.iterdir()) == []


async def test_a_manifest_that_is_no_plain_data(into: Path):
    with pytest.raises(ValidationError, match=r"^the inline manifest has a value that is not plain data$"):
        await fetch(InlineSource(manifest={"name": print}), into=into)
