"""The folder that an agent of ours works in for a sample: the sandbox's own, or a copy that is carried in and out."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from inspect_ai.util import ExecResult, SandboxEnvironment

from computeragent.errors import ComputerAgentError, SubstrateError, ValidationError
from computeragent.harness.workspace import LocalWorkspace
from computeragent.identity.copying import copy_directory
from computeragent.protocol_types import Attachment, Substrate, SubstrateHandle
from computeragent.server.sandboxes.archive import Caps, pack, unpack
from computeragent.swe.agents.launching import is_local, unwrapped

CAPS = Caps(files=100_000, bytes=1024**3)
"""The most that is carried in and out of a sandbox."""
_PUTTING_BACK = 60.0
# The archive has no entry of the folder itself, and a file of several names is there several times, as `unpack` wants.
_PACK = """
cd -- "$1" || exit 1
several=--hard-dereference
tar "$several" -cf /dev/null -T /dev/null 2>/dev/null || several=
tar -czf "$2" -T /dev/null && find . -mindepth 1 -maxdepth 1 ! -name .git -exec tar $several -czf "$2" {} +
"""


@asynccontextmanager
async def sample_folder(sandbox: SandboxEnvironment | None, private: Path, cwd: str | None) -> AsyncGenerator[Path]:
    """The agent's working folder, on this machine.

    Of a `local` sandbox it is the sandbox's own, without a sandbox one in `private`. That of any other sandbox is
    copied to `private`, and what the agent did to it is done there at the end, however the run ended. ``.git`` does not
    travel. Raises `ValidationError` for a `cwd` that there is not, and `SubstrateError` when carrying fails.
    """
    folder = private / "work"
    folder.mkdir(exist_ok=True)
    if sandbox is None:
        yield _inside(folder, cwd)
    elif is_local(unwrapped(sandbox)):
        yield _inside(Path((await sandbox.exec(["pwd"])).stdout.strip()), cwd)
    else:
        there = await _place(sandbox, cwd)
        await _fetch(sandbox, there, folder, private / "carried.tar.gz")
        before = await asyncio.to_thread(_names, folder)
        try:
            yield folder
        finally:
            # A sample that met a limit is scored all the same: its files have to be where its scorer looks.
            with anyio.move_on_after(_PUTTING_BACK, shield=True):
                await _put_back(sandbox, there, folder, private / "carried.tar.gz", before)


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


async def _fetch(sandbox: SandboxEnvironment, there: str, folder: Path, archive: Path) -> None:
    remote = _name()
    try:
        _check(await sandbox.exec(["/bin/sh", "-c", _PACK, "sh", there, remote], timeout=300))
        packed = await sandbox.read_file(remote, text=False)
        await asyncio.to_thread(archive.write_bytes, packed)
        await asyncio.to_thread(unpack, archive, folder, CAPS)
    except ComputerAgentError:
        raise
    except Exception as error:
        raise _failed("out of", error) from error
    finally:
        await asyncio.to_thread(archive.unlink, missing_ok=True)
        await sandbox.exec(["rm", "-f", remote])


async def _put_back(
    sandbox: SandboxEnvironment, there: str, folder: Path, archive: Path, before: Sequence[str]
) -> None:
    remote = _name()
    try:
        await asyncio.to_thread(pack, folder, archive, CAPS)
        gone = sorted(set(before) - set(await asyncio.to_thread(_names, folder)))
        await sandbox.write_file(remote, await asyncio.to_thread(archive.read_bytes))
        for at in range(0, len(gone), 200):
            _check(await sandbox.exec(["rm", "-rf", "--", *(f"./{name}" for name in gone[at : at + 200])], cwd=there))
        _check(await sandbox.exec(["tar", "--no-same-owner", "-C", there, "-xzf", remote], timeout=300))
    except ComputerAgentError:
        raise
    except Exception as error:
        raise _failed("into", error) from error
    finally:
        await asyncio.to_thread(archive.unlink, missing_ok=True)
        await sandbox.exec(["rm", "-f", remote])


def _name() -> str:
    return f"/tmp/computeragent-{secrets.token_hex(8)}.tar.gz"  # noqa: S108 - in the sandbox, and nobody can guess it


def _check(done: ExecResult[str]) -> None:
    if not done.success:
        raise SubstrateError(
            f"the sandbox's files cannot be carried: {done.stderr.strip()[-300:] or 'tar failed'}",
            hint="The sandbox needs tar and a /tmp that can be written to.",
        )


def _failed(way: str, error: Exception) -> SubstrateError:
    return SubstrateError(
        f"files cannot be carried {way} the sandbox: {error}", hint="Give cwd=, a smaller folder of the sandbox."
    )
