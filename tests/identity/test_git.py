"""Clones of real repositories: by file, and over HTTP from a real `git http-backend`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from computeragent.errors import SourceError, ValidationError
from computeragent.identity.git import clone, head_commit
from computeragent.identity.process import git_environment
from computeragent.identity.repository import parse_repository

from .conftest import TOKEN, GitServer, Repo, basic, command_lines, git

pytestmark = pytest.mark.anyio


async def _clone(url: str, into: Path, ref: str | None = None, **options: Any) -> str | None:
    return await clone(parse_repository(url, allow_file=True), ref, into, envs=options.pop("envs", {}), **options)


# ── What is cloned ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        *((None, "3"), ("HEAD", "3"), ("main", "3"), ("feature/one", "1"), ("v2", "2"), ("refs/tags/v1", "1")),
        *(("refs/heads/feature/one", "1"), ("full:0", "1"), ("full:1", "2"), ("short:0", "1"), ("short:1", "2")),
    ],
)
@pytest.mark.parametrize("over", ["file", "http"])
async def test_a_branch_a_tag_or_a_commit(
    ref: str | None, number: str, over: str, repo: Repo, server: GitServer, tmp_path: Path
):
    if ref and ref.startswith(("full:", "short:")):
        commit = repo.commits[int(ref[-1])]
        ref = commit if ref.startswith("full") else commit[:8]
    into = tmp_path / "into"
    url = f"file://{repo.path}" if over == "file" else server.url("public/agent.git")
    sha = await _clone(url, into, ref)
    assert (into / "number.txt").read_text() == number
    assert sha == repo.commits[int(number) - 1]


async def test_a_branch_is_shallow_and_checked_out_as_a_branch(repo: Repo, tmp_path: Path):
    await _clone(f"file://{repo.path}", tmp_path / "into", "main")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "into") == "1"
    assert git("symbolic-ref", "--short", "HEAD", cwd=tmp_path / "into") == "main"


async def test_a_commit_of_a_server_that_gives_out_tips_only(server: GitServer, repo: Repo, tmp_path: Path):
    git("config", "protocol.version", "0", cwd=server.root / "public/agent.git")
    sha = await _clone(server.url("public/agent.git"), tmp_path / "into", repo.commits[0])
    assert sha == repo.commits[0]


async def test_an_empty_repository_has_no_commit(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    git("init", "-q", "--bare", cwd=tmp_path / "empty")
    assert await _clone(f"file://{tmp_path}/empty", tmp_path / "into") is None


async def test_nothing_of_the_users_own_runs(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hooks, templates, the LFS filter, submodules and askpass programs of the user's settings stay unused."""
    home = tmp_path / "userhome"
    (home / "hooks").mkdir(parents=True)
    (home / "template" / "hooks").mkdir(parents=True)
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\necho $0 >> {ran}\n"
    for path in ("hooks/post-checkout", "template/hooks/post-checkout", "askpass"):
        (home / path).write_text(script)
        (home / path).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {home}/hooks\n\taskPass = {home}/askpass\n\tfsmonitor = {home}/askpass\n"
        f"[init]\n\ttemplateDir = {home}/template\n[submodule]\n\trecurse = true\n"
        f'[filter "lfs"]\n\tsmudge = {home}/askpass\n\tprocess = {home}/askpass\n\trequired = true\n'
    )
    (repo.path / ".gitattributes").write_text("*.txt filter=lfs\n")
    (repo.path / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = file://{repo.path}\n')
    git("add", "-A", cwd=repo.path)
    git("commit", "-q", "-m", "filters", cwd=repo.path)
    monkeypatch.setenv("HOME", str(home))
    for ref in (None, "main", repo.commits[1]):
        into = tmp_path / f"into-{ref}"
        await _clone(f"file://{repo.path}", into, ref)
        assert (into / "number.txt").read_text() in {"2", "3"}
        assert not list((into / ".git" / "hooks").glob("*"))
    assert not ran.exists()


async def test_progress_is_told_in_a_few_clean_lines(server: GitServer, repo: Repo, tmp_path: Path):
    for number in range(400):
        (repo.path / f"f{number}").write_text(str(number) * 50)
    git("add", "-A", cwd=repo.path)
    git("commit", "-q", "-m", "many", cwd=repo.path)
    told: list[str] = []
    await _clone(f"file://{repo.path}", tmp_path / "into", progress=told.append)
    assert told[0] == "Cloning origin"
    assert told[-1].startswith("Cloned origin at ")
    assert "Receiving objects 100%" in told
    assert len(told) < 40
    assert all(line.isprintable() and "\r" not in line for line in told)


async def test_a_display_that_fails_does_not_fail_the_clone(repo: Repo, tmp_path: Path):
    def broken(_: str) -> None:
        raise RuntimeError("no terminal")

    assert await _clone(f"file://{repo.path}", tmp_path / "into", progress=broken) == repo.commits[2]


# ── Private repositories ─────────────────────────────────────────────────────────────────────────────────────


async def _resolver_with_token(url: str) -> dict[str, str]:
    return {"token": TOKEN, "username": "robot"}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("envs", basic(TOKEN)),
        ("address", basic(TOKEN)),
        ("sync", basic(TOKEN, "robot")),
        ("async", basic(TOKEN, "robot")),
    ],
)
async def test_a_private_repository_is_cloned_with_a_token(
    how: str, expected: str, server: GitServer, repo: Repo, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "computeragent")
    asked: list[str] = []

    def resolver(url: str) -> dict[str, str]:
        asked.append(url)
        return {"token": TOKEN, "username": "robot"}

    url = server.url("private/agent.git")
    options: dict[str, Any] = {
        "envs": {"envs": {"GIT_TOKEN": TOKEN}},
        "address": {},
        "sync": {"resolver": resolver},
        "async": {"resolver": _resolver_with_token},
    }[how]
    into = tmp_path / "into"
    told: list[str] = []
    given = url.replace("http://", f"http://{TOKEN}@") if how == "address" else url
    sha = await _clone(given, into, progress=told.append, **options)
    assert sha == repo.commits[2]
    assert server.authorizations() == {expected}
    assert asked == ([url] if how == "sync" else [])
    _assert_no_token(server, into, caplog, told)


