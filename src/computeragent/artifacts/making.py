"""How a program is made of its packages, in a folder of its own: native, JavaScript with its node, Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from computeragent.artifacts.platforms import npm_words, wheel_tags
from computeragent.artifacts.running import npm, pip
from computeragent.artifacts.unpacking import unpack_member, unpack_npm, verify_integrity
from computeragent.artifacts.versions import npm_integrity
from computeragent.clis import Package, SandboxPlatform
from computeragent.errors import ArtifactCorruptError, ArtifactError, PlatformError, UnknownVersionError

PYTHON = "311"
"""The Python whose wheels a seeded machine gets, where the caller names none."""


@dataclass(frozen=True, kw_only=True)
class ArtifactProgress:
    """How far it is: `done` of `total` bytes where that is known, else 0 of None while something goes on."""

    name: str
    step: str
    done: int = 0
    total: int | None = None


Tell = Callable[[ArtifactProgress], None]
"""Hears of progress; called on the thread that does the work."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make."""

    name: str
    package: Package
    version: str
    platform: SandboxPlatform
    tell: Tell

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.name} {self.version} ({self.platform})"

    def say(self, step: str, done: int = 0, total: int | None = None) -> None:
        """Tell of progress."""
        self.tell(ArtifactProgress(name=self.name, step=step, done=done, total=total))


def native_spec(order: Order) -> str:
    """The platform's package. Raises `PlatformError`."""
    spec = order.package.platforms.get(order.platform)
    if spec is None:
        known = ", ".join(order.package.platforms) or "none"
        raise PlatformError(f"{order.name} is not made for {order.platform}", hint=f"It is made for: {known}.")
    return spec.format(version=order.version)


def native_program(order: Order) -> str:
    """Where the program is in it."""
    return order.package.program.format(triple=order.package.triples.get(order.platform, ""))


def make_native(order: Order, work: Path, made: Path) -> str:
    """Fetch the platform's package, check it, unpack it; no script of it runs. The program's path in `made`."""
    spec = native_spec(order)
    order.say("asking")
    _, integrity = npm_integrity(spec)
    order.say("downloading")
    printed = npm(["pack", spec, "--json", "--ignore-scripts", "--pack-destination", str(work)], work, order.what)
    return unpack_native(order, _packed(printed, work, order.what), made, integrity)


def _packed(printed: str, work: Path, what: str) -> Path:
    try:
        loaded: Any = json.loads(printed)
        first = cast("dict[str, Any]", loaded[0] if isinstance(loaded, list) else next(iter(loaded.values())))
        packed = work / Path(str(first["filename"]).replace("/", "-").lstrip("@")).name
    except (ValueError, LookupError, StopIteration, TypeError) as error:
        raise ArtifactError(f"npm pack does not say what it made of {what}", hint="Use a newer npm.") from error
    if not packed.is_file():
        packed = next(iter(work.glob("*.tgz")), packed)
    return packed


def unpack_native(order: Order, archive: Path, made: Path, integrity: str) -> str:
    """Check and unpack a package that is here. The program's path in `made`."""
    total = archive.stat().st_size
    order.say("checking", 0, total)
    verify_integrity(archive, integrity, order.what)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        order.say("unpacking", done)

    unpack_npm(archive, made, order.what, advance)
    archive.unlink()
    program = native_program(order)
    _must_run_on(made / program, order)
    (made / program).chmod(0o755)
    return program


_ELF_MACHINES = {62: "x64", 183: "arm64"}


def _must_run_on(program: Path, order: Order) -> None:
    if not program.is_file():
        raise ArtifactCorruptError(
            f"the package of {order.what} has no {order.package.program}", hint="Choose a version that this knows."
        )
    with program.open("rb") as file:
        head = file.read(20)
    machine = _ELF_MACHINES.get(int.from_bytes(head[18:20], "little"))
    if head[:4] != b"\x7fELF" or machine != order.platform.split("-")[1]:
        raise PlatformError(
            f"the program of {order.what} is made for another machine",
            hint="Use the package of that platform.",
        )


