"""The path jail: no path, link or race leaves it, with openat2 and without."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeragent import jail as jail_module
from computeragent.errors import ComputerAgentError, NotFoundError, PathEscapeError, WorkspaceError
from computeragent.jail import Jail

SECRET = b"the secret outside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A workspace full of traps."""
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file.txt").write_bytes(b"inside")
    (root / "sub" / "note.md").write_bytes(b"note")
    for name, target in {
        "out": outside,
        "out-relative": Path("../outside"),
        "out-file": outside / "secret.txt",
        "out-file-relative": Path("../outside/secret.txt"),
        "out-new": outside / "new.txt",
        "out-new-relative": Path("../outside/new.txt"),
        "hop": Path("out-relative"),
        "sub/up": Path("../../outside"),
        "slash": Path("/"),
        "etc": Path("/etc"),
        "proc": Path("/proc/self/root"),
        "proc-cwd": Path("/proc/self/cwd"),
        "loop": Path("loop"),
        "loop-a": Path("loop-b"),
        "loop-b": Path("loop-a"),
        "dangling": Path("nowhere"),
        "parent": Path(".."),
    }.items():
        (root / name).symlink_to(target)
    return root


@pytest.fixture(params=["openat2", "walk"])
def either(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Jail:
    """The jail with the kernel's help and without it."""
    if request.param == "walk":
        monkeypatch.setattr(jail_module, "_openat2", lambda: None)
    elif jail_module._openat2() is None:
        pytest.skip("this kernel has no openat2")
    return Jail(root)


# ── Paths that are refused for what they say ─────────────────────────────────────────────────────────────────

REFUSED = [
    *("..", "../", "../outside/secret.txt", "../../etc/passwd", "./..", "./../outside", "sub/..", "sub/../file.txt"),
    *("sub/../../outside/secret.txt", "a/../../b", "sub/deep/../../../outside", "x/y/../../..", ".//..//outside"),
    *("/", "//", "/etc/passwd", "//etc/passwd", "/proc/self/root/etc/passwd", "/../etc", "/./", "/\t"),
    *("", " ", "\t", "\n", "   \n "),
    *("\0", "file.txt\0", "\0../outside", "file.txt\0.png", "sub/\0/x"),
    *("a" * 256, "é" * 128, f"sub/{'b' * 256}", "/".join(["c" * 100] * 60), "d/" * 2500),
    *("half \ud800", "\udc00/x", "sub/\ud83d"),
]


@pytest.mark.parametrize("path", REFUSED, ids=ascii)
def test_a_path_that_leaves_or_cannot_be_is_refused_by_every_operation(path: str, root: Path, outside: Path):
    jail = Jail(root)
    before = _snapshot(root.parent)
    for operation in _operations(jail, path):
        with pytest.raises((PathEscapeError, WorkspaceError)) as caught:
            operation()
        assert str(root) not in str(caught.value)
        assert caught.value.hint
    assert _snapshot(root.parent) == before


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", WorkspaceError, "path must be a non-empty string"),
        (None, WorkspaceError, "path must be a non-empty string"),
        (7, WorkspaceError, "path must be a non-empty string"),
        (b"file.txt", WorkspaceError, "path must be a non-empty string"),
        ("a\0b", WorkspaceError, "path contains a null byte"),
        ("/etc/passwd", PathEscapeError, "absolute paths are not allowed"),
        ("../x", PathEscapeError, "parent traversal is not allowed"),
        ("sub/../../x", PathEscapeError, "parent traversal is not allowed"),
        ("a" * 256, WorkspaceError, "path is too long"),
        ("a\ud800", WorkspaceError, "text is not valid Unicode"),
        ("out/secret.txt", PathEscapeError, "out/secret.txt resolves outside the workspace"),
        ("loop", PathEscapeError, "loop goes through a link that cannot be followed"),
        ("missing.txt", NotFoundError, "missing.txt does not exist"),
        ("sub", WorkspaceError, "sub is a directory"),
        ("file.txt/x", WorkspaceError, "file.txt/x is not a directory, or goes through a file"),
        ("bell\x07", NotFoundError, "bell\\x07 does not exist"),
    ],
)
def test_the_message_says_what_is_wrong(path: str, error: type[ComputerAgentError], message: str, root: Path):
    with pytest.raises(error) as caught:
        Jail(root).read_bytes(path)
    assert type(caught.value) is error
    assert str(caught.value) == message


