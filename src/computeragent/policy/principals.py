"""Who acts, where nobody says so."""

from __future__ import annotations

import getpass
import os

from computeragent.policy.types import PolicyPrincipal


def process_user() -> PolicyPrincipal:
    """Who runs this process."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in many containers
        name = str(os.getuid())
    return PolicyPrincipal(name)