def _assert_no_token(server: GitServer, into: Path, caplog: pytest.LogCaptureFixture, told: list[str]) -> None:
    """The token is in no argument of any process, no file of the clone, no log and no line of progress."""
    secrets = [TOKEN, basic(TOKEN).split()[1], basic(TOKEN, "robot").split()[1]]
    assert any("clone" in line for line in server.command_lines)
    assert any("remote-http" in line for line in server.command_lines)
    files = "\n".join(path.read_bytes().decode("latin-1") for path in into.rglob("*") if path.is_file())
    logs = "\n".join(str(record.__dict__) for record in caplog.records)
    for text in (*server.command_lines, files, logs, *told):
        assert not any(secret in text for secret in secrets)


async def test_github_token_goes_to_its_own_host_only(server: GitServer, tmp_path: Path):
    with pytest.raises(SourceError, match="needs authentication"):
        await _clone(server.url("private/agent.git"), tmp_path / "a", envs={"GITHUB_TOKEN": TOKEN})
    assert server.authorizations() == {None}
    enterprise = {"GITHUB_TOKEN": TOKEN, "GITHUB_SERVER_URL": f"http://{server.host}"}
    assert await _clone(server.url("private/agent.git"), tmp_path / "b", envs=enterprise)
    assert basic(TOKEN) in server.authorizations()


async def test_a_token_is_not_sent_to_another_host(server: GitServer, tmp_path: Path):
    """localhost and 127.0.0.1 are one machine and two hosts; the header belongs to the address's host and port."""
    repository = parse_repository(f"http://localhost:{server.port}/public/agent.git")
    private = parse_repository(server.url("private/agent.git"))
    config = dict(_credential(server).git_config(private.scheme, private.host))
    assert config[f"http.http://{server.host}/.extraHeader"].endswith(basic(TOKEN))
    environment = git_environment(os.environ, config.items())
    process = await asyncio.create_subprocess_exec("git", "ls-remote", repository.url, env=environment, stdout=-3)
    await process.wait()
    assert server.authorizations() == {None}


def _credential(server: GitServer):
    credential = parse_repository(server.url("x").replace("http://", f"http://{TOKEN}@")).credential
    assert credential is not None
    return credential


