"""What becomes of pipelines when their process forks or ends."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING

from computeragent.logs import Logger
from computeragent.settings import setting

if TYPE_CHECKING:
    from computeragent.telemetry.pipeline import Pipeline

EXIT_TIMEOUT = 3.0
"""Seconds that the end of the process waits for delivery, unless `COMPUTERAGENT_EXIT_TIMEOUT` says otherwise.

What is left in the spool goes with the next process.
"""

_log = Logger("telemetry")
_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def mind(pipeline: Pipeline) -> None:
    """Have a pipeline start afresh after a fork, and deliver what can be delivered before the process ends."""
    _pipelines.add(pipeline)
    _mind_process()


def close_all(timeout: float) -> None:
    """Close every pipeline of this process, in about `timeout` seconds at most."""
    deadline = time.monotonic() + timeout
    for pipeline in list(_pipelines):
        if pipeline.used:
            pipeline.close(max(0.1, deadline - time.monotonic()))


def _reset_all() -> None:
    for pipeline in list(_pipelines):
        pipeline.reset_after_fork()


@lru_cache(maxsize=1)
def _mind_process() -> None:
    os.register_at_fork(after_in_child=_reset_all)
    atexit.register(close_all, _exit_timeout())


def _exit_timeout() -> float:
    given = setting("exit_timeout")
    try:
        seconds = EXIT_TIMEOUT if given is None else float(given)
    except ValueError:
        seconds = math.nan
    if seconds >= 0:  # false for NaN too
        return min(seconds, threading.TIMEOUT_MAX / 2)
    _log.warn("exit_timeout_ignored", value=given, hint="COMPUTERAGENT_EXIT_TIMEOUT takes seconds, such as 10.")
    return EXIT_TIMEOUT
