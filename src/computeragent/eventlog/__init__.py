"""The event log: append, read after an id, retention. Readers see an event only once it is committed."""

from __future__ import annotations

from computeragent.eventlog.channel import Channel, ChannelStream, EventLog, Retention
from computeragent.eventlog.memory import MemoryEventLog
from computeragent.eventlog.redis import RedisEventLog
from computeragent.eventlog.shared import SharedEventLog
from computeragent.eventlog.sqlite import SqliteEventLog
from computeragent.eventlog.sqlite_shared import SharedSqliteEventLog
from computeragent.eventlog.summary import SessionSummary

__all__ = [
    "Channel",
    "ChannelStream",
    "EventLog",
    "MemoryEventLog",
    "RedisEventLog",
    "Retention",
    "SessionSummary",
    "SharedEventLog",
    "SharedSqliteEventLog",
    "SqliteEventLog",
]