# ── Links ────────────────────────────────────────────────────────────────────────────────────────────────────

ESCAPES = [
    *("out/secret.txt", "out-relative/secret.txt", "out-file", "out-file-relative", "hop/secret.txt"),
    *("sub/up/secret.txt", "etc/passwd", "slash/etc/passwd", "proc/etc/passwd", "proc-cwd/file.txt"),
    *("parent/outside/secret.txt", "./out/./secret.txt", "sub//up//secret.txt", "hop//secret.txt"),
    *("loop", "loop/x", "loop-a", "loop-b/x", "parent/root/file.txt"),
]
NEW_ESCAPES = [
    *("out/new.txt", "out-relative/new.txt", "out-new", "out-new-relative", "hop/new.txt", "sub/up/new.txt"),
    *("out/a/b/c.txt", "hop/a/b.txt", "parent/new.txt", "parent/outside/new.txt", "slash/tmp/ca-new.txt"),
    *("proc/tmp/ca-new.txt", "proc-cwd/ca-new.txt", "loop/new.txt", "loop"),
]


@pytest.mark.parametrize("path", ESCAPES)
def test_nothing_outside_is_read_through_a_link(path: str, either: Jail):
    with pytest.raises(ComputerAgentError):
        either.read_bytes(path)


@pytest.mark.parametrize("path", NEW_ESCAPES)
def test_nothing_outside_is_written_through_a_link(path: str, either: Jail, outside: Path):
    before = _snapshot(outside)
    for operation in (lambda: either.write_bytes(path, b"x"), lambda: either.edit(path, "secret", "x")):
        with pytest.raises(ComputerAgentError):
            operation()
    assert _snapshot(outside) == before


@pytest.mark.parametrize(
    "path", ["out/made", "hop/made", "sub/up/made", "parent/made", "out/a/b", "etc/made", "loop/x"]
)
def test_no_directory_is_made_outside(path: str, either: Jail, outside: Path):
    before = _snapshot(outside.parent)
    for parents in (False, True):
        with pytest.raises(ComputerAgentError):
            either.mkdir(path, parents=parents)
    assert _snapshot(outside.parent) == before


@pytest.mark.parametrize("path", ["out/secret.txt", "hop/secret.txt", "sub/up/secret.txt", "parent/outside"])
def test_nothing_outside_is_deleted_or_moved(path: str, either: Jail, outside: Path):
    before = _snapshot(outside)
    for operation in (
        lambda: either.delete(path, recursive=True),
        lambda: either.move(path, "stolen"),
        lambda: either.move("file.txt", path),
        lambda: either.move("file.txt", f"{path}/x"),
    ):
        with pytest.raises(ComputerAgentError):
            operation()
    assert _snapshot(outside) == before


@pytest.mark.parametrize("path", ["out", "out-relative", "hop", "sub/up", "slash", "etc", "proc", "loop", "parent"])
def test_nothing_outside_is_listed(path: str, either: Jail):
    with pytest.raises(ComputerAgentError):
        either.tree(path)
    with pytest.raises(ComputerAgentError):
        either.directory(path)


@pytest.mark.parametrize("name", ["out", "out-file", "hop", "dangling", "loop", "slash", "etc", "proc", "parent"])
def test_deleting_a_link_deletes_the_link(name: str, either: Jail, root: Path, outside: Path):
    before = _snapshot(outside)
    either.delete(name, recursive=True)
    assert not (root / name).is_symlink()
    assert _snapshot(outside) == before
    assert Path("/etc/passwd").exists()


def test_deleting_a_tree_removes_links_in_it_and_not_what_they_point_to(either: Jail, root: Path, outside: Path):
    (root / "sub" / "deep" / "etc").symlink_to("/etc")
    either.delete("sub", recursive=True)
    assert not (root / "sub").exists()
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_moving_a_link_moves_the_link(either: Jail, root: Path, outside: Path):
    either.move("out-file", "sub/moved")
    assert (root / "sub" / "moved").is_symlink()
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_links_that_stay_inside_are_followed(root: Path):
    if jail_module._openat2() is None:
        pytest.skip("this kernel has no openat2")
    (root / "inner").symlink_to("sub/deep")
    (root / "sub" / "deep" / "back").symlink_to("../../file.txt")
    jail = Jail(root)
    assert jail.read_bytes("inner/back") == b"inside"
    jail.write_bytes("inner/new.txt", b"new")
    assert (root / "sub" / "deep" / "new.txt").read_bytes() == b"new"
    jail.write_bytes("inner/back", b"changed")
    assert (root / "file.txt").read_bytes() == b"changed"
    assert (root / "sub" / "deep" / "back").is_symlink()
    jail.write_bytes("dangling", b"found")
    assert (root / "nowhere").read_bytes() == b"found"
    assert jail.directory("inner") == (root / "sub" / "deep").resolve()


