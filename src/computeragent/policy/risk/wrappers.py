"""Programs that run other programs, followed inwards: `env`, `sudo`, `xargs`, `find -exec`, `bash -c` and more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from computeragent.policy.risk.git import follow_git
from computeragent.policy.risk.names import risky_variable
from computeragent.policy.risk.script import Command, Word

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
_SYSTEM = re.compile(r"/(?:usr/)?(?:local/)?s?bin/[^/]+|/opt/homebrew/bin/[^/]+")


@dataclass(frozen=True, slots=True)
class Followed:
    """A command that another one runs."""

    command: Command


Step = Followed | str | Command
"""What following a command finds: a command it runs, shell text it runs, or a command as it is."""


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """How a program's own options end and the command that it runs begins.

    `flags` and `values` are its short options without and with a value, `long` and `long_values` the long ones.
    `operands` come before the command. A `transparent` wrapper changes nothing that a policy would look at.
    """

    flags: str = ""
    values: str = ""
    long: frozenset[str] = frozenset()
    long_values: frozenset[str] = frozenset()
    operands: int = 0
    assignments: bool = False
    transparent: bool = True
    queries: str = field(default="")
    """Short options with which it runs nothing."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WRAPPERS = {
    "command": _Wrapper("p", queries="vV"),
    "builtin": _Wrapper(),
    "exec": _Wrapper("cl", "a"),
    "nohup": _Wrapper(),
    "setsid": _Wrapper("cfw", long=_names("ctty fork wait")),
    "time": _Wrapper("pv", "fo", long=_names("portability verbose"), long_values=_names("format output")),
    "nice": _Wrapper("0123456789", "n", long_values=_names("adjustment")),
    "ionice": _Wrapper("t", "cn", long_values=_names("class classdata"), queries="p"),
    "stdbuf": _Wrapper("", "ioe", long_values=_names("input output error")),
    "timeout": _Wrapper(
        "v", "ks", _names("foreground preserve-status verbose"), _names("kill-after signal"), operands=1
    ),
    "env": _Wrapper("i0v", "u", _names("ignore-environment null debug"), _names("unset"), assignments=True),
    "busybox": _Wrapper(),
    "toybox": _Wrapper(),
    "sudo": _Wrapper(
        "AbEHknPS", "ughpCrtTUDR", _names("askpass preserve-env non-interactive set-home stdin"),
        _names("user group host prompt close-from role type chroot chdir"), assignments=True, transparent=False,
        queries="lvKVe",
    ),
    "doas": _Wrapper("n", "uC", transparent=False, queries="L"),
    "watch": _Wrapper("bceptwxgd", "nq", _names("beep color errexit precise no-title exec"), _names("interval"),
                      transparent=False),
    "xargs": _Wrapper(
        "0rtpxo", "nPILsdEa", _names("null no-run-if-empty verbose interactive exit open-tty"),
        _names("max-args max-procs replace delimiter arg-file max-lines max-chars"),
    ),
}  # fmt: skip
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "rbash"})
_BASH_LIKE = frozenset({"sh", "bash", "dash", "ash", "rbash"})
_BASH_ALONE = re.compile(r"\$['\"]|&>|<<<|\[\[|\(\(|\|&|;&|\bfunction\b|[<>]\(")
"""What bash reads in another way than other shells do."""
_PLAIN_OPTIONS = _names("pipefail errexit nounset xtrace noglob noclobber errtrace")
_UNFOLLOWED = _names(
    "parallel strace ltrace gdb script unshare nsenter chroot setarch runuser systemd-run at batch screen tmux expect "
    "entr rlwrap firejail bwrap flock repeat noglob nocorrect coproc let chpst runit start-stop-daemon proot fakeroot "
    "cgexec numactl taskset chrt linux32 linux64 pkexec gosu su-exec setpriv capsh unbuffer dbus-run-session xvfb-run "
    "eatmydata ld.so sshpass torsocks proxychains proxychains4 mosh hyperfine bash-completion enable caller fc bind "
    "compgen complete history hash disown -"
)


def follow(command: Command) -> Iterator[Step]:
    """The command, as far as it acts itself, and what it runs. A wrapper that cannot be followed is unclear."""
    program = command.words[0]
    if not program.known or not program.text or program.text.startswith(("=", "~")):
        yield replace(command, unclear="the program is not written out")
        return
    name = command.program
    special = _SPECIAL.get(name)
    if special is not None:
        steps = special(command)
    elif name in _WRAPPERS:
        steps = _unwrap(command, _WRAPPERS[name])
    else:
        steps = _single(command)
    if is_installed(program.text):
        yield from steps
        return
    yield command  # a program of one's own, whatever its name
    yield from (step for step in steps if step is not command and not (isinstance(step, Command) and step.passing))


