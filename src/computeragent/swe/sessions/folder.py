"""The folder that an agent of ours works in for a sample: the sandbox's own, or a copy that is carried in and out."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from inspect_ai.util import ExecResult, SandboxEnvironment

from computeragent.errors import ComputerAgentError, SubstrateError, ValidationError
from computeragent.harness.workspace import LocalWorkspace
from computeragent.identity.copying import copy_directory
from computeragent.protocol_types import Attachment, Substrate, SubstrateHandle
from computeragent.server.sandboxes.archive import Caps, pack, unpack
from computeragent.server.sandboxes.errors import RestoreError
from computeragent.swe.sandboxes.types import is_local, unwrapped

CAPS = Caps(files=100_000, bytes=1024**3)
"""The most that is carried in and out of a sandbox."""
_SECONDS = 300
# The archive has no entry of the folder itself, and a file of several names is there several times, as `unpack` wants.
_PACK = """
cd -- "$1" || exit 1
several=--hard-dereference
tar "$several" -cf /dev/null -T /dev/null 2>/dev/null || several=
tar -czf "$2" -T /dev/null && find . -mindepth 1 -maxdepth 1 ! -name .git -exec tar $several -czf "$2" {} +
"""


@dataclass
class SampleFolder:
    """A folder of this machine, `path`. `give_back` does to the sandbox's own what was done to it, if it is another."""

    path: Path
    give_back: Callable[[], Awaitable[None]] = checkpoint


@asynccontextmanager
async def sample_folder(
    sandbox: SandboxEnvironment | None, private: Path, cwd: str | None
) -> AsyncGenerator[SampleFolder]:
    """The agent's working folder, on this machine.

    Of a `local` sandbox it is the sandbox's own, without a sandbox one in `private`. That of any other sandbox is
    copied to `private`, and what the agent did to it is done there at the end, however the run ended. ``.git`` does not
    travel. Raises `ValidationError` for a `cwd` that there is not, and `SubstrateError` when carrying fails.
    """
    folder = private / "work"
    folder.mkdir(exist_ok=True)
    if sandbox is None:
        yield SampleFolder(_inside(folder, cwd))
        return
    if is_local(unwrapped(sandbox)):
        yield SampleFolder(_inside(Path((await sandbox.exec(["pwd"])).stdout.strip()), cwd))
        return
    carrier = _Carrier(sandbox, await _place(sandbox, cwd), folder, private / "carried.tar.gz")
    await carrier.fetch()
    try:
        yield SampleFolder(folder, carrier.give_back)
    finally:
        # A sample that met a limit is scored all the same: its files have to be where its scorer looks.
        with anyio.CancelScope(shield=True):
            await carrier.give_back()


