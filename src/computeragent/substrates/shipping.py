"""This package on its way to another machine: whether it is there already, and a wheel of what runs here."""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
import zipfile
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path

import computeragent
from computeragent.credentials import PROVIDERS
from computeragent.errors import SubstrateError

_DISTRIBUTION = "computer-agent-py"
_MODULE = "computeragent.substrates.engine_host"
Run = Callable[[str], Awaitable[tuple[int, str]]]
"""Runs a shell command there; its exit code, and what it printed."""
Put = Callable[[str, bytes], Awaitable[None]]
"""Writes a file there."""


async def install(run: Run, put: Put, *, python: str, folder: str) -> None:
    """Have this version of the package there, for an interpreter there. Raises `SubstrateError`.

    What the package needs comes from the package index that is reached there.
    """
    version = metadata.version(_DISTRIBUTION)
    look = "import starlette, sys; from importlib import metadata; "
    look += f"print(sys.version_info > (3, 11), metadata.version('{_DISTRIBUTION}'))"
    code, said = await run(f"{shlex.quote(python)} -I -c {shlex.quote(look)}")
    if code == 0 and said.split()[-2:] == ["True", version]:
        return
    name, content = wheel()
    place = f"{folder}/{name}"
    await put(place, content)
    code, said = await run(
        f"{shlex.quote(python)} -m pip install --quiet --disable-pip-version-check {shlex.quote(f'{place}[server]')}"
    )
    if code != 0:
        last = " / ".join(said.strip().splitlines()[-3:])[:500]
        raise SubstrateError(
            f"this package cannot be installed there with {python}: {last or f'exit code {code}'}",
            hint=f"Use an image or a template that has Python 3.11 or later and {_DISTRIBUTION}[server] {version}.",
        )


def command(python: str, address: str, *, token: str, folder: str) -> str:
    """The shell command that becomes an engine host, whose sessions are in `folder`."""
    settings = {"IS_SANDBOX": "1", "COMPUTERAGENT_HOME": f"{folder}/home"}
    words = ["exec", "env", *(f"{name}={value}" for name, value in settings.items()), python, "-I", "-m", _MODULE]
    words += ["--serve", address, "--token", token, "--home", f"{folder}/session", "--relays", str(len(PROVIDERS))]
    return shlex.join(words)


def wheel() -> tuple[str, bytes]:
    """A wheel of the package as it is here, whether it was installed from an index or is worked on: name, content."""
    found = metadata.distribution(_DISTRIBUTION)
    stem = f"{_DISTRIBUTION.replace('-', '_')}-{found.version}"
    root = Path(computeragent.__file__).parent
    files = {
        f"computeragent/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    tags = "Wheel-Version: 1.0\nGenerator: computeragent\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{stem}.dist-info/WHEEL"] = tags.encode()
    for name in ("METADATA", "entry_points.txt"):
        if (text := found.read_text(name)) is not None:
            files[f"{stem}.dist-info/{name}"] = text.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
