"""``--audit-log``: where decisions are kept, and what is said when they could not be."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from computeragent.approval import printable
from computeragent.errors import AuditFileError
from computeragent.settings import setting
from computeragent.telemetry.sinks.audit_file import AuditFileSink


def audit_sinks(given: str | None) -> list[AuditFileSink]:
    """The sink of the file that is named, which can be written; none for none.

    Raises `AuditFileError`: what is to be audited does not run without.
    """
    path = setting("audit_log", given)
    if not path:
        return []
    try:
        sink = AuditFileSink(path)
        sink.open()
    except OSError as error:
        raise AuditFileError(
            f"the audit file {path} cannot be written: {error.strerror or error}", hint="Choose another --audit-log."
        ) from error
    return [sink]


def warn_unwritten(sinks: Sequence[AuditFileSink]) -> None:
    """Say on stderr what an audit file did not take."""
    for sink in sinks:
        if sink.failing is not None:
            print(
                f"warning: decisions could not be written to {printable(str(sink.path))}: {printable(sink.failing)}; "
                "they are kept, and written by the next command with this --audit-log",
                file=sys.stderr,
            )