def make_bundle(order: Order, made: Path, node: Path) -> str:
    """Install a JavaScript program with its dependencies, without any script, beside a node that runs it."""
    made.mkdir(parents=True)
    (made / "package.json").write_text('{"private": true}\n', "utf-8")
    order.say("downloading")
    flags = [
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-bin-links",
        "--save-exact",
        *npm_words(order.platform),
    ]
    spec = f"{order.package.index}@{order.version}"
    npm(["install", *flags, spec], made, order.what, path=_runs_here(node))
    package = made / "node_modules" / order.package.index
    script = _script(package, order)
    for link in [path for path in made.rglob("*") if path.is_symlink()]:
        link.unlink()  # none is needed, and the folder is to be copied as it is
    folder = made / "bin"
    folder.mkdir()
    try:
        os.link(node, folder / "node")
    except OSError:
        shutil.copy2(node, folder / "node")
    launcher = folder / order.package.program
    inside = script.relative_to(made)
    launcher.write_text(
        '#!/bin/sh\nhere=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)\n'
        f'PATH="$here:$PATH" exec "$here/node" "$here/../{inside}" "$@"\n',
        "utf-8",
    )
    launcher.chmod(0o755)
    return str(launcher.relative_to(made))


def _runs_here(node: Path) -> str:
    try:
        done = subprocess.run([node, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a node for another machine
    return str(node.parent) if done.returncode == 0 else ""


def _script(package: Path, order: Order) -> Path:
    try:
        described: Any = json.loads((package / "package.json").read_text("utf-8"))
        commands = described["bin"]
        inside = commands if isinstance(commands, str) else commands[order.package.program]
        script = (package / str(inside)).resolve()
        script.relative_to(package.resolve())
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactCorruptError(
            f"the package of {order.what} has no command {order.package.program}",
            hint="Choose a version that this knows.",
        ) from error
    return script


def make_wheels(order: Order, made: Path, python: str) -> None:
    """Fetch a Python program's wheels with all they need, and uv to install them with."""
    wheels = made / "wheels"
    wheels.mkdir(parents=True)
    order.say("downloading")
    download_wheels(order.package.index, order.version, order.platform, python, wheels, also=order.package.also)
    tool = made.parent / "uv"
    tool.mkdir()
    download_wheels("uv", None, order.platform, python, tool, only=True)
    unpack_member(next(iter(tool.glob("uv-*.whl"))), ".data/scripts/uv", made / "uv", "uv")


def download_wheels(
    name: str,
    version: str | None,
    platform: SandboxPlatform,
    python: str,
    target: Path,
    *,
    only: bool = False,
    also: tuple[str, ...] = (),
) -> None:
    """Fetch the wheels of packages and, unless `only`, of what they need. pip checks them against the index."""
    if not (python.isdigit() and python[0] == "3"):
        raise ArtifactError(f"{python!r} is not a Python version", hint="Write it without dots, such as 311.")
    spec = f"{name}=={version}" if version else name
    tags = [word for tag in wheel_tags(platform) for word in ("--platform", tag)]
    flags = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *tags, "--dest", str(target)]
    abi = ["--abi", f"cp{python}", "--abi", "abi3", "--abi", "none"]
    pip(["download", "-q", *(["--no-deps"] if only else []), *flags, *abi, spec, *also], target, f"{spec} ({platform})")
    if not any(target.glob("*.whl")):
        raise UnknownVersionError(
            f"the registry has no wheels of {spec} for {platform}", hint="Choose another version."
        )


def make_environment(order: Order, folder: Path) -> None:
    """The environment of a Python program, made of its wheels at its final place; no registry is asked."""
    order.say("installing")
    target = folder / "env"
    shutil.rmtree(target, ignore_errors=True)
    uv, quiet = str(folder / "uv"), ["--quiet", "--no-config", "--offline"]
    wheels = sorted(str(path) for path in (folder / "wheels").glob("*.whl"))
    compiled = ["--compile-bytecode"]  # whoever sees it read-only would compile it at each start
    steps = (
        [uv, "venv", *quiet, "--python", sys.executable, "--no-project", str(target)],
        [
            uv,
            "pip",
            "install",
            *quiet,
            *compiled,
            "--no-index",
            "--no-deps",
            "--python",
            str(target / "bin" / "python"),
            *wheels,
        ],
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "VIRTUAL_ENV"))}
    env["UV_CACHE_DIR"] = str(folder.parent.parent / ".staging" / "uv")
    for step in steps:
        done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ArtifactError(
                f"the environment of {order.what} cannot be made: {' '.join(done.stderr.split())[-300:]}",
                hint="Its wheels are for one Python; look which one this is.",
            )
    shutil.rmtree(env["UV_CACHE_DIR"], ignore_errors=True)


def tarball(folder: Path, target: Path) -> None:
    """A folder's files in one tar, the same bytes for the same files."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(folder.iterdir()):
            info = tar.gettarinfo(str(path), arcname=path.name)
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            with path.open("rb") as file:
                tar.addfile(info, file)
