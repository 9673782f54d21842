"""Containers of a Docker engine: started, watched, removed, and swept up after processes that could not."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import socket
import sys
import tarfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeragent.errors import MissingExtraError, SubstrateError
from computeragent.logs import Logger
from computeragent.substrates.mounts import SYSTEM
from computeragent.substrates.process import how_ended

_LABEL = "computeragent"
_LAST_LINES = 3
_LOGS = {"max-size": "1m", "max-file": "1"}
_log = Logger("substrate")


class Engine:
    """A connection to a Docker engine. Its methods block; call them in threads. Made by `connect`."""

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self.address = address

    @classmethod
    def connect(cls, docker_host: str | None) -> Engine:
        """Raises `SubstrateError` where no engine answers, or where it is another machine's."""
        try:
            import docker
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"runtime 'docker' needs the [docker] extra: {error}", hint="pip install 'computer-agent-py[docker]'"
            ) from error
        library: Any = docker
        address = docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not address.startswith("unix://"):
            raise SubstrateError(
                f"the Docker engine {address} is not reached by a Unix socket: it may be another machine's, which has "
                "not this one's folders",
                hint="Run there, or use a Docker engine of this machine: docker_host='unix:///…'.",
            )
        client: Any = None
        try:
            with socket.socket(socket.AF_UNIX) as attempt:  # the SDK forgets to close one that cannot connect
                attempt.connect(address.removeprefix("unix://"))
            client = library.DockerClient(base_url=address)
            client.ping()
        except (library.errors.DockerException, OSError) as error:
            if client is not None:
                client.close()
            raise SubstrateError(
                f"no Docker engine answers at {address}: {_reason(error)}",
                hint="Start it, give docker_host=, and see that this user may use it (group docker).",
            ) from error
        return cls(client, address)

    def run(
        self,
        image: str,
        command: Sequence[str],
        options: Mapping[str, Any],
        *,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
    ) -> Container:
        """Start a container; `folder` is what it leaves on this machine.

        Raises `SubstrateError` for an image or a network that is not there, and the like.
        """
        from docker import errors, types

        failures: Any = errors
        logs: Any = types.LogConfig(type="json-file", config=_LOGS)
        try:
            made = self._client.containers.create(
                image, list(command[1:]), entrypoint=[command[0]], labels=_labels(folder), log_config=logs, **options
            )
        except failures.ImageNotFound as error:
            raise SubstrateError(
                f"the Docker engine has no image {image!r}",
                hint=f"docker pull {image}, or build it; without image= a container shows this machine's system.",
            ) from error
        except failures.DockerException as error:
            raise _refused(error) from error
        try:
            made.start()
        except failures.DockerException as error:
            self.remove(made)
            raise _refused(error) from error
        return Container(self, made, loop)

    def sweep(self) -> None:
        """Remove the containers of processes of this machine that are gone, and their folders."""
        from docker import errors

        failures: Any = errors
        try:
            for each in self._client.containers.list(all=True, filters={"label": f"{_LABEL}.machine={_machine()}"}):
                pid, _, started = each.labels.get(f"{_LABEL}.owner", "").partition(":")
                if pid.isdigit() and _started(int(pid)) != started:
                    _log.info("container_swept", container=each.short_id)
                    self.remove(each)
                    shutil.rmtree(each.labels.get(f"{_LABEL}.folder", ""), ignore_errors=True)
        except failures.NotFound:
            return  # it went meanwhile
        except failures.DockerException as error:
            _log.warn("containers_not_swept", error=_reason(error))

    def has_image(self, name: str) -> bool:
        """Whether the engine has an image of this name."""
        from docker import errors

        failures: Any = errors
        try:
            self._client.images.get(name)
        except failures.ImageNotFound:
            return False
        return True

    def import_image(self, name: str, archive: bytes) -> None:
        """Make an image of a tar of its files."""
        repository, _, tag = name.partition(":")
        self._client.api.import_image_from_data(archive, repository=repository, tag=tag)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def remove(self, container: Any) -> None:
        """Remove a container, running or not."""
        from docker import errors

        failures: Any = errors
        try:
            container.remove(force=True, v=True)
        except failures.NotFound:
            return
        except failures.APIError as error:
            if error.status_code != 409:  # it is being removed already
                _log.error("container_not_removed", container=container.short_id, error=_reason(error))


class Container:
    """A running container; a `Body` of an engine host. It stays until `close`, so that its end can be looked at."""

    def __init__(self, engine: Engine, made: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.id: str = made.short_id
        self._engine = engine
        self._made = made
        self._loop = loop
        self._over: asyncio.Future[str] = loop.create_future()
        # A thread of its own: it waits for as long as the container runs.
        self._watch = threading.Thread(target=self._wait, name=f"container {self.id}", daemon=True)
        self._watch.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._over.done()

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        """End all that runs in it, remove it, and close the connection to its engine."""
        await asyncio.to_thread(self._engine.remove, self._made)
        await asyncio.to_thread(self._watch.join)
        await asyncio.to_thread(self._engine.close)

    def _wait(self) -> None:
        try:
            code = int(self._made.wait(timeout=None)["StatusCode"])
            told = self._describe(code)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must be told
            told = f"it is gone ({_reason(error)})"
        try:
            self._loop.call_soon_threadsafe(self._tell, told)
        except RuntimeError:
            return  # the loop is closed: nobody waits

    def _describe(self, code: int) -> str:
        try:
            self._made.reload()
            if self._made.attrs["State"].get("OOMKilled"):
                return f"it used up its memory ({how_ended(code)})"
            said = self._made.logs(tail=_LAST_LINES).decode("utf-8", "replace").strip()
        except Exception:  # noqa: BLE001 - removed meanwhile
            said = ""
        last = " / ".join(line.strip()[:500] for line in said.splitlines())
        return f"{how_ended(code)}: {last}" if last else how_ended(code)

    def _tell(self, told: str) -> None:
        if not self._over.done():
            self._over.set_result(told)


def empty_image(engine: Engine) -> str:
    """An image with nothing but this machine's links to its system folders, and places for what is mounted."""
    archive = _skeleton()
    name = f"computeragent-empty:{hashlib.sha256(archive).hexdigest()[:12]}"
    if not engine.has_image(name):
        engine.import_image(name, archive)
    return name


def _skeleton() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("dev", "etc", "home", "proc", "run", "session", "sys", "tmp", "var", "var/tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(entry)
        for path in SYSTEM:
            entry = tarfile.TarInfo(path.lstrip("/"))
            if Path(path).is_symlink():
                entry.type, entry.linkname = tarfile.SYMTYPE, str(Path(path).readlink())
                tar.addfile(entry)
            elif Path(path).is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
    return buffer.getvalue()


def _labels(folder: Path) -> dict[str, str]:
    owner = f"{os.getpid()}:{_started(os.getpid())}"
    return {f"{_LABEL}.owner": owner, f"{_LABEL}.machine": _machine(), f"{_LABEL}.folder": str(folder)}


def _machine() -> str:
    """What process ids mean something in: this boot of this machine, and a space of ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:16]
    except OSError:
        return sys.platform


def _started(pid: int) -> str:
    """When a process began, so that one that has its number later is another; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except OSError:
        pass
    if sys.platform == "linux":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def _refused(error: Exception) -> SubstrateError:
    return SubstrateError(
        f"the Docker engine refuses: {_reason(error)}", hint="See its own log; `docker info` shows what it has."
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)[:500]
