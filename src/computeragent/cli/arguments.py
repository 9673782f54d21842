"""What the rows of the command line share: types of arguments, and where a server is."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

POLICY = 'judge every tool call by it: a rules (.yaml) or Cedar (.cedar) file, or JSON such as {"kind": "opa", …}'
"""The help of ``--policy``."""

_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def count(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def event_id(text: str) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def amount(text: str) -> float:
    """An amount above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


def moment(text: str) -> float:
    """A moment as epoch seconds: so long ago (``30m``, ``12h``, ``7d``), or a date of ISO 8601, with a time or not."""
    if (ago := _AGO.fullmatch(text)) is not None:
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"must be such as 30m, 12h, 7d or 2026-01-31, not {text!r}") from None


def port(text: str) -> int:
    """A port; 0 is any."""
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, not {value}")
    return value


def add_server(parser: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    """The flags that name a server and its key."""
    parser.add_argument(
        "--harness-url",
        metavar="URL",
        help="a server, such as http://127.0.0.1:7700, instead of this machine "
        "(default: COMPUTERAGENT_HARNESS_URL; an empty one means this machine)",
    )
    parser.add_argument(
        "--harness-token-file",
        metavar="FILE",
        help="where its key is (default: COMPUTERAGENT_HARNESS_TOKEN; then, on loopback, the key of this "
        "account's own server)",
    )
    parser.add_argument(
        "--harness-token", metavar="TOKEN", help="its key itself: others on this machine may see it in the process list"
    )
