"""How an agent's program gets into a sandbox: it is there, it is seen there, or it is carried in."""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from inspect_ai.util import SandboxEnvironment, concurrency

from computeragent.artifacts import Artifact, fetch, find, host_platform, packages, platform_of
from computeragent.clis import CLIS, SandboxPlatform
from computeragent.errors import CliFailedError
from computeragent.swe.sandboxes.types import is_local, own, unwrapped

INSIDE = "/var/tmp/computeragent-programs"  # noqa: S108 - in the sandbox
"""Where programs are carried to, in sandboxes that do not see the host's cache."""

_LIMIT = 600
_PLATFORM = (
    "uname -s; uname -m; if ls /lib/ld-musl-* >/dev/null 2>&1 || ldd /bin/ls 2>&1 | grep -q musl; then echo musl; fi"
)
_UNPACK = 'set -e; cd "$1"; tar -xf program.tar; rm program.tar; chmod -R a+rX .; '
_ENVIRONMENT = (
    "export UV_CACHE_DIR=/tmp/uv-cache; "
    "./uv venv --quiet --no-config --offline --no-project --python python3 env; "
    "./uv pip install --quiet --no-config --offline --no-index --no-deps --python env/bin/python wheels/*.whl; "
    'rm -rf "$UV_CACHE_DIR"; '
)


async def program_in(
    sandbox: SandboxEnvironment, name: str, version: str = "auto", *, user: str | None = None, path: str | None = None
) -> str:
    """The path in the sandbox of an agent's program, or of an adapter's (`claude_code_acp`), which is there then.

    `auto` takes one that is on the sandbox's PATH (`path`, where it is given), else the stable one; `sandbox` takes
    that one alone; `stable`, `latest` or a number is fetched. Our own providers and `local` use it where the cache has
    it, into others it is copied. Raises `ArtifactError` and its children, `CliFailedError`.
    """
    inner = unwrapped(sandbox)
    installed = await _installed(inner, name, user, path) if version in {"auto", "sandbox"} else None
    if installed:
        return installed
    here = is_local(inner) or own(inner) is not None
    platform = host_platform() if here else await _platform(inner)
    if name in CLIS:
        found = await asyncio.to_thread(find, name, version, platform, None)
        assert isinstance(found, Artifact)
    else:
        found = await asyncio.to_thread(fetch, name, version, platform)
    return str(found.program) if here else await _carry(inner, found)


async def _installed(inner: SandboxEnvironment, name: str, user: str | None, search: str | None) -> str | None:
    program = CLIS[name].program if name in CLIS else PurePosixPath(packages()[name].program).name
    script = 'PATH=${2:-$PATH}; command -v -- "$1"'
    done = await inner.exec(["/bin/sh", "-c", script, "sh", program, search or ""], user=user, timeout=_LIMIT)
    path = done.stdout.strip()
    return path if done.success and path.startswith("/") else None


async def _platform(inner: SandboxEnvironment) -> SandboxPlatform:
    system, machine, musl = [*(await _sh(inner, _PLATFORM)).split("\n"), "", ""][:3]
    return platform_of(system, machine, musl=musl == "musl")


async def _carry(inner: SandboxEnvironment, artifact: Artifact) -> str:
    folder = f"{INSIDE}/{artifact.name}/{artifact.version}"
    wheels = packages()[artifact.name].kind == "wheels"
    program = f"{folder}/{artifact.program.relative_to(artifact.folder)}"
    ready = ["test", "-e", f"{folder}/.ready"]
    if (await inner.exec(ready, timeout=_LIMIT)).success:
        return program
    # One at a time: a program has hundreds of megabytes, and is in memory on its way.
    async with concurrency(f"computeragent-carry-{artifact.name}", 1, visible=False):
        if (await inner.exec(ready, timeout=_LIMIT)).success:
            return program  # another agent of this sample has carried it meanwhile, and may be running it
        packed = await asyncio.to_thread(_packed, artifact.folder, without="env" if wheels else "")
        await inner.write_file(f"{folder}/program.tar", packed)
        del packed
        try:
            await _sh(inner, f"{_UNPACK}{_ENVIRONMENT if wheels else ''}touch .ready", folder)
        except CliFailedError as error:
            raise CliFailedError(
                f"{artifact.name} {artifact.version} cannot be installed in the sandbox: {error.message}",
                hint="Put it into the image and use version='sandbox'; mini-swe-agent needs the Python that its wheels "
                "are for, which is this machine's.",
            ) from error
    return program


def _packed(folder: Path, *, without: str) -> bytes:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                if path.name != without:
                    tar.add(path, arcname=path.name)
        file.seek(0)
        return file.read()


async def _sh(inner: SandboxEnvironment, script: str, *arguments: str) -> str:
    done = await inner.exec(["/bin/sh", "-c", script, "sh", *arguments], timeout=_LIMIT)
    if not done.success:
        raise CliFailedError(" ".join((done.stderr or done.stdout).split())[-300:] or f"exit {done.returncode}")
    return done.stdout
