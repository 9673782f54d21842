"""`LocalWorkspace`: the jail as the `Workspace` that sessions have, off the event loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from computeragent.errors import NotFoundError, PathEscapeError, WorkspaceError
from computeragent.harness.workspace import LocalWorkspace
from computeragent.protocol_types import FileEntry, Workspace

pytestmark = pytest.mark.anyio


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return LocalWorkspace(tmp_path)


async def test_a_file_is_written_read_edited_moved_and_deleted(workspace: Workspace, tmp_path: Path):
    assert await workspace.write("a/b.txt", b"one one") == 7
    assert await workspace.edit("a/b.txt", "one", "two", replace_all=True) == 2
    assert await workspace.read("a/b.txt") == b"two two"
    await workspace.move("a/b.txt", "c/d.txt")
    assert (tmp_path / "c/d.txt").read_bytes() == b"two two"
    await workspace.delete("c", recursive=True)
    with pytest.raises(NotFoundError, match=r"^c/d\.txt does not exist$"):
        await workspace.read("c/d.txt")


async def test_directories_are_made_and_listed_in_order(workspace: Workspace, tmp_path: Path):
    await workspace.mkdir("b/c", parents=True)
    await workspace.mkdir("a")
    await workspace.write("b/file", b"xyz")
    (tmp_path / "link").symlink_to("nowhere")
    entries = await workspace.tree()
    assert all(isinstance(entry, FileEntry) for entry in entries)
    assert [(entry.path, entry.type) for entry in entries] == [
        *(("a", "dir"), ("b", "dir"), ("b/c", "dir"), ("b/file", "file"), ("link", "symlink"))
    ]
    assert [entry.path for entry in await workspace.tree("b", depth=0)] == ["c", "file"]


async def test_nothing_leaves_the_directory(workspace: Workspace, tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path.parent)
    with pytest.raises(PathEscapeError, match=r"^parent traversal is not allowed$"):
        await workspace.read("../x")
    with pytest.raises(PathEscapeError, match=r"^out/x resolves outside the workspace$"):
        await workspace.write("out/x", b"")
    with pytest.raises(WorkspaceError, match=r"^the workspace itself cannot be written, moved or deleted$"):
        await workspace.delete(".", recursive=True)


async def test_a_root_that_is_a_link_is_its_target(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    workspace = LocalWorkspace(tmp_path / "link")
    await workspace.write("x", b"1")
    assert workspace.root == (tmp_path / "real").resolve()
    assert (tmp_path / "real" / "x").exists()
