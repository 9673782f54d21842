"""Chromium as Playwright starts it: which program, with which flags, in which environment."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from computeragent.computer.chromium import NAMES, QUIET
from computeragent.computer.programs import base_environment
from computeragent.computer.reaper import MARK
from computeragent.errors import ComputerError
from computeragent.processes import marks
from computeragent.settings import setting

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")

FLAGS = (*QUIET, "--test-type")
"""`--test-type`: no bar that says which flags are set."""


def find_chromium(given: str | None = None) -> str | None:
    """The program: the one given, `COMPUTERAGENT_CHROMIUM`, the first on PATH; None when Playwright's own must do.

    Raises `ComputerError` when one is named and not there.
    """
    named = setting("chromium", given)
    if named is None:
        return next((found for name in NAMES if (found := shutil.which(name))), None)
    found = shutil.which(str(Path(named).expanduser()))
    if found is None:
        raise ComputerError(f"the browser {named!r} is no program", hint="Mend or unset COMPUTERAGENT_CHROMIUM.")
    return found


def not_found() -> ComputerError:
    """What to say when there is no Chromium at all."""
    return ComputerError(
        "no Chromium was found",
        hint="Install it (`apt-get install chromium`, or `playwright install chromium`), or name the program in "
        "COMPUTERAGENT_CHROMIUM.",
    )


def environment(home: Path, *, display: str | None) -> dict[str, str]:
    """What Chromium gets of its host: nothing that a page, or a program that it starts, might tell on."""
    names = [*_PROXIES, *(name.lower() for name in _PROXIES), *(["XAUTHORITY"] if display else [])]
    extra = {name: os.environ[name] for name in names if name in os.environ}
    extra |= {"XDG_RUNTIME_DIR": str(home)} | ({"DISPLAY": display} if display else {})
    return base_environment(home, extra)


def may_use_sandbox() -> bool:
    """Chromium's own sandbox does not start for root."""
    return os.geteuid() != 0


def profile_of(mark: str) -> Path | None:
    """The folder that Playwright's driver has made for the profile of the browser with this mark. Reads `/proc`."""
    for pid, each in marks(MARK).items():
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if each == mark else []
            for argument in arguments:
                name, _, value = os.fsdecode(argument).partition("=")
                if name == "--user-data-dir" and Path(value).name.startswith("playwright_"):
                    return Path(value)
    return None
