"""Who acts, where nobody says so."""

from __future__ import annotations

import getpass
import os

from computeragent.policy.types import PolicyPrincipal


def process_user() -> PolicyPrincipal:
    """Who runs this process."""
    return PolicyPrincipal(user_name())


def user_name() -> str:
    """The name of who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in many containers
        return str(os.getuid())