async def test_a_refused_token_is_dropped_for_a_public_repository(
    server: GitServer, repo: Repo, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    sha = await _clone(server.url("strict/agent.git"), tmp_path / "into", envs={"GIT_TOKEN": "stale"})
    assert sha == repo.commits[2]
    assert _warnings(caplog) == [("git_credentials_refused", {"host": server.host})]


class _AnsweredError(Exception):
    """What an HTTP client raises for a status."""


@pytest.mark.parametrize("answer", [401, 403, 404, "none", "nonsense", "hangs"])
async def test_a_resolver_without_an_answer_means_an_anonymous_clone(
    answer: int | str,
    server: GitServer,
    repo: Repo,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("computeragent.identity.credentials._RESOLVER_SECONDS", 0.2)

    async def resolver(url: str) -> Any:
        if isinstance(answer, int):
            raise _AnsweredError(f"HTTP {answer} for {TOKEN}")
        if answer == "hangs":
            await asyncio.sleep(30)
        return None if answer == "none" else ["?"]

    sha = await _clone(server.url("public/agent.git"), tmp_path / "into", resolver=resolver)
    assert sha == repo.commits[2]
    assert server.authorizations() == {None}
    expected = {
        "none": [],
        "nonsense": [("git_credentials_failed", {"host": server.host, "error": "no token in the answer"})],
        "hangs": [("git_credentials_failed", {"host": server.host, "error": "TimeoutError"})],
    }.get(str(answer), [("git_credentials_failed", {"host": server.host, "error": "_AnsweredError"})])
    assert _warnings(caplog) == expected


def _warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [(r.ca_event, r.ca_fields) for r in caplog.records if r.levelno >= logging.WARNING]  # type: ignore[attr-defined]


async def test_a_resolver_is_not_asked_for_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`git@` addresses are left to ssh, which gets the address as it is and no token."""
    seen = tmp_path / "ssh-saw"
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" > {seen}\nenv | grep -c extraHeader >> {seen}\nexit 255\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    asked: list[str] = []
    with pytest.raises(SourceError):
        await _clone("git@git.invalid:o/r.git", tmp_path / "into", envs={"GIT_TOKEN": TOKEN}, resolver=asked.append)
    assert asked == []
    assert "git@git.invalid git-upload-pack 'o/r.git'" in seen.read_text()
    assert TOKEN not in seen.read_text()


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _refused(url: str, tmp_path: Path, ref: str | None = None, **options: Any) -> tuple[str, str | None]:
    with pytest.raises(SourceError) as caught:
        await _clone(url, tmp_path / "into", ref, **options)
    assert caught.value.code == "SOURCE_UNAVAILABLE"
    for secret in (TOKEN, basic(TOKEN).split()[1], str(tmp_path)):
        assert secret not in f"{caught.value} {caught.value.hint} {caught.value.details}"
    assert not (tmp_path / "into").exists()
    return str(caught.value), caught.value.hint


async def test_an_unknown_host(tmp_path: Path):
    message, hint = await _refused("https://no-such-host.invalid/org/repo", tmp_path)
    assert message == "cannot reach no-such-host.invalid: the host name does not resolve"
    assert hint == "Check the spelling, the network and the proxy settings."


async def test_a_host_that_refuses_the_connection(tmp_path: Path):
    port = _free_port()
    message, _ = await _refused(f"http://127.0.0.1:{port}/org/repo", tmp_path)
    assert message == f"cannot reach 127.0.0.1:{port}: connection refused"


async def test_a_private_repository_without_a_token(server: GitServer, tmp_path: Path):
    assert await _refused(server.url("private/agent.git"), tmp_path) == (
        f"{server.host}/private/agent needs authentication",
        "Set GIT_TOKEN in envs, or use a git@ address with your ssh key.",
    )


async def test_a_private_repository_with_a_wrong_token(server: GitServer, tmp_path: Path):
    assert await _refused(server.url("private/agent.git"), tmp_path, envs={"GIT_TOKEN": "wrong"}) == (
        f"{server.host} refused the token for {server.host}/private/agent",
        "Check that the token is valid and may read the repository.",
    )
    assert server.authorizations() == {basic("wrong"), None}


async def test_a_forbidden_repository(server: GitServer, tmp_path: Path):
    message, _ = await _refused(server.url("forbidden/agent.git"), tmp_path)
    assert message == f"{server.host}/forbidden/agent needs authentication"


async def test_a_repository_that_does_not_exist(server: GitServer, tmp_path: Path):
    assert await _refused(server.url("public/nothing.git"), tmp_path) == (
        f"there is no repository {server.host}/public/nothing",
        "Check the spelling; if it is private, set GIT_TOKEN in envs.",
    )
    message, _ = await _refused(server.url("public/nothing.git"), tmp_path, envs={"GIT_TOKEN": TOKEN})
    assert message == f"there is no repository {server.host}/public/nothing, or the token may not read it"


async def test_a_file_repository_that_does_not_exist(tmp_path: Path):
    message, _ = await _refused(f"file://{tmp_path}/nothing", tmp_path)
    assert message == "there is no repository nothing"


async def test_a_ref_that_is_close_to_others(server: GitServer, tmp_path: Path):
    assert await _refused(server.url("public/agent.git"), tmp_path, "v3") == (
        f"ref 'v3' not found in {server.host}/public/agent",
        "Did you mean v2 or v1? Branches and tags there: feature/one, main, v1, v2.",
    )


@pytest.mark.parametrize("ref", ["zzzzzzzzzzz", "refs/pull/9/head"])
async def test_a_ref_that_is_like_no_other(ref: str, server: GitServer, tmp_path: Path):
    assert await _refused(server.url("public/agent.git"), tmp_path, ref) == (
        f"ref {ref!r} not found in {server.host}/public/agent",
        "Branches and tags there: feature/one, main, v1, v2.",
    )


@pytest.mark.parametrize("sha", ["0123456789abcdef0123456789abcdef01234567", "0badcafe"])
async def test_a_commit_that_does_not_exist(sha: str, server: GitServer, tmp_path: Path):
    message, hint = await _refused(server.url("public/agent.git"), tmp_path, sha)
    assert message == f"ref '{sha}' not found in {server.host}/public/agent"
    assert hint == "Branches and tags there: feature/one, main, v1, v2."


async def test_a_ref_is_never_an_option(repo: Repo, tmp_path: Path):
    with pytest.raises(ValidationError, match=r"^ref '--upload-pack=touch x' is not valid$"):
        await _clone(f"file://{repo.path}", tmp_path / "into", "--upload-pack=touch x")


async def test_git_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await _refused("https://h.invalid/a", tmp_path) == (
        "git is not installed",
        "Install git, or use a local directory.",
    )


# ── Time and cancellation ────────────────────────────────────────────────────────────────────────────────────


async def test_a_clone_that_takes_too_long_is_ended(server: GitServer, tmp_path: Path):
    assert await _refused(server.url("hang/agent.git"), tmp_path, timeout=0.5) == (
        f"cloning {server.host}/hang/agent took longer than 0.5 s",
        "Check the network, or clone it yourself and give the directory.",
    )
    await _no_process_left(server)


async def test_a_cancelled_clone_leaves_no_process_and_no_files(server: GitServer, tmp_path: Path):
    task = asyncio.create_task(_clone(server.url("hang/agent.git"), tmp_path / "into"))
    while not server.requests:
        await asyncio.sleep(0.01)
    assert _processes(server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _no_process_left(server)
    assert not (tmp_path / "into").exists()


def _processes(server: GitServer) -> list[str]:
    return [line for line in command_lines() if f"{server.host}/hang" in line]


async def _no_process_left(server: GitServer) -> None:
    deadline = time.monotonic() + 30
    while _processes(server) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert _processes(server) == []


# ── Environment and HEAD ─────────────────────────────────────────────────────────────────────────────────────


def test_git_gets_a_small_environment_of_its_own():
    base = {
        "PATH": "/bin",
        "HOME": "/h",
        "https_proxy": "http://p",
        "SSL_CERT_FILE": "/c",
        "SSH_AUTH_SOCK": "/s",
        "ANTHROPIC_API_KEY": "canary",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "GITHUB_TOKEN": "canary",
        "GIT_DIR": "/elsewhere",
        "GIT_WORK_TREE": "/elsewhere",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "Me",
        "GIT_CONFIG_KEY_1": "core.editor",
        "GIT_CONFIG_VALUE_1": "vi",
    }
    made = git_environment(base, [("mine.key", "value")])
    assert "canary" not in made.values()
    assert not {"GIT_DIR", "GIT_WORK_TREE"} & made.keys()
    assert made["GIT_TERMINAL_PROMPT"] == "0"
    assert made["GIT_ALLOW_PROTOCOL"] == "https:http:ssh:git"
    assert {made[name] for name in ("PATH", "HOME", "https_proxy", "SSL_CERT_FILE", "SSH_AUTH_SOCK")} == {
        *("/bin", "/h", "http://p", "/c", "/s")
    }
    count = int(made["GIT_CONFIG_COUNT"])
    keys = [made[f"GIT_CONFIG_KEY_{index}"] for index in range(count)]
    assert keys[:2] == ["user.name", "core.editor"]
    assert keys[-1] == "mine.key"
    assert "core.hooksPath" in keys


@pytest.mark.parametrize("count", ["", "x", "-1", "9999999", "1e3", "²"])
def test_a_broken_config_count_is_ignored(count: str):
    made = git_environment({"GIT_CONFIG_COUNT": count})
    assert int(made["GIT_CONFIG_COUNT"]) < 30


async def test_the_commit_of_a_checkout(repo: Repo, tmp_path: Path):
    assert await head_commit(repo.path) == repo.commits[2]
    assert await head_commit(repo.path / "agents" / "triage") == repo.commits[2]
    (tmp_path / "plain").mkdir()
    assert await head_commit(tmp_path / "plain") is None
    (tmp_path / "plain" / ".git").mkdir()
    assert await head_commit(tmp_path / "plain") is None
