"""What a sandbox server refuses, and what fails in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from computeragent.errors import ComputerAgentError, MissingPathError, ValidationError


class MissingSourceError(ValidationError):
    """A request names no agent."""

    code = "MISSING_SOURCE"


class MissingHarnessError(ValidationError):
    """A request names no engine."""

    code = "MISSING_HARNESS"


class MissingMessageError(ValidationError):
    """A request says nothing to the agent."""

    code = "MISSING_MESSAGE"


class MissingParamError(MissingPathError):
    """A query lacks a parameter."""

    code = "MISSING_PARAM"


class InvalidTtlError(ValidationError):
    """A time to live that is not more than zero."""

    code = "INVALID_TTL"


class _NotHereError(ValidationError):
    noun: ClassVar[str] = "name"

    def __init__(self, requested: str, available: Iterable[str]) -> None:
        names = sorted(available)
        hint = f"Available: {', '.join(names) or 'none'}."
        details: dict[str, Any] = {"available": names}
        super().__init__(f"{self.noun} {requested[:100]!r} is not offered here", hint=hint, details=details)


class UnknownRuntimeError(_NotHereError):
    """A sandbox server does not offer this runtime."""

    code = "UNKNOWN_RUNTIME"
    noun = "runtime"


class UnknownTaskStoreError(_NotHereError):
    """A sandbox server has no task store of this kind."""

    code = "UNKNOWN_TASK_STORE"
    noun = "task store"


class UnknownStateStoreError(_NotHereError):
    """A sandbox server has no snapshot store of this kind."""

    code = "UNKNOWN_STATE_STORE"
    noun = "snapshot store"


class _TooManyError(ComputerAgentError):
    status = 429
    noun: ClassVar[str] = "things"

    def __init__(self, active: int, most: int) -> None:
        hint = "Try again when one has ended."
        details = {"active": active, "max": most}
        super().__init__(f"{active} {self.noun} of at most {most} are under way", hint=hint, details=details)


class TooManyRunsError(_TooManyError):
    """As many runs are under way as a sandbox server allows."""

    code = "TOO_MANY_RUNS"
    noun = "runs"


class TooManyTasksError(_TooManyError):
    """As many tasks run and wait as a sandbox server allows."""

    code = "TOO_MANY_TASKS"
    noun = "tasks"


class TooManySandboxesError(_TooManyError):
    """As many sandboxes live as a sandbox server allows."""

    code = "TOO_MANY_SANDBOXES"
    noun = "sandboxes"


class BusyError(ComputerAgentError):
    """A sandbox is in the middle of a turn."""

    code = "BUSY"
    status = 409


class RestoringError(ComputerAgentError):
    """A sandbox is being filled from a snapshot."""

    code = "RESTORING"
    status = 409


class GoneError(ComputerAgentError):
    """A sandbox or task has ended, and its files with it."""

    code = "GONE"
    status = 410


class SnapshotExistsError(ComputerAgentError):
    """A snapshot of this id exists."""

    code = "SNAPSHOT_EXISTS"
    status = 409


class AttachmentError(ComputerAgentError):
    """An attachment could not be written."""

    code = "ATTACHMENT_WRITE_FAILED"
    status = 500


class SnapshotError(ComputerAgentError):
    """A snapshot could not be taken or stored."""

    code = "SNAPSHOT_FAILED"
    status = 500


class RestoreError(ComputerAgentError):
    """A snapshot could not be restored: it is damaged, hostile, or its store fails."""

    code = "RESTORE_FAILED"
    status = 500


class ListError(ComputerAgentError):
    """Snapshots could not be listed."""

    code = "LIST_FAILED"
    status = 500


class DeleteError(ComputerAgentError):
    """A snapshot could not be deleted."""

    code = "DELETE_FAILED"
    status = 500