def is_installed(program: str) -> bool:
    """Whether this is looked up in PATH, or is where a system has its programs."""
    return "/" not in program or _SYSTEM.fullmatch(program) is not None


def _single(command: Command) -> Iterator[Step]:
    name = command.program
    if name in _UNFOLLOWED or name.startswith("ld-linux"):
        yield replace(command, unclear=f"{name} can run other commands")
    else:
        yield command


def _unwrap(command: Command, wrapper: _Wrapper) -> Iterator[Step]:
    name = command.program
    rest = _after_options(command, wrapper)
    if rest is None:
        yield replace(command, unclear=f"where the command of {name} begins cannot be told")
        return
    words = rest[wrapper.operands :]
    set_: list[tuple[str, Word]] = []
    while wrapper.assignments and words and (found := _ASSIGNMENT.fullmatch(words[0].text)) is not None:
        set_.append((found[1], Word(found[2], known=words[0].known)))
        words = words[1:]
        if risky_variable(found[1], found[2]):
            yield Command(unclear=f"it sets {found[1]}, which changes what runs")
    if not words:
        yield command
        return
    if wrapper.assignments and "=" in words[0].text:
        yield replace(command, unclear=f"what {name} sets can change what runs")
        return
    yield replace(command, redirects=(), passing=True) if wrapper.transparent else command
    inner = replace(
        command,
        words=words,
        assignments=command.assignments + tuple(set_),
        via=command.via if name in {"command", "builtin", "exec"} else (*command.via, name),
    )
    yield Followed(_with_arguments(command, inner) if name == "xargs" else inner)


def _after_options(command: Command, wrapper: _Wrapper) -> tuple[Word, ...] | None:
    """The words after the options; none where it runs nothing, None where they cannot be told."""
    words = command.words[1:]
    index = 0
    while index < len(words):
        word = words[index]
        if not word.known and (not word.one or not re.match(r"\w", word.text)):
            return None
        if not word.text.startswith("-") or word.text == "-":
            break
        index += 1
        if word.text == "--":
            break
        if not word.known:
            return None
        takes = _takes(word.text, wrapper)
        if takes is None:
            return None
        if takes < 0:
            return ()
        index += takes
    if any(not word.one for word in words[index : index + wrapper.operands + 1]):
        return None
    return words[index:]


def _takes(option: str, wrapper: _Wrapper) -> int | None:
    """How many words after it belong to an option; -1 where it means that nothing is run, None where unknown."""
    if option.startswith("--"):
        name, equals, _ = option[2:].partition("=")
        if name in wrapper.long:
            return 0
        if name in wrapper.long_values:
            return 0 if equals or name == "replace" else 1
        return -1 if name in {"help", "version"} else None
    for at, letter in enumerate(option[1:], 1):
        if letter in wrapper.values:
            return 0 if at + 1 < len(option) else 1
        if letter in wrapper.queries:
            return -1
        if letter not in wrapper.flags:
            return None
    return 0


def _with_arguments(xargs: Command, inner: Command) -> Command:
    """The command of xargs, with the arguments that it adds."""
    options = [word.text for word in xargs.words[1 : len(xargs.words) - len(inner.words)]]
    replaced = "{}" if any(option.startswith("--replace") for option in options) else None
    for at, option in enumerate(options):
        if option.startswith("-I"):
            replaced = option[2:] or (options[at + 1] if at + 1 < len(options) else None)
        elif option.startswith("--replace="):
            replaced = option.partition("=")[2]
    if replaced is None:
        return replace(inner, words=(*inner.words, Word("…", known=False, one=False)))
    return replace(inner, words=_filled(inner.words, replaced))


def _filled(words: tuple[Word, ...], mark: str) -> tuple[Word, ...]:
    return tuple(Word(word.text, known=False) if mark in word.text else word for word in words)


