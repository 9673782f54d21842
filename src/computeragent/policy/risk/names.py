"""Names that change what runs: variables that programs take commands, code or search paths from."""

from __future__ import annotations

import re

_RISKY = re.compile(
    r"(?:PATH|IFS|ENV|BASH_ENV|SHELL|SHELLOPTS|BASHOPTS|PS[0-4]|CDPATH|HOME|XDG_CONFIG_\w+|ZDOTDIR|FPATH|fpath|path|cdpath|module_path"
    r"|(?:LD|DYLD|GIT|PYTHON|PERL|RUBY|NODE|npm_config|NPM_CONFIG|LESS|MANPAGER|GCONV|BASH_FUNC|CARGO|GO|PIP|UV|MAKE)_?\w*"
    r"|\w*(?:PAGER|EDITOR|VISUAL|BROWSER|COMMAND|ASKPASS|PROXY|proxy|_OPTS|_OPTIONS|WRAPPER|_RSH)"
    r"|RSYNC_\w+|TAR_OPTIONS|CLASSPATH|CC|CXX|RUSTC|MAKEFLAGS|LC_ALL|LANG|LC_CTYPE)(?:\+)?",
)
_HARMLESS = frozenset({"NODE_ENV", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "CARGO_TERM_COLOR"})
_PLAIN_LOCALES = frozenset({"C", "POSIX", "C.UTF-8", "en_US.UTF-8"})


def risky_variable(name: str, value: str | None = None) -> bool:
    """Whether setting this variable can change which programs run, or make a program run others."""
    if name in _HARMLESS or (name in {"LANG", "LC_ALL", "LC_CTYPE"} and value in _PLAIN_LOCALES):
        return False
    return _RISKY.fullmatch(name) is not None
