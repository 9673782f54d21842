"""The git program: a small environment of its own, progress by the line, and no child left behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
from anyio.abc import ByteReceiveStream

from computeragent.errors import SourceError

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_NO_VERIFY"),
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_EXEC_PATH"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
)
_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("init.templateDir", ""),
    ("init.defaultBranch", "main"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("filter.lfs.smudge", ""),
    ("filter.lfs.process", ""),
    ("filter.lfs.required", "false"),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
)
_PROGRESS = re.compile(r"(?:remote: )?(?P<phase>[A-Z][a-z]+ (?:objects|deltas|files)): +(?P<percent>\d+)%")
_KEPT_LINES = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a git command ended. `said` are the lines of its standard error, without progress."""

    code: int
    out: str
    said: list[str]


@dataclass(frozen=True, slots=True)
class Git:
    """Runs git commands with the settings of one clone. `config` may carry a secret: it is not shown."""

    config: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    allow_file: bool = False
    progress: Callable[[str], None] | None = None

    async def __call__(self, *arguments: str, cwd: Path | None = None) -> Outcome:
        """Run one command to its end. Cancelled, it is killed with all its children."""
        environment = git_environment(os.environ, self.config, allow_file=self.allow_file)
        try:
            process = await anyio.open_process(
                ["git", *arguments],
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise SourceError("git is not installed", hint="Install git, or use a local directory.") from None
        out: list[bytes] = []
        said: list[str] = []
        try:
            async with anyio.create_task_group() as group:
                if process.stdout is not None:
                    group.start_soon(_collect, process.stdout, out)
                if process.stderr is not None:
                    group.start_soon(self._listen, process.stderr, said)
            code = await process.wait()
        finally:
            if process.returncode is None:
                _kill(process.pid)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        return Outcome(code, b"".join(out).decode("utf-8", "replace"), said)

    async def _listen(self, stream: ByteReceiveStream, said: list[str]) -> None:
        pending, last = b"", ""
        async for chunk in stream:
            *lines, pending = re.split(rb"[\r\n]+", pending + chunk)
            for line in lines:
                last = self._hear(line, last, said)
        self._hear(pending, last, said)

    def _hear(self, raw: bytes, last: str, said: list[str]) -> str:
        line = "".join(char for char in raw.decode("utf-8", "replace") if char.isprintable()).strip()
        found = _PROGRESS.match(line)
        if not found:
            if line:
                said.append(line)
                del said[:-_KEPT_LINES]
            return last
        step = f"{found['phase']} {int(found['percent']) // 25 * 25}%"  # a few lines for a clone, not thousands
        if self.progress is not None and step != last:
            self.progress(step)
        return step


def git_environment(
    base: Mapping[str, str], config: Iterable[tuple[str, str]] = (), *, allow_file: bool = False
) -> dict[str, str]:
    """The environment of a git process: what it needs of `base`, and settings that turn off what could run or ask.

    The caller's own ``GIT_CONFIG_COUNT`` settings stay, with ours after them.
    """
    environment = {name: base[name] for name in _KEPT if name in base}
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GCM_INTERACTIVE": "never",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git" + (":file" if allow_file else ""),
    }
    settings = [*_callers_settings(base), *_SETTINGS, *config]
    environment["GIT_CONFIG_COUNT"] = str(len(settings))
    for index, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


def _callers_settings(base: Mapping[str, str]) -> list[tuple[str, str]]:
    count = base.get("GIT_CONFIG_COUNT", "")
    names = range(int(count)) if count.isascii() and count.isdigit() and len(count) < 5 else range(0)
    pairs = [(base.get(f"GIT_CONFIG_KEY_{index}"), base.get(f"GIT_CONFIG_VALUE_{index}")) for index in names]
    return [(key, value) for key, value in pairs if key is not None and value is not None]


async def _collect(stream: ByteReceiveStream, into: list[bytes]) -> None:
    into.extend([chunk async for chunk in stream])


def _kill(group: int) -> None:
    """Kill git and its helpers, which share its process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