def test_without_openat2_every_link_on_the_way_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jail_module, "_openat2", lambda: None)
    (root / "inner").symlink_to("sub")
    with pytest.raises(PathEscapeError):
        Jail(root).read_bytes("inner/note.md")
    assert Jail(root).read_bytes("sub/note.md") == b"note"


def test_writing_to_a_hard_link_leaves_its_other_name_alone(either: Jail, root: Path, outside: Path):
    os.link(outside / "secret.txt", root / "hard")
    either.write_bytes("hard", b"mine")
    either.edit("hard", "mine", "still mine")
    assert (outside / "secret.txt").read_bytes() == SECRET
    assert (root / "hard").read_bytes() == b"still mine"


def test_a_link_to_a_hard_link_is_not_written_through(root: Path, outside: Path):
    os.link(outside / "secret.txt", root / "hard")
    (root / "soft").symlink_to("hard")
    with pytest.raises((WorkspaceError, PathEscapeError)):
        Jail(root).write_bytes("soft", b"x")
    assert (outside / "secret.txt").read_bytes() == SECRET


# ── Things that are not files ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def special(root: Path) -> Path:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return root


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["fifo", "socket", "null"])
def test_a_pipe_socket_or_device_is_never_opened_blocking(name: str, special: Path, either: Jail):
    if not (special / name).exists():
        pytest.skip("only root can make a device")
    for operation in (
        lambda: either.read_bytes(name),
        lambda: either.write_bytes(name, b"x"),
        lambda: either.edit(name, "a", "b"),
        lambda: either.write_bytes(f"{name}/x", b"x"),
    ):
        with pytest.raises(WorkspaceError) as caught:
            operation()
    either.delete(name)
    assert caught.value.code == "WORKSPACE"


@pytest.mark.timeout(60)
def test_a_link_to_a_pipe_is_not_opened_blocking(special: Path):
    (special / "to-fifo").symlink_to("fifo")
    for operation in (
        lambda: Jail(special).read_bytes("to-fifo"),
        lambda: Jail(special).write_bytes("to-fifo", b"x"),
    ):
        with pytest.raises(ComputerAgentError):
            operation()


# ── Names that look dangerous and are not ────────────────────────────────────────────────────────────────────

FINE = [
    *(
        "..cache",
        "...",
        "..a/b",
        "a..b",
        ".hidden",
        "-rf",
        "--",
        "~",
        "~root/x",
        "$HOME",
        "a b",
        " leading",
        "trailing ",
    ),
    *("%2e%2e", "%2e%2e%2fetc", "..%2f", "..\\..\\etc", "C:\\x", "con", "nul.txt", "x;rm -rf .", "`id`", "new\nline"),
    *("．．", "․․", "a/．．/b", "caf\u00e9", "cafe\u0301", "\u202egnp.exe", "🦊/🐢.md", "FILE.TXT", "File.txt"),
    *("a" * 255, "é" * 127, "/".join("abcdefghij" * 9), "a//b", "./c/./d", "e/"),
]


@pytest.mark.parametrize("name", FINE, ids=ascii)
def test_an_odd_name_is_an_ordinary_name(name: str, either: Jail, root: Path):
    assert either.write_bytes(name, b"odd") == 3
    assert either.read_bytes(name) == b"odd"
    assert (root / name).read_bytes() == b"odd"
    assert either.edit(name, "odd", "fine") == 1
    either.move(name, "moved")
    assert either.read_bytes("moved") == b"fine"


def test_case_and_unicode_forms_are_different_names(either: Jail):
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    for name in (composed, decomposed, "A", "a"):
        either.write_bytes(name, name.encode())
    for name in (composed, decomposed, "A", "a"):
        assert either.read_bytes(name) == name.encode()


# ── Reading, writing, editing ────────────────────────────────────────────────────────────────────────────────