def _shell(command: Command) -> Iterator[Step]:
    words, name = command.words[1:], command.program
    index, takes_script, odd = 0, False, name not in _BASH_LIKE
    while index < len(words) and words[index].known and words[index].text[:1] in {"-", "+"}:
        option = words[index].text
        index += 1
        if option in {"-", "--"}:
            break
        takes_script = takes_script or (option[0] == "-" and option[1] != "-" and "c" in option[1:])
        odd = odd or re.fullmatch(r"[-+][abcefhlmnptuvxBCEHPT]+|--(?:norc|noprofile|posix|login)|[-+]o", option) is None
        if re.fullmatch(r"[-+]\w*[oO]", option):
            odd = odd or index >= len(words) or words[index].text not in _PLAIN_OPTIONS
            index += 1
    if takes_script:
        script = words[index] if index < len(words) else None
        odd = odd or (name != "bash" and script is not None and _BASH_ALONE.search(script.text) is not None)
        if script is None or not script.known or odd:
            yield replace(command, unclear=f"what {name} -c runs cannot be told")
        else:
            yield replace(command, redirects=(), passing=True)
            if command.redirects:
                yield replace(command, words=())
        if script is not None and script.known:
            yield script.text
    elif index >= len(words):
        yield replace(command, unclear=f"{name} reads its commands from its input")
        if command.stdin is not None:
            yield command.stdin
    elif odd or not words[index].known:
        yield replace(command, unclear=f"what {name} runs cannot be told")
    else:
        yield command


def _eval(command: Command) -> Iterator[Step]:
    yield replace(command, unclear="eval runs what its words say")
    if all(word.known for word in command.words):
        yield " ".join(word.text for word in command.words[1:])


def _trap(command: Command) -> Iterator[Step]:
    words = [word for word in command.words[1:] if word.text != "--"]
    if words and not words[0].known:
        yield replace(command, unclear="what trap runs cannot be told")
        return
    yield command
    if len(words) > 1 and words[0].text not in {"-", "", "-l", "-p"}:
        yield words[0].text


def _alias(command: Command) -> Iterator[Step]:
    defined = any("=" in word.text or not word.known for word in command.words[1:])
    yield replace(command, unclear="an alias changes what commands mean") if defined else command
    for word in command.words[1:]:
        if word.known and "=" in word.text:
            yield word.text.partition("=")[2]


def _set(command: Command) -> Iterator[Step]:
    odd = False
    for at, word in enumerate(command.words[1:], 1):
        if word.text == "--":
            break
        before = command.words[at - 1].text
        plain = re.fullmatch(r"[-+][efuxvCEn]*o?", word.text) or (before.endswith("o") and word.text in _PLAIN_OPTIONS)
        odd = odd or not word.known or not plain
    yield replace(command, unclear="options of the shell change how lines are read") if odd else command


def _shopt(command: Command) -> Iterator[Step]:
    setting = any(not word.known or re.match(r"-\w*[su]", word.text) for word in command.words[1:])
    yield replace(command, unclear="options of the shell change how lines are read") if setting else command


def _variables(command: Command) -> Iterator[Step]:
    """Builtins that set variables by name: a subscript or an integer attribute runs commands."""
    if command.program in {"mapfile", "readarray"} and any(re.match(r"-\w*C", word.text) for word in command.words):
        yield replace(command, unclear=f"{command.program} -C runs commands")
        return
    for word in command.words[1:]:
        name, equals, value = word.text.partition("=")
        plain = word.known or (equals and re.fullmatch(r"\w+", name))
        if not plain or "[" in name or (re.match(r"[-+]\w*[inaAF]", word.text) and command.program in _DECLARES):
            yield replace(command, unclear=f"{command.program} can run what its words say")
            return
        if risky_variable(name.rstrip("+"), value if word.known else None):
            yield replace(command, unclear=f"it sets {name}, which changes what runs")
            return
    yield command


def _jobs(command: Command) -> Iterator[Step]:
    runs = any(re.match(r"-\w*x", word.text) or not word.known for word in command.words[1:])
    yield replace(command, unclear="jobs -x runs a command") if runs else command


def _printf(command: Command) -> Iterator[Step]:
    if any(word.text.startswith("-v") or not word.one for word in command.words[1:2]):
        yield from _variables(replace(command, words=command.words[:4]))
    else:
        yield command


def _test(command: Command) -> Iterator[Step]:
    odd = any(word.text in {"-v", "-R"} or (not word.one and not word.glob) for word in command.words[1:])
    yield replace(command, unclear="a test of a variable can run commands") if odd else command


def _find(command: Command) -> Iterator[Step]:
    words = command.words
    split = next((word for word in words[1:] if not word.one and not word.glob), None)
    yield command if split is None else replace(command, unclear="what find is asked to do cannot be told")
    start: int | None = None
    for at, word in enumerate(words):
        if start is not None and (word.text == ";" or (word.text == "+" and words[at - 1].text == "{}")):
            yield _run_by(command, "find", _filled(words[start:at], "{}"))
            start = None
        elif start is None and word.text in {"-exec", "-execdir", "-ok", "-okdir"}:
            start = at + 1
    if start is not None:
        yield replace(command, unclear="where the command of find ends cannot be told")