class SampleSubstrate:
    """Runs engines as `inner` does, in a sample's folder; implements `Substrate`.

    What the source has is copied there, once; files of the sample win, `attachments` over both.
    """

    def __init__(self, inner: Substrate, folder: Path, attachments: Sequence[Attachment], *, filled: bool) -> None:
        self._inner = inner
        self._folder = folder
        self._attachments = attachments
        self._filled = filled

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`."""
        if not self._filled:
            await asyncio.to_thread(_fill, workspace, self._folder)
            files = LocalWorkspace(self._folder)
            for item in self._attachments:
                await files.write(item.path, _bytes(item))
            self._filled = True
        return await self._inner.boot(workspace=self._folder, state_dir=state_dir, envs=envs, limits=limits)


def _bytes(item: Attachment) -> bytes:
    from base64 import b64decode

    try:
        return b64decode(item.content, validate=True) if item.encoding == "base64" else item.content.encode()
    except ValueError as error:
        raise ValidationError(f"attachment {item.path!r} is not base64", hint="Encode it, or use utf8.") from error


def _inside(folder: Path, cwd: str | None) -> Path:
    found = folder if cwd is None else folder / cwd
    if not found.is_dir():
        raise ValidationError(f"cwd {cwd!r} is no folder of the sandbox", hint="Make it with the sample's files.")
    return found


def _fill(source: Path, folder: Path) -> None:
    """Copy what a source has and the folder has not."""
    if source.resolve() == folder.resolve():
        return
    beside = Path(tempfile.mkdtemp(prefix="source-", dir=folder.parent))
    try:
        copy_directory(source, beside / "copy")
        for name in _names(beside / "copy"):
            new, there = beside / "copy" / name, folder / name
            if not there.parent.resolve().is_relative_to(folder.resolve()):
                continue  # behind a link of the sample's that leads out
            if new.is_dir() and not new.is_symlink():
                if not there.exists() and not there.is_symlink():
                    there.mkdir()
            elif not there.exists() and not there.is_symlink() and there.parent.is_dir():
                shutil.move(new, there)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    """What is below a folder, parents first."""

    def walk() -> Iterator[str]:
        for place, directories, files in os.walk(folder):
            for name in (*directories, *files):
                yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118 - names may be no text

    return list(walk())


# ── Carrying ─────────────────────────────────────────────────────────────────────────────────────────────────


async def _place(sandbox: SandboxEnvironment, cwd: str | None) -> str:
    done = await sandbox.exec(["pwd"], cwd=cwd)
    there = done.stdout.strip()
    if not done.success or not there.startswith("/"):
        raise ValidationError(f"the sandbox has no folder {cwd or '.'}", hint="Give cwd=, a folder in the sandbox.")
    if there == "/":
        raise ValidationError(
            "the sandbox's working folder is its root, which is too much to carry",
            hint="Give cwd=, the folder in the sandbox that the agent is to work in.",
        )
    return there


@dataclass
class _Carrier:
    """Carries a folder of a sandbox, `there`, to one of this machine and back, in archives."""

    sandbox: SandboxEnvironment
    there: str
    folder: Path
    archive: Path
    carried: frozenset[str] = frozenset()

    async def fetch(self) -> None:
        async with self._way("out of") as remote:
            _check(await self.sandbox.exec(["/bin/sh", "-c", _PACK, "sh", self.there, remote], timeout=_SECONDS))
            packed = await self.sandbox.read_file(remote, text=False)
            await asyncio.to_thread(self.archive.write_bytes, packed)
            try:
                await asyncio.to_thread(unpack, self.archive, self.folder, CAPS)
            except RestoreError as error:
                what = error.message.removeprefix("the snapshot is refused: ")
                raise SubstrateError(
                    f"files cannot be carried out of the sandbox: {what}",
                    hint="Links that lead out, hard links, pipes and devices do not travel: "
                    "remove them in the sample's setup, or give cwd=, a folder without them.",
                ) from error
            self.carried = frozenset(await asyncio.to_thread(_names, self.folder))

    async def give_back(self) -> None:
        async with self._way("into") as remote:
            await asyncio.to_thread(pack, self.folder, self.archive, CAPS)
            names = frozenset(await asyncio.to_thread(_names, self.folder))
            await self.sandbox.write_file(remote, await asyncio.to_thread(self.archive.read_bytes))
            gone = sorted(self.carried - names)
            for at in range(0, len(gone), 200):
                which = [f"./{name}" for name in gone[at : at + 200]]
                _check(await self.sandbox.exec(["rm", "-rf", "--", *which], cwd=self.there, timeout=_SECONDS))
            unpacking = ["tar", "--no-same-owner", "-C", self.there, "-xzf", remote]
            _check(await self.sandbox.exec(unpacking, timeout=_SECONDS))
            self.carried = names

    @asynccontextmanager
    async def _way(self, where: str) -> AsyncGenerator[str]:
        """One way: a name for the archive in the sandbox; nothing of it stays. Raises `SubstrateError`."""
        remote = f"/tmp/computeragent-{secrets.token_hex(8)}.tar.gz"  # noqa: S108 - nobody can guess it
        try:
            yield remote
        except ComputerAgentError:
            raise
        except Exception as error:
            raise SubstrateError(
                f"files cannot be carried {where} the sandbox: {error}",
                hint="Give cwd=, a smaller folder of the sandbox.",
            ) from error
        finally:
            await asyncio.to_thread(self.archive.unlink, missing_ok=True)
            await self.sandbox.exec(["rm", "-f", remote], timeout=_SECONDS)


def _check(done: ExecResult[str]) -> None:
    if not done.success:
        raise SubstrateError(
            f"the sandbox's files cannot be carried: {done.stderr.strip()[-300:] or 'tar failed'}",
            hint="The sandbox needs tar and a /tmp that can be written to.",
        )
