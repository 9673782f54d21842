"""Recorded sessions as evaluations: a folder that Inspect runs. Needs no Inspect itself."""

from computeragent.evals.files import TaskFile, files_at, files_of
from computeragent.evals.recorded import RecordedSession, of_events, of_transcript
from computeragent.evals.task import Written, write_task

__all__ = [
    "RecordedSession",
    "TaskFile",
    "Written",
    "files_at",
    "files_of",
    "of_events",
    "of_transcript",
    "write_task",
]
