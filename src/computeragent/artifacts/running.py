"""The ordinary package clients, run as they are configured on this machine, and what their failures mean."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from computeragent.artifacts import cache
from computeragent.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactUnavailableError,
    UnknownVersionError,
)
from computeragent.settings import setting

LIMIT = 1_800.0
"""Seconds that a client may take for one package."""

_SECRET = re.compile(r"(?<=://)[^/@\s]+@|(?i:(?<=_authtoken=)|(?<=_password=)|(?<=bearer ))\S+")
_NETWORK = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET|FETCH_ERROR|ENOTCACHED"
    r"|NewConnectionError|ConnectTimeout|ProxyError|ReadTimeout|Max retries exceeded|Name or service not known"
    r"|Connection refused|Failed to establish|Network is unreachable|code E5\d\d|network error|from versions: none"
)
_UNKNOWN = re.compile(r"code E404|ETARGET|notarget|No matching version|No match found|No matching distribution found")
_CORRUPT = re.compile(r"EINTEGRITY|TAR_BAD_ARCHIVE|DO NOT MATCH THE HASHES|THESE PACKAGES DO NOT MATCH")
_DENIED = re.compile(r"code E401|code E403|ENEEDAUTH|401 Error|403 Error|401 Client|403 Client")


def is_offline(given: bool | None = None) -> bool:
    """Whether the network must not be touched: the argument, else COMPUTERAGENT_OFFLINE."""
    if given is not None:
        return given
    return (setting("offline") or "").strip().lower() not in {"", "0", "false", "no", "off"}


def refuse_offline(what: str) -> None:
    """Raise what tells that the network would be needed."""
    reason = "the cache can only be read" if cache.read_only() else "this machine is offline"
    raise ArtifactUnavailableError(
        f"{what} is not in the cache, and {reason}",
        hint="Run `computeragent artifacts prefetch` where there is a network (of a sandbox: on its host), or "
        "`artifacts seed DIR` from a folder of packages; unset COMPUTERAGENT_OFFLINE to fetch it now.",
    )


def npm(arguments: Sequence[str], cwd: Path, what: str, *, path: str = "") -> str:
    """What npm prints. `path` is put before PATH. Raises `ArtifactError` and its children."""
    program = shutil.which("npm")
    if program is None:
        raise ArtifactError(
            f"npm is needed to fetch {what}", hint="Install npm (Debian: apt-get install npm), or seed the cache."
        )
    env = {"NO_UPDATE_NOTIFIER": "1", "npm_config_update_notifier": "false", "npm_config_fund": "false"}
    if path:
        env["PATH"] = f"{path}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return _run([program, *arguments], cwd, what, env)


def pip(arguments: Sequence[str], cwd: Path, what: str) -> str:
    """What pip prints. Raises `ArtifactError` and its children."""
    found = shutil.which("pip3") or shutil.which("pip")
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip"]
    elif found is not None:
        command = [found]
    else:
        raise ArtifactError(
            f"pip is needed to fetch {what}", hint="Install pip (python -m ensurepip), or seed the cache."
        )
    env = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_REQUIRE_VIRTUALENV": "0"}
    return _run([*command, *arguments], cwd, what, env)


def _run(command: list[str], cwd: Path, what: str, env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactUnavailableError(
            f"{what} could not be fetched within {LIMIT:g} s", hint="Look at the network, and try again."
        ) from error
    except OSError as error:
        raise ArtifactError(f"{command[0]} does not start: {error.strerror}", hint="Mend the installation.") from error
    if done.returncode:
        raise failure(what, f"{done.stderr}\n{done.stdout}", Path(command[0]).name, done.returncode)
    return done.stdout


def failure(what: str, output: str, client: str, status: int) -> ArtifactError:
    """A client's failure, as the error that names the remedy."""
    told = _said(output) or f"exit status {status}"
    if _CORRUPT.search(output):
        return ArtifactCorruptError(
            f"{what} is not what the registry publishes: {told}",
            hint="Empty the client's own cache (npm cache clean --force, pip cache purge), and try again.",
        )
    if _NETWORK.search(output):
        return ArtifactUnavailableError(
            f"no registry answers for {what}: {told}",
            hint="Look at the network and at your npm or pip configuration (registry, proxy), or seed the cache.",
        )
    if _UNKNOWN.search(output):
        return UnknownVersionError(f"{what} is not in the registry: {told}", hint="Choose a version that it has.")
    if _DENIED.search(output):
        return ArtifactError(
            f"the registry does not let this account have {what}: {told}", hint="Look at your npm or pip credentials."
        )
    return ArtifactError(f"{client} could not fetch {what}: {told}", hint="Run the client by hand to see all it says.")


def _said(output: str) -> str:
    """The lines of a client's output that tell what went wrong, without secrets."""
    lines = [line.strip() for line in output.splitlines()]
    telling = [line for line in lines if re.match(r"(npm (error|ERR!)|ERROR:)", line)] or [
        line for line in lines if line
    ]
    kept = [line for line in telling if "complete log" not in line and not line.endswith(("npm error", "npm ERR!"))]
    return _SECRET.sub("***", " ".join(kept[:2]))[:400]
