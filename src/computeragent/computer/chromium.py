"""Chromium as a program of a computer: which one, and the flags with which it starts quietly, as root too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

QUIET = (
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-session-crashed-bubble",
    "--disable-smooth-scrolling",
    "--password-store=basic",
    "--noerrdialogs",
)
"""No questions at the first start, no traffic of its own, no scrolling that the next click could cut short."""

AS_ROOT = ("--no-sandbox", "--test-type")
"""Root gets no sandbox of Chromium's; `--test-type` keeps the warning from shifting every page down by 56 pixels."""


def with_flags(arguments: Sequence[str], profile: Path, width: int, height: int) -> list[str]:
    """Arguments for a window that fills the screen, with a profile of its own. What the caller states stays."""
    flags = [*QUIET, f"--user-data-dir={profile}", "--window-position=0,0", f"--window-size={width},{height}"]
    flags += AS_ROOT if os.geteuid() == 0 else ()
    stated = {argument.partition("=")[0] for argument in arguments}
    return [*(flag for flag in flags if flag.partition("=")[0] not in stated), *arguments]
