"""Who owns a session's folders while a container works on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STRANGER = 61000
"""The user that agents of root's run as: nobody's number on most machines."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """The user and group that an agent runs as, and the folders that are lent to it meanwhile."""

    uid: int
    gid: int
    lent: tuple[Path, ...] = ()

    @classmethod
    def of(cls, workspace: Path, folders: Sequence[Path]) -> Tenant:
        """This process's own user. For root it is the workspace's owner, or a stranger who is lent root's folders."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        owner = workspace.stat()
        uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else (STRANGER, STRANGER)
        return cls(uid, gid, tuple(folder for folder in folders if folder.stat().st_uid == 0))

    def move_in(self) -> None:
        """Let it have what root has in the folders that are lent."""
        _pass_on(self.lent, 0, self.uid, self.gid)

    def move_out(self) -> None:
        """Let root have all that it has there. Call it when nothing of the agent's runs any more."""
        _pass_on(self.lent, self.uid, 0, 0)


def _pass_on(folders: Sequence[Path], owner: int, uid: int, gid: int) -> None:
    for folder in folders:
        for _, directories, files, descriptor in os.fwalk(folder, follow_symlinks=False):
            for name in (".", *directories, *files):
                with suppress(FileNotFoundError):
                    if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid == owner:
                        os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
