"""Where settings and state are: argument, then environment, then config file, then default.

State lives under `COMPUTERAGENT_HOME` (default: ``computeragent`` in the XDG state folder), mode 0700.
The config file is ``config.yaml`` in that folder; its keys are the lower-case names of the variables
without their prefix, such as ``session_store`` for ``COMPUTERAGENT_SESSION_STORE``.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from computeragent.errors import ValidationError


def home(*parts: str) -> Path:
    """The state folder, or a folder in it; created with mode 0700 when missing."""
    root = os.environ.get("COMPUTERAGENT_HOME")
    if root:
        base = Path(root).expanduser().absolute()
    else:
        state = os.environ.get("XDG_STATE_HOME")
        base = (Path(state) if state else Path.home() / ".local" / "state") / "computeragent"
    return private_folder(base, *parts, stated_by="COMPUTERAGENT_HOME")


def private_folder(base: Path, *parts: str, stated_by: str) -> Path:
    """A folder, or one in it; created with mode 0700 when missing. `stated_by` is the variable that names `base`.

    Raises `ValidationError` where it cannot be made.
    """
    path = base.joinpath(*parts)
    if not path.is_dir():
        try:
            base.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ValidationError(
                f"the state folder {path} cannot be made: {error.strerror}",
                hint=f"Point {stated_by} at a folder that you may write to.",
            ) from error
    return path


def setting(name: str, given: str | None = None, default: str | None = None) -> str | None:
    """A setting by its lower-case name: the argument, else `COMPUTERAGENT_<NAME>`, else config file, else default."""
    if given is not None:
        return given
    from_env = os.environ.get(f"COMPUTERAGENT_{name.upper()}")
    if from_env:
        return from_env
    value = _config_file(str(home() / "config.yaml")).get(name)
    return default if value is None else str(value)


@lru_cache(maxsize=8)
def _config_file(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        return {}
    import yaml

    try:
        loaded: object = yaml.safe_load(Path(path).read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValidationError(f"{path} is not valid YAML: {error}", hint="Mend or remove the file.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ValidationError(f"{path} must be a mapping of settings", hint="Mend or remove the file.")
    return cast("dict[str, Any]", loaded)