def _fd(command: Command) -> Iterator[Step]:
    words = command.words
    yield command
    for at, word in enumerate(words):
        if re.fullmatch(r"-\w*[xX]|--exec(?:-batch)?", word.text) and at + 1 < len(words):
            yield _run_by(command, "fd", (*_filled(words[at + 1 :], "{"), Word("…", known=False, one=False)))
            return
        if re.match(r"-\w*[xX].|--exec", word.text) or not word.one:
            yield replace(command, unclear="what fd runs cannot be told")
            return


def _run_by(command: Command, name: str, words: tuple[Word, ...]) -> Step:
    if not words:
        return replace(command, unclear=f"what {name} runs cannot be told")
    return Followed(Command(words, command.assignments, via=(*command.via, name)))


def _ssh(command: Command) -> Iterator[Step]:
    options = _Wrapper("46AaCfGgKkMNnqsTtVvXxYy", "BbcDEeFIiJLlmOopQRSWw")
    rest = _after_options(command, options)
    before = command.words if rest is None else command.words[: len(command.words) - len(rest)]
    runs = any(re.search(r"(?i)command|^-F|^-S|proxy|^-J", word.text) or not word.known for word in before[1:])
    if rest is None or runs or any(not word.one for word in rest):
        yield replace(command, unclear="what ssh runs cannot be told")
        return
    yield command
    if len(rest) > 1:
        if all(word.known for word in rest[1:]):
            yield " ".join(word.text for word in rest[1:])
        else:
            yield replace(command, unclear="what ssh runs cannot be told")


def _su(command: Command) -> Iterator[Step]:
    words = command.words
    yield command
    for at, word in enumerate(words[:-1]):
        if word.text in {"-c", "--command"} and words[at + 1].known:
            yield words[at + 1].text
            return
    yield replace(command, unclear="what su runs cannot be told")


def _watch(command: Command) -> Iterator[Step]:
    rest = _after_options(command, _WRAPPERS["watch"])
    if rest is None or any(not word.known for word in rest):
        yield replace(command, unclear="what watch runs cannot be told")
        return
    yield command
    yield " ".join(word.text for word in rest)


def _tar(command: Command) -> Iterator[Step]:
    runs = re.compile(r"--(?:checkpoint-a|to-c|use-c|info|new-v|rsh|rmt)|-\w*[IF]")
    odd = any((not word.one and not word.glob) or runs.match(word.text) for word in command.words[1:])
    yield replace(command, unclear="tar can be told to run commands") if odd else command


def _awk(command: Command) -> Iterator[Step]:
    runs = re.compile(r"system|(?<!\|)\|(?!\|)|getline|@load|^-[flie]|^--|-\w*E")
    odd = any((not word.one and not word.glob) or runs.search(word.text) for word in command.words[1:])
    yield replace(command, unclear="awk can run commands") if odd else command


def _sed(command: Command) -> Iterator[Step]:
    runs = re.compile(r"(?:^|[;{}\n\d$/!,\s])[ewW](?:\s|$|[;}])|[^\w\s\\][0-9a-zA-Z]*[ewW][0-9a-zA-Z]*\s*(?:[;}\n]|$)")
    plain = [word for word in command.words[1:] if not re.match(r"-[niErsz]+$|--", word.text)]
    scripts = plain if any(word.text.startswith("-") for word in plain) else plain[:1]
    odd = any((not word.known and not word.glob) or runs.search(word.text) for word in scripts)
    odd = odd or any(re.match(r"-\w*f|--file|--expr", word.text) for word in command.words[1:])
    yield replace(command, unclear="what the sed script does cannot be told") if odd else command


def _git(command: Command) -> Iterator[Step]:
    for step in follow_git(command):
        yield Followed(step[0]) if isinstance(step, tuple) else step


_DECLARES = frozenset({"declare", "typeset", "local", "readonly", "export"})
_Follow = Callable[[Command], Iterator[Step]]
_SPECIAL: dict[str, _Follow] = {
    "eval": _eval, "trap": _trap, "jobs": _jobs, "alias": _alias, "set": _set, "shopt": _shopt, "setopt": _shopt,
    "printf": _printf, "test": _test, "[": _test, "find": _find, "gfind": _find, "fd": _fd, "fdfind": _fd,
    "ssh": _ssh, "su": _su, "watch": _watch, "tar": _tar, "gtar": _tar, "bsdtar": _tar, "git": _git,
    "awk": _awk, "gawk": _awk, "mawk": _awk, "nawk": _awk, "sed": _sed, "gsed": _sed,
}  # fmt: skip
_SPECIAL.update(dict.fromkeys(_SHELLS, _shell))
_SPECIAL.update(dict.fromkeys([*_DECLARES, "read", "mapfile", "readarray", "unset", "getopts", "wait"], _variables))
