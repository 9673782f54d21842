"""Where an agent works in a sandbox: its home, its working folder, and how files get there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from weakref import WeakKeyDictionary, finalize

from inspect_ai.util import ExecResult, SandboxEnvironment

from computeragent.errors import CliFailedError
from computeragent.swe.sandboxes.types import is_local, own, unwrapped

_LIMIT = 120
_homes: WeakKeyDictionary[SandboxEnvironment, str] = WeakKeyDictionary()

_HOME_OF_USER = (
    'home=$(getent passwd "$(id -un)" 2>/dev/null | cut -d: -f6); home=${home:-$HOME}; '
    'if [ -d "$home" ] && [ -w "$home" ]; then printf %s "$home"; else mktemp -d /tmp/home-XXXXXX; fi'
)
_WRITE = 'umask 077; mkdir -p -- "$(dirname -- "$1")" && cat > "$1"'


@dataclass(frozen=True, kw_only=True)
class Place:
    """A sandbox, who works there, the home (private) and the working folder. Paths are the sandbox's own."""

    sandbox: SandboxEnvironment
    user: str | None
    home: str
    cwd: str

    async def sh(self, script: str, *arguments: str, given: str | bytes | None = None) -> str:
        """What a shell script prints. Raises `CliFailedError`."""
        done = await _exec(unwrapped(self.sandbox), ["/bin/sh", "-c", script, "sh", *arguments], self.user, given)
        if not done.success:
            raise CliFailedError(
                f"the sandbox refuses what an agent needs: {_end(done)}",
                hint="The user of the agent needs a folder for its home, and a shell.",
            )
        return done.stdout

    async def write(self, files: Mapping[str, str]) -> None:
        """Write files, readable by the agent's user alone; folders are made."""
        for path, text in files.items():
            await self.sh(_WRITE, path, given=text)


async def place_of(
    sandbox: SandboxEnvironment, *, user: str | None = None, cwd: str | None = None, home: str | None = None
) -> Place:
    """Where to work: `cwd`, else the sandbox's own folder, or the home where that is `/`.

    The home is private where the provider is ours or `local`, else the user's own. Raises `CliFailedError` for a
    folder that does not exist, and what the provider raises for a user that it cannot be.
    """
    inner = unwrapped(sandbox)
    default = (await _checked(inner, user, "pwd")).strip() or "/"
    if home is None:
        home = await _home(inner, user)
    folder = str(PurePosixPath(default) / cwd) if cwd else default
    if folder == "/" and not cwd:
        folder = home
    await _checked(inner, user, 'mkdir -p -- "$1"', home)
    seen = await _exec(inner, ["/bin/sh", "-c", 'test -d "$1"', "sh", folder], user)
    if not seen.success:
        raise CliFailedError(f"cwd: there is no folder {folder} in the sandbox", hint="Make it in the sample's setup.")
    return Place(sandbox=sandbox, user=user, home=home, cwd=folder)


async def _home(inner: SandboxEnvironment, user: str | None) -> str:
    if is_local(inner):
        if inner not in _homes:
            _homes[inner] = tempfile.mkdtemp(prefix="inspect-home-")
            finalize(inner, shutil.rmtree, _homes[inner], ignore_errors=True)
        return _homes[inner]
    ours = own(inner)
    if ours is not None and user is None:
        return ours.home
    return (await _checked(inner, user, _HOME_OF_USER)).strip()


async def _checked(inner: SandboxEnvironment, user: str | None, script: str, *arguments: str) -> str:
    done = await _exec(inner, ["/bin/sh", "-c", script, "sh", *arguments], user)
    if not done.success:
        who = f" as {user}" if user else ""
        raise CliFailedError(
            f"the sandbox does not run a shell{who}: {_end(done)}", hint="Look at the sandbox and at `user`."
        )
    return done.stdout


async def _exec(
    inner: SandboxEnvironment, command: Sequence[str], user: str | None, given: str | bytes | None = None
) -> ExecResult[str]:
    return await inner.exec(list(command), input=given, user=user, timeout=_LIMIT)


def _end(done: ExecResult[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[-300:] or f"exit status {done.returncode}"
