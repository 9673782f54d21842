"""The sandbox server: runs, background tasks, warm sandboxes, snapshots. Start with `create_sandbox_server`."""

from __future__ import annotations

from computeragent.server.sandboxes.app import create_sandbox_server
from computeragent.server.sandboxes.limits import SandboxLimits
from computeragent.server.sandboxes.snapshot_stores import FileSnapshotStore, MemorySnapshotStore, S3SnapshotStore
from computeragent.server.sandboxes.task_stores import MemoryTaskStore, SqliteTaskStore

__all__ = [
    "FileSnapshotStore",
    "MemorySnapshotStore",
    "MemoryTaskStore",
    "S3SnapshotStore",
    "SandboxLimits",
    "SqliteTaskStore",
    "create_sandbox_server",
]