def test_writing_makes_parents_and_replaces_whole(either: Jail, root: Path):
    either.write_bytes("a/b/c.txt", b"long content")
    either.write_bytes("a/b/c.txt", b"short")
    assert (root / "a/b/c.txt").read_bytes() == b"short"
    assert [path.name for path in (root / "a/b").iterdir()] == ["c.txt"]


def test_a_replaced_file_keeps_its_permissions(either: Jail, root: Path):
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    either.edit("run.sh", "sh", "bash")
    assert stat.S_IMODE((root / "run.sh").stat().st_mode) == 0o750
    either.write_bytes("secret", b"", mode=0o600)
    assert stat.S_IMODE((root / "secret").stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jail_module, "_write_all", full)
    with pytest.raises(WorkspaceError, match=r"file\.txt: No space left on device"):
        Jail(root).write_bytes("file.txt", b"x")
    assert (root / "file.txt").read_bytes() == b"inside"
    assert not list(root.glob("*.tmp"))


def test_a_file_larger_than_the_limit_is_not_read(either: Jail, root: Path):
    with (root / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(WorkspaceError, match="huge has 1099511627776 bytes"):
        either.read_bytes("huge")


@pytest.mark.parametrize(
    ("content", "old", "new", "replace_all", "count", "after"),
    [
        ("foo foo", "foo", "bar", False, 1, "bar foo"),
        ("foo foo", "foo", "bar", True, 2, "bar bar"),
        ("foo foo", "foo", "foo", True, 2, "foo foo"),
        ("aaaa", "aa", "b", True, 2, "bb"),
        ("a\r\nb", "\r\n", "\n", True, 1, "a\nb"),
        ("grün", "ü", "u", False, 1, "grun"),
        ("x", "x", "", False, 1, ""),
        ("$1 \\1", "$1 \\1", "\\0", False, 1, "\\0"),
    ],
)
def test_edit_replaces_and_counts(
    content: str, old: str, new: str, replace_all: bool, count: int, after: str, either: Jail, root: Path
):
    (root / "file.txt").write_bytes(content.encode())
    assert either.edit("file.txt", old, new, replace_all=replace_all) == count
    assert (root / "file.txt").read_bytes() == after.encode()


def test_edit_leaves_bytes_that_are_no_text_alone(either: Jail, root: Path):
    (root / "file.txt").write_bytes(b"\xff\xfe foo \x80")
    either.edit("file.txt", "foo", "bar")
    assert (root / "file.txt").read_bytes() == b"\xff\xfe bar \x80"


@pytest.mark.parametrize("replace_all", [False, True])
def test_edit_says_what_is_wrong(either: Jail, replace_all: bool):
    with pytest.raises(WorkspaceError, match=r"^the text to replace must not be empty$"):
        either.edit("file.txt", "", "x", replace_all=replace_all)
    with pytest.raises(WorkspaceError, match=r"^old_string not found in file\.txt$"):
        either.edit("file.txt", "absent", "x", replace_all=replace_all)
    with pytest.raises(NotFoundError, match=r"^missing\.txt does not exist$"):
        either.edit("missing.txt", "a", "b", replace_all=replace_all)


# ── Directories ──────────────────────────────────────────────────────────────────────────────────────────────


def test_mkdir(either: Jail, root: Path):
    either.mkdir("new")
    either.mkdir("x/y/z", parents=True)
    either.mkdir("x/y/z", parents=True)
    either.mkdir(".", parents=True)
    assert (root / "x/y/z").is_dir()
    with pytest.raises(WorkspaceError, match=r"^new exists already$"):
        either.mkdir("new")
    with pytest.raises(NotFoundError, match=r"^p/q does not exist$"):
        either.mkdir("p/q")
    with pytest.raises(WorkspaceError):
        either.mkdir("file.txt", parents=True)
    with pytest.raises(WorkspaceError, match=r"^the workspace itself exists already$"):
        either.mkdir(".")


def test_move_makes_parents_and_overwrites(either: Jail, root: Path):
    either.move("file.txt", "a/b/moved.txt")
    either.move("sub/note.md", "a/b/moved.txt")
    assert (root / "a/b/moved.txt").read_bytes() == b"note"
    with pytest.raises(NotFoundError, match=r"^file\.txt does not exist$"):
        either.move("file.txt", "never/made.txt")
    assert not (root / "never").exists()
    with pytest.raises(WorkspaceError):
        either.move("a", "a/b/c")


@pytest.mark.parametrize("path", [".", "./", "./."])
def test_the_root_is_never_deleted_moved_or_written(path: str, either: Jail, root: Path):
    message = "^the workspace itself cannot be written, moved or deleted$"
    for operation in (
        lambda: either.delete(path, recursive=True),
        lambda: either.move(path, "x"),
        lambda: either.move("file.txt", path),
        lambda: either.write_bytes(path, b""),
    ):
        with pytest.raises(WorkspaceError, match=message):
            operation()
    assert (root / "file.txt").exists()


def test_delete_wants_recursive_for_what_is_in_a_directory(either: Jail, root: Path):
    with pytest.raises(WorkspaceError, match=r"^sub is a directory that is not empty$"):
        either.delete("sub")
    either.delete("sub/deep")
    either.delete("sub", recursive=True)
    either.delete("file.txt")
    with pytest.raises(NotFoundError, match=r"^file\.txt does not exist$"):
        either.delete("file.txt")
    assert not (root / "sub").exists()


def test_a_tree_deeper_than_any_path_is_deleted(either: Jail, root: Path):
    here = os.open(root, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("nested-directory", dir_fd=here)
        inner = os.open("nested-directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    either.delete("nested-directory", recursive=True)
    assert not (root / "nested-directory").exists()


def test_read_only_directories_are_deleted(either: Jail, root: Path):
    (root / "cache/pkg/sub/leaf").mkdir(parents=True)
    (root / "cache/pkg/f").write_bytes(b"")
    for path in ("cache/pkg/sub/leaf", "cache/pkg/sub", "cache/pkg", "cache"):
        (root / path).chmod(0o555)
    either.delete("cache", recursive=True)
    assert not (root / "cache").exists()


# ── Listing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_is_sorted_and_shows_links_as_they_are(either: Jail, root: Path):
    listed = {entry.path: entry for entry in either.tree(depth=0)}
    assert list(listed) == sorted(path.name for path in root.iterdir())
    assert listed["dangling"].type == "symlink"
    assert listed["loop"].type == "symlink"
    assert listed["out"].type == "symlink"
    assert listed["sub"].type == "dir"
    file = listed["file.txt"]
    assert (file.type, file.size, file.mode) == ("file", 6, (root / "file.txt").stat().st_mode)
    assert abs(file.mtime - time.time() * 1000) < 60_000


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, ["a"]),
        (1, ["a", "a/b"]),
        (2, ["a", "a/b", "a/b/c"]),
        (8, ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f", *(f"a/b/c/d/e/f/{x}" for x in ("g", "g/h"))]),
        (-1, ["a", "a/b"]),
        (99, ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f", *(f"a/b/c/d/e/f/{x}" for x in ("g", "g/h"))]),
    ],
)
def test_depth_counts_levels_below_the_children(depth: int, expected: list[str], tmp_path: Path):
    (tmp_path / "top/a/b/c/d/e/f/g/h").mkdir(parents=True)
    jail = Jail(tmp_path)
    found = [entry.path for entry in jail.tree("top", depth=depth)]
    assert found[: len(expected)] == expected
    assert len(found) == len(expected)


def test_a_name_that_is_no_utf_8_does_not_break_the_listing(either: Jail, root: Path):
    os.close(os.open(os.fsencode(root) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    paths = [entry.path for entry in either.tree(depth=0)]
    assert "bad\ufffd" in paths
    assert all(path.encode() for path in paths)


def test_listing_says_what_is_wrong(either: Jail):
    with pytest.raises(WorkspaceError, match=r"^file\.txt is not a directory, or goes through a file$"):
        either.tree("file.txt")
    with pytest.raises(NotFoundError, match=r"^missing does not exist$"):
        either.tree("missing")


def test_a_root_that_is_gone_is_said_without_its_path(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"^the workspace directory does not exist$"):
        Jail(tmp_path / "nowhere").tree()


# ── Races ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns often enough to meet in the middle of an operation."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("hurried")
def test_a_directory_swapped_for_a_link_at_any_moment_lets_nothing_out(either: Jail, root: Path, outside: Path):
    """A thread swaps ``swap`` between a directory and a link to the outside while every operation runs."""
    (root / "real").mkdir()
    (root / "real" / "secret.txt").write_bytes(b"decoy")
    (root / "link").symlink_to(outside)
    (root / "real").rename(root / "swap")
    before = _snapshot(outside)
    stop = threading.Event()
    swaps = 0

    def swapper() -> None:
        nonlocal swaps
        while not stop.is_set():
            try:
                (root / "swap").rename(root / "real")
                (root / "link").rename(root / "swap")
                (root / "swap").rename(root / "link")
                (root / "real").rename(root / "swap")
            except OSError:  # an operation under test made something of that name
                _settle(root, outside)
            swaps += 1

    thread = threading.Thread(target=swapper)
    thread.start()
    try:
        deadline = time.monotonic() + 4
        done = 0
        while done < 3000 and time.monotonic() < deadline:
            done += 1
            for operation in (
                lambda: either.read_bytes("swap/secret.txt"),
                lambda: either.write_bytes("swap/new.txt", b"x"),
                lambda: either.mkdir("swap/made"),
                lambda: either.move("file.txt", "swap/file.txt"),
                lambda: either.move("swap/file.txt", "file.txt"),
                lambda: either.edit("swap/secret.txt", "decoy", "decoy"),
                lambda: either.tree("swap", depth=2),
                lambda: either.delete("swap/new.txt"),
            ):
                try:
                    got = operation()
                except ComputerAgentError:
                    continue
                assert got != SECRET
                assert not (isinstance(got, list) and len(got) == 1 and got[0].size == len(SECRET))
    finally:
        stop.set()
        thread.join()
    assert done > 100
    assert swaps > 100
    assert _snapshot(outside) == before


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("hurried")
def test_deleting_a_tree_while_it_is_swapped_deletes_nothing_outside(either: Jail, root: Path, outside: Path):
    for number in range(50):
        (outside / f"keep-{number}").write_bytes(b"keep")
    before = _snapshot(outside)
    stop = threading.Event()

    def swapper() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            try:
                (root / "victim/inner").rename(root / "aside")
                (root / "victim/inner").symlink_to(outside)
                (root / "victim/inner").unlink()
                (root / "aside").rename(root / "victim/inner")
            except OSError:
                continue

    thread = threading.Thread(target=swapper)
    thread.start()
    try:
        deadline = time.monotonic() + 2
        for _ in range(1000):
            if time.monotonic() > deadline:
                break
            try:
                (root / "victim/inner/leaf").mkdir(parents=True, exist_ok=True)
                either.delete("victim", recursive=True)
            except (ComputerAgentError, OSError):
                continue
    finally:
        stop.set()
        thread.join()
    assert before.items() <= _snapshot(outside).items()  # the set-up's own mkdir may follow the link and add a leaf


def test_many_threads_write_one_file_and_each_reader_sees_a_whole_one(either: Jail):
    contents = [bytes([65 + number]) * 50_000 for number in range(4)]
    either.write_bytes("shared", contents[0])
    stop = threading.Event()

    def writer(content: bytes) -> None:
        while not stop.is_set():
            either.write_bytes("shared", content)

    threads = [threading.Thread(target=writer, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    try:
        seen = {either.read_bytes("shared") for _ in range(300)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen <= set(contents)


def test_no_file_descriptor_is_left_open(either: Jail):
    def used() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = used()
    for path in [*ESCAPES, *NEW_ESCAPES, "file.txt", "sub", "missing", *REFUSED]:
        for operation in _operations(either, path):
            try:
                operation()
            except ComputerAgentError:
                continue
    assert used() == before


def test_there_are_at_least_120_vectors():
    assert len(REFUSED) + 2 * (len(ESCAPES) + len(NEW_ESCAPES) + len(FINE)) >= 120


# ── Help ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _operations(jail: Jail, path: str):
    return (
        lambda: jail.read_bytes(path),
        lambda: jail.write_bytes(path, b"x"),
        lambda: jail.edit(path, "inside", "x"),
        lambda: jail.mkdir(path),
        lambda: jail.mkdir(path, parents=True),
        lambda: jail.move("file.txt", path),
        lambda: jail.move(path, "target"),
        lambda: jail.delete(path),
        lambda: jail.delete(path, recursive=True),
        lambda: jail.tree(path),
        lambda: jail.directory(path),
    )


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def _settle(root: Path, outside: Path) -> None:
    """Bring the swapped names back into order, whatever was in the way."""
    for name in ("swap", "real", "link"):
        path = root / name
        if path.is_symlink():
            path.unlink()
    if not (root / "swap").exists():
        if (root / "real").exists():
            (root / "real").rename(root / "swap")
        else:
            (root / "swap").mkdir()
    if not (root / "link").exists():
        (root / "link").symlink_to(outside)
