"""Where snapshots are kept: in memory, in a folder, or in an S3-compatible bucket. Each owner has a part of its own."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import anyio.to_thread
import msgspec
from msgspec import Struct

from computeragent.errors import MissingExtraError, NotFoundError, StoreError
from computeragent.server.sandboxes.shapes import Usage
from computeragent.settings import home
from computeragent.wire.identity import IdentitySource
from computeragent.wire.policy import PolicyConfig
from computeragent.wire.requests import StoreConfig

_MEMORY = 512 * 1024 * 1024


class Start(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a sandbox is started from again. No secret is in it: `envs` are names, `lost` are those of what was one."""

    source: IdentitySource
    harness: str
    runtime: str
    options: dict[str, Any] = {}
    model: str | None = None
    envs: list[str] = []
    policy: PolicyConfig | None = None
    store: StoreConfig | None = None
    lost: list[str] = []
    budget_max_usd: float | None = None


class SnapshotRecord(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A snapshot without its tar. `config` is fit for showing, `start` is for restoring."""

    snapshot_id: str
    owner: str
    source_sandbox_id: str
    source_session_id: str
    taken_at: str
    config: dict[str, Any]
    start: Start
    turn_count: int
    usage: Usage
    size_bytes: int
    sha256: str
    workdir_bytes: int
    workdir_file_count: int
    version: int = 1

    def summary(self) -> dict[str, Any]:
        """What a list shows."""
        shown = cast("dict[str, Any]", msgspec.to_builtins(self))
        for name in ("owner", "start", "sha256", "version"):
            shown.pop(name, None)
        store = {"kind": self.start.store.kind, "sessionId": self.source_session_id} if self.start.store else None
        return shown | ({"sessionStoreRef": store} if store else {})


class SnapshotStore(Protocol):
    """Records and tars by owner and id. Raises `StoreError` where it fails, `NotFoundError` for what is not there."""

    async def save(self, record: SnapshotRecord, tar: Path) -> None:
        """Keep a snapshot. The record comes last: what can be listed is whole."""
        ...

    async def load(self, owner: str, snapshot_id: str) -> SnapshotRecord:
        """A record."""
        ...

    async def fetch(self, owner: str, snapshot_id: str, into: Path) -> None:
        """Write a snapshot's tar to a file."""
        ...

    async def listed(self, owner: str) -> list[SnapshotRecord]:
        """All records of an owner, in no order."""
        ...

    async def delete(self, owner: str, snapshot_id: str) -> None:
        """Forget a snapshot; one that is not there is forgotten already."""
        ...


class MemorySnapshotStore:
    """Snapshots of this process, at most `most` bytes of tars together."""

    def __init__(self, most: int = _MEMORY) -> None:
        self._most = most
        self._all: OrderedDict[tuple[str, str], tuple[SnapshotRecord, bytes]] = OrderedDict()

    async def save(self, record: SnapshotRecord, tar: Path) -> None:
        """See `SnapshotStore.save`."""
        used = sum(len(data) for _, data in self._all.values())
        if used + record.size_bytes > self._most:
            raise StoreError("the memory store is full", hint="Delete snapshots, or use the store file or s3.")
        self._all[record.owner, record.snapshot_id] = (record, await anyio.to_thread.run_sync(tar.read_bytes))

    async def load(self, owner: str, snapshot_id: str) -> SnapshotRecord:
        """See `SnapshotStore.load`."""
        return self._found(owner, snapshot_id)[0]

    async def fetch(self, owner: str, snapshot_id: str, into: Path) -> None:
        """See `SnapshotStore.fetch`."""
        await anyio.to_thread.run_sync(into.write_bytes, self._found(owner, snapshot_id)[1])

    async def listed(self, owner: str) -> list[SnapshotRecord]:
        """See `SnapshotStore.listed`."""
        return [record for record, _ in self._all.values() if record.owner == owner]

    async def delete(self, owner: str, snapshot_id: str) -> None:
        """See `SnapshotStore.delete`."""
        self._all.pop((owner, snapshot_id), None)

    def _found(self, owner: str, snapshot_id: str) -> tuple[SnapshotRecord, bytes]:
        found = self._all.get((owner, snapshot_id))
        if found is None:
            raise _not_found(snapshot_id)
        return found


class FileSnapshotStore:
    """Snapshots in a folder (default: ``snapshots`` in the state folder), files of mode 0600."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    async def save(self, record: SnapshotRecord, tar: Path) -> None:
        """See `SnapshotStore.save`."""
        await anyio.to_thread.run_sync(self._save, record, tar)

    async def load(self, owner: str, snapshot_id: str) -> SnapshotRecord:
        """See `SnapshotStore.load`."""
        return await anyio.to_thread.run_sync(self._load, self._path(owner, snapshot_id, ".json"), snapshot_id)

    async def fetch(self, owner: str, snapshot_id: str, into: Path) -> None:
        """See `SnapshotStore.fetch`."""
        path = self._path(owner, snapshot_id, ".tar.gz")
        try:
            await anyio.to_thread.run_sync(shutil.copyfile, path, into)
        except OSError as error:
            raise StoreError(f"snapshot {snapshot_id} cannot be read: {error.strerror}") from error

    async def listed(self, owner: str) -> list[SnapshotRecord]:
        """See `SnapshotStore.listed`."""
        return await anyio.to_thread.run_sync(lambda: list(self._listed(owner)))

    async def delete(self, owner: str, snapshot_id: str) -> None:
        """See `SnapshotStore.delete`."""
        try:
            for suffix in (".json", ".tar.gz"):
                self._path(owner, snapshot_id, suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"snapshot {snapshot_id} cannot be deleted: {error.strerror}") from error

    def _save(self, record: SnapshotRecord, tar: Path) -> None:
        try:
            self._folder(record.owner).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._put(self._path(record.owner, record.snapshot_id, ".tar.gz"), tar)
            described = tar.with_suffix(".json")
            described.write_bytes(msgspec.json.encode(record))
            self._put(self._path(record.owner, record.snapshot_id, ".json"), described)
            described.unlink()
        except OSError as error:
            raise StoreError(f"the snapshot cannot be written: {error.strerror}", hint="Check free space.") from error

    def _put(self, target: Path, origin: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as writer, origin.open("rb") as reader:
            shutil.copyfileobj(reader, writer, 1024 * 1024)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(target)

    def _load(self, path: Path, snapshot_id: str) -> SnapshotRecord:
        try:
            return _decoded(path.read_bytes(), snapshot_id)
        except FileNotFoundError:
            raise _not_found(snapshot_id) from None
        except OSError as error:
            raise StoreError(f"snapshot {snapshot_id} cannot be read: {error.strerror}") from error

    def _listed(self, owner: str) -> Iterator[SnapshotRecord]:
        for path in self._folder(owner).glob("*.json"):
            yield self._load(path, path.stem)

    def _folder(self, owner: str) -> Path:
        return (self._root or home("snapshots")) / _part(owner)

    def _path(self, owner: str, snapshot_id: str, suffix: str) -> Path:
        return self._folder(owner) / f"{snapshot_id}{suffix}"


class S3SnapshotStore:
    """Snapshots in a bucket of S3 or of what speaks like it. Needs the ``[s3]`` extra.

    Credentials are those that boto3 finds (environment, shared files, instance role). Tars are sent and fetched in
    parts, never held in memory whole.
    """

    def __init__(
        self, bucket: str, *, prefix: str = "computeragent", endpoint: str | None = None, region: str | None = None
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._endpoint = endpoint
        self._region = region

    async def save(self, record: SnapshotRecord, tar: Path) -> None:
        """See `SnapshotStore.save`."""
        await self._do(self._save, record, tar)

    async def load(self, owner: str, snapshot_id: str) -> SnapshotRecord:
        """See `SnapshotStore.load`."""
        key = self._key(owner, snapshot_id, ".json")
        return _decoded(await self._do(self._read, key, snapshot_id), snapshot_id)

    async def fetch(self, owner: str, snapshot_id: str, into: Path) -> None:
        """See `SnapshotStore.fetch`."""
        key = self._key(owner, snapshot_id, ".tar.gz")
        await self._do(self._client.download_file, self._bucket, key, str(into))

    async def listed(self, owner: str) -> list[SnapshotRecord]:
        """See `SnapshotStore.listed`."""
        return await self._do(self._listed, owner)

    async def delete(self, owner: str, snapshot_id: str) -> None:
        """See `SnapshotStore.delete`."""
        for suffix in (".json", ".tar.gz"):
            await self._do(self._delete, self._key(owner, snapshot_id, suffix))

    def _save(self, record: SnapshotRecord, tar: Path) -> None:
        self._client.upload_file(str(tar), self._bucket, self._key(record.owner, record.snapshot_id, ".tar.gz"))
        key = self._key(record.owner, record.snapshot_id, ".json")
        self._client.put_object(Bucket=self._bucket, Key=key, Body=msgspec.json.encode(record))

    def _read(self, key: str, snapshot_id: str) -> bytes:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            raise _not_found(snapshot_id) from None

    def _listed(self, owner: str) -> list[SnapshotRecord]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{_part(owner)}/"
        )
        keys = [str(each["Key"]) for page in pages for each in page.get("Contents", [])]
        return [_decoded(self._read(key, key), key) for key in keys if key.endswith(".json")]

    def _delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)

    def _key(self, owner: str, snapshot_id: str, suffix: str) -> str:
        return f"{self._prefix}/{_part(owner)}/{snapshot_id}{suffix}"

    @cached_property
    def _client(self) -> Any:
        try:
            boto3: Any = importlib.import_module("boto3")
            config: Any = importlib.import_module("botocore.config").Config
        except ImportError as error:
            hint = "pip install 'computer-agent-py[s3]'"
            raise MissingExtraError("snapshots in S3 need the [s3] extra", hint=hint) from error
        patience = config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 2, "mode": "standard"})
        return boto3.client("s3", endpoint_url=self._endpoint, region_name=self._region, config=patience)

    async def _do(self, function: Any, *args: Any) -> Any:
        try:
            return await anyio.to_thread.run_sync(function, *args)
        except (NotFoundError, StoreError, MissingExtraError):
            raise
        except Exception as error:
            raise StoreError(
                f"the bucket does not answer as it should: {type(error).__name__}", hint="See the server's log."
            ) from error


def stores_from_environment(environ: Any = os.environ) -> dict[str, SnapshotStore]:
    """``memory``, ``file``, and ``s3`` where S3_BUCKET (S3_PREFIX, S3_ENDPOINT, AWS_REGION) is set."""
    stores: dict[str, SnapshotStore] = {"memory": MemorySnapshotStore(), "file": FileSnapshotStore()}
    if bucket := environ.get("S3_BUCKET"):
        stores["s3"] = S3SnapshotStore(
            bucket,
            prefix=environ.get("S3_PREFIX") or "computeragent",
            endpoint=environ.get("S3_ENDPOINT") or None,
            region=environ.get("AWS_REGION") or None,
        )
    return stores


def _part(owner: str) -> str:
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _decoded(data: bytes, snapshot_id: str) -> SnapshotRecord:
    try:
        return msgspec.json.decode(data, type=SnapshotRecord)
    except msgspec.DecodeError as error:
        raise StoreError(f"snapshot {snapshot_id[:140]} is damaged: {error}", hint="Delete it.") from error


def _not_found(snapshot_id: str) -> NotFoundError:
    return NotFoundError(f"snapshot {snapshot_id[:140]} not found", hint="GET /snapshots lists yours.")
