"""What users write as a source, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from computeragent.errors import ValidationError
from computeragent.identity.repository import check_ref, parse_repository
from computeragent.identity.sources import parse_source
from computeragent.wire.identity import GitSource, InlineSource, LocalSource


@pytest.mark.parametrize("text", [".", "..", "./agent", "../agent", "/srv/agent", "~", "~/agent", "~user/agent"])
def test_a_string_that_looks_like_a_path_is_a_directory(text: str):
    assert parse_source(text) == LocalSource(path=text)


def test_a_path_is_a_directory():
    assert parse_source(Path("agents/hello")) == LocalSource(path="agents/hello")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.com/org/repo", GitSource(url="github.com/org/repo")),
        (" github.com/org/repo ", GitSource(url="github.com/org/repo")),
        ("github.com/org/repo?ref=v1.2", GitSource(url="github.com/org/repo", ref="v1.2")),
        ("git.corp.example:8443/a/b.git", GitSource(url="git.corp.example:8443/a/b.git")),
        ("localhost/a", GitSource(url="localhost/a")),
        ("https://host/a?subdir=x/y&ref=feature/z", GitSource(url="https://host/a", ref="feature/z", subdir="x/y")),
        ("https://host/a?token=1&ref=z", GitSource(url="https://host/a?token=1", ref="z")),
        ("https://host/a?ref=", GitSource(url="https://host/a")),
        ("git@github.com:org/repo.git?ref=main", GitSource(url="git@github.com:org/repo.git", ref="main")),
        ("ssh://git@host:22/a", GitSource(url="ssh://git@host:22/a")),
        ("file:///srv/repo", GitSource(url="file:///srv/repo")),
    ],
)
def test_any_other_string_is_a_repository(text: str, expected: GitSource):
    assert parse_source(text) == expected


def test_a_mapping_goes_by_its_type():
    git = {"type": "git", "url": "host.example/a?ref=v1", "subdir": "x", "ref": None}
    assert parse_source(git) == GitSource(url="host.example/a", ref="v1", subdir="x")
    assert parse_source({"type": "local", "path": "x"}) == LocalSource(path="x")
    inline = {"type": "inline", "manifest": {"name": "a"}, "files": {"SOUL.md": "hi"}}
    assert parse_source(inline) == InlineSource(manifest={"name": "a"}, files={"SOUL.md": "hi"})
    assert parse_source({"type": "inline", "files": {"x": ""}}) == InlineSource(manifest={}, files={"x": ""})


def test_a_mapping_without_type_is_a_manifest():
    assert parse_source({"name": "a", "options": {}}) == InlineSource(manifest={"name": "a", "options": {}})
    assert parse_source({}) == InlineSource(manifest={})


def test_a_source_object_is_itself():
    for source in (LocalSource(path="x"), InlineSource(manifest={}), GitSource(url="h.example/a", ref="r")):
        assert parse_source(source) == source


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (
            "org/repo",
            "'org/repo' is neither a directory nor a repository",
            "Write ./org/repo for a directory, or github.com/org/repo for a repository.",
        ),
        ("", "source is empty", 'Give a directory ("./agent") or a repository (host/org/repo).'),
        (
            7,
            "source must be a path, a string or a mapping, got int",
            'For example Path("agents/hello"), "github.com/org/repo", or {"type": "git", "url": …}.',
        ),
        (
            {"type": "git", "url": "h.example/a", "subDir": "x"},
            "unknown key 'subDir' in a git source",
            "Did you mean 'subdir'? Allowed: url, ref, subdir.",
        ),
        ({"type": "local", "dir": "x"}, "unknown key 'dir' in a local source", "Allowed: path."),
        ({"type": "github", "url": "x"}, "source type 'github' is not known", "Use git, local or inline."),
        ({"type": "git"}, "a git source needs 'url'", "Allowed keys: url, ref, subdir."),
        ({"type": "git", "url": 5}, "url of a git source must be a string, got int", "Allowed keys: url, ref, subdir."),
        (
            {"type": "inline", "manifest": []},
            "manifest of an inline source must be a mapping, got list",
            "Allowed keys: manifest, files.",
        ),
        (
            {"type": "inline", "files": {"a": 1}},
            "inline file 'a' must be a string",
            "files maps relative paths to text.",
        ),
        ({"url": "github.com/org/repo"}, "the source has no type", 'Add "type": "git".'),
        ({"path": "."}, "the source has no type", 'Add "type": "local".'),
        ({"manifest": {"name": "a"}}, "the source has no type", 'Add "type": "inline".'),
        (
            {"type": "git", "url": "h.example/a?ref=one", "ref": "two"},
            "ref is given twice, and differently",
            "Give it once.",
        ),
    ],
)
def test_what_is_wrong_is_said(value: object, message: str, hint: str):
    with pytest.raises(ValidationError) as caught:
        parse_source(value)
    assert (str(caught.value), caught.value.hint) == (message, hint)


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "url", "scheme", "host", "name"),
    [
        ("github.com/org/repo", "https://github.com/org/repo", "https", "github.com", "github.com/org/repo"),
        ("https://h.example/a.git", "https://h.example/a.git", "https", "h.example", "h.example/a"),
        ("http://h.example:81/a?x=1#y", "http://h.example:81/a?x=1", "http", "h.example:81", "h.example:81/a"),
        ("h.example:8443/a", "https://h.example:8443/a", "https", "h.example:8443", "h.example:8443/a"),
        ("https://[::1]:3000/a", "https://[::1]:3000/a", "https", "[::1]:3000", "[::1]:3000/a"),
        ("git@h.example:o/r.git", "git@h.example:o/r.git", "ssh", "h.example", "h.example/o/r"),
        ("alias:o/r", "alias:o/r", "ssh", "alias", "alias/o/r"),
        ("ssh://git@h.example/o/r", "ssh://git@h.example/o/r", "ssh", "h.example", "h.example/o/r"),
        ("git://h.example/o/r", "git://h.example/o/r", "git", "h.example", "h.example/o/r"),
    ],
)
def test_an_address_is_taken_apart(text: str, url: str, scheme: str, host: str, name: str):
    found = parse_repository(text)
    assert (found.url, found.scheme, found.host, found.name) == (url, scheme, host, name)


@pytest.mark.parametrize(
    ("text", "username", "token"),
    [
        ("https://tok@h.example/a", "x-access-token", "tok"),
        ("https://me:to%2Fk@h.example/a", "me", "to/k"),
        ("https://:tok@h.example/a", "x-access-token", "tok"),
    ],
)
def test_a_token_in_an_address_is_taken_out_of_it(text: str, username: str, token: str):
    found = parse_repository(text)
    assert found.url == "https://h.example/a"
    assert found.credential is not None
    assert (found.credential.username, found.credential.token) == (username, token)
    assert "tok" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ext::sh -c id", "the git address is empty or has characters that no address has"),
        ("ext::sh", "git addresses with 'ext' are not allowed"),
        ("fd::3", "git addresses with 'fd' are not allowed"),
        ("ftp://h.example/a", "git addresses with 'ftp' are not allowed"),
        ("file:///srv/repo", "git addresses with 'file' are not allowed"),
        ("--upload-pack=id", "the git address is empty or has characters that no address has"),
        ("-oProxyCommand=id@h:x", "the git address is empty or has characters that no address has"),
        ("ssh://-oProxyCommand=id/x", "the git address has no valid host"),
        ("git@-oProxyCommand=id:x", "the git address is not valid"),
        ("https:///org/repo", "the git address has no valid host"),
        ("https://h.example:port/x", "the git address has no valid host"),
        ("https://h.example/a\nb", "the git address is empty or has characters that no address has"),
        ("https://h.example/a\0b", "the git address is empty or has characters that no address has"),
        ("/srv/repo", "a git source needs an address, not a path"),
        ("../repo", "a git source needs an address, not a path"),
        ("", "the git address is empty or has characters that no address has"),
    ],
)
def test_an_address_that_could_do_harm_is_refused(text: str, message: str):
    with pytest.raises(ValidationError) as caught:
        parse_repository(text)
    assert str(caught.value) == message
    assert caught.value.hint


@pytest.mark.parametrize(
    "ref", ["main", "feature/one", "v1.2.3", "a" * 40, "refs/pull/7/head", "grün", "dev@home", "#7"]
)
def test_a_branch_tag_or_commit_is_a_ref(ref: str):
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    ["", "-x", "--upload-pack=id", "a b", "a..b", "a~1", "a^", "a:b", "x.lock", "/a", "a/", "a@{1}", "a\nb", "[a"],
)
def test_what_git_would_not_take_as_a_ref_is_refused(ref: str):
    with pytest.raises(ValidationError, match=r"is not valid$"):
        check_ref(ref)
