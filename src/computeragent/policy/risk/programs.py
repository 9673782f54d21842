"""How much harm a command can do: what each program does, with these arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from computeragent.policy.risk.git import read_git
from computeragent.policy.risk.script import Command
from computeragent.policy.risk.wrappers import is_installed
from computeragent.wire.events import Risk

ORDER: tuple[Risk, ...] = ("low", "medium", "high", "destructive")

_Judge = Callable[[Command], Risk]


def highest(*risks: Risk) -> Risk:
    """The highest of some risks; ``low`` without any."""
    return ORDER[max(map(ORDER.index, risks), default=0)]


def command_risk(command: Command) -> Risk:
    """The risk class of one command. What is not known is ``high``."""
    if command.passing:
        return "low"
    if command.unclear is not None and not command.words:
        return "high"
    name = command.program
    risk: Risk = "low" if not command.words else "high"
    if command.words and is_installed(command.words[0].text):
        judge = _JUDGES.get(name)
        risk = judge(command) if judge is not None else _BY_NAME.get(name, "high")
    if command.unclear is not None:
        risk = highest(risk, "high")
    if "sudo" in command.via or "doas" in command.via:
        risk = highest(risk, "high")
    written = [target for each in command.redirects if (target := each.writes) is not None]
    return highest(risk, *map(_write_risk, written))


def _write_risk(target: str) -> Risk:
    if target in {"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"} or target.startswith("/dev/fd/"):
        return "low"
    if target.startswith(("/dev/tcp/", "/dev/udp/")):
        return "high"
    if target.startswith("/dev/"):
        return "destructive"
    return "high" if _outside(target) else "medium"


def _outside(path: str) -> bool:
    return path.startswith(("/", "~", "..", "$")) and not path.startswith(("/tmp/", "/var/tmp/"))  # noqa: S108


def _has(command: Command, letters: str, *long: str) -> bool:
    """Whether it has one of these short options, alone or in a cluster, or one of the long ones (or its beginning)."""
    for text in command.texts:
        if text == "--":
            return False
        if re.fullmatch(r"-\w+", text) and any(letter in text for letter in letters):
            return True
        name = text.partition("=")[0]
        if len(name) > 3 and any(option.startswith(name) for option in long):
            return True
    return False


def _operands(command: Command) -> list[str]:
    texts = command.texts
    if "--" in texts:
        at = texts.index("--")
        return [text for text in texts[:at] if not text.startswith("-")] + texts[at + 1 :]
    return [text for text in texts if not text.startswith("-")]


_EVERYTHING = re.compile(
    r"(?:/|~|\.|\.\.|\*|\$\{?HOME\}?|\$\{?PWD\}?|~\w+|/home/[^/]*|/Users/[^/]*|/[a-zA-Z*{][\w*,{}.-]*|(?:\.\./)+\.\.|\$\{?\w+\}?"
    r"|\.\[.*|\.\*|\.git|\.\?.*)(?:/|/\*|/\.|/\.\.|/\{.*\})*"
)

_SYSTEM = re.compile(
    r"/(?:etc|usr|bin|sbin|lib\w*|boot|root|sys|proc|dev|opt|var/(?!tmp/)|System|Library|Applications)/"
)


def _wide(path: str) -> bool:
    """Whether a path is more than a part of a project: the folder itself, a home, what lies at the root, all names."""
    tidy = re.sub(r"/{2,}", "/", path)
    return _EVERYTHING.fullmatch(tidy) is not None or _SYSTEM.match(tidy) is not None


def _rm(command: Command) -> Risk:
    recursive = _has(command, "rR", "--recursive", "--no-preserve-root")
    if any(text.startswith("/dev/") for text in _operands(command)):
        return "destructive"
    elevated = recursive and bool({"sudo", "doas"} & set(command.via))
    return "destructive" if elevated or (recursive and any(map(_wide, _operands(command)))) else "high"


def _ownership(command: Command) -> Risk:
    recursive = _has(command, "R", "--recursive")
    if recursive and any(map(_wide, _operands(command))):
        return "destructive"
    return "high" if recursive or any(map(_outside, _operands(command)[1:])) else "medium"


def _dd(command: Command) -> Risk:
    targets = [text[3:] for text in command.texts if text.startswith("of=")]
    return highest("high", *map(_write_risk, targets))


def _find(command: Command) -> Risk:
    texts = command.texts
    if "-delete" in texts:
        start = [text for text in texts[: texts.index("-delete")] if not text.startswith("-")]
        narrow = any(text in {"-name", "-iname", "-path", "-mtime", "-newer", "-empty", "-regex"} for text in texts)
        wide = not start or texts[0].startswith("-") or _wide(texts[0])
        return "destructive" if wide and (not narrow or _outside(texts[0])) else "high"
    if any(text.startswith(("-fprint", "-fls")) for text in texts):
        return "medium"
    return "low"


_GIT_READS = frozenset(
    [
        "status",
        "log",
        "diff",
        "show",
        "blame",
        "grep",
        "ls-files",
        "ls-tree",
        "ls-remote",
        "rev-parse",
        "rev-list",
        "describe",
        "shortlog",
        "cat-file",
        "name-rev",
        "merge-base",
        "for-each-ref",
        "show-ref",
        "count-objects",
        "check-ignore",
        "check-attr",
        "diff-tree",
        "diff-index",
        "var",
        "help",
        "version",
        "whatchanged",
        "cherry",
        "range-diff",
        "annotate",
        "fsck",
        "verify-commit",
        "verify-tag",
    ]
)
_GIT_WRITES = frozenset(
    [
        "add",
        "commit",
        "mv",
        "fetch",
        "init",
        "switch",
        "merge",
        "cherry-pick",
        "revert",
        "apply",
        "am",
        "format-patch",
        "notes",
        "worktree",
        "pull",
        "clone",
        "sparse-checkout",
        "bisect",
        "archive",
    ]
)


def _git(command: Command) -> Risk:
    call = read_git(command)
    if call is None:
        return "high"
    rest = Command(command.words[:1] + call.arguments)
    texts = rest.texts
    if call.subcommand in _GIT_READS or not call.subcommand:
        return "medium" if any(text.startswith("--output") for text in texts) else "low"
    if call.subcommand in _GIT_WRITES:
        return "medium"
    judge = _GIT.get(call.subcommand)
    return "high" if judge is None else judge(rest)


def _git_push(command: Command) -> Risk:
    texts = command.texts
    forced = "--mirror" in texts or "--prune" in texts or any(t in {"--force", "--forc", "--delete"} for t in texts)
    forced = forced or any(re.fullmatch(r"-\w*[fd]\w*", text) for text in texts)
    forced = forced or any(text.startswith(("+", ":")) and len(text) > 1 for text in texts)
    return "destructive" if forced else "high"


def _git_reset(command: Command) -> Risk:
    return "destructive" if any(text.startswith("--h") or text == "--merge" for text in command.texts) else "medium"


def _git_clean(command: Command) -> Risk:
    if _has(command, "n", "--dry-run"):
        return "low"
    return "destructive" if _has(command, "fdxX", "--force") else "medium"


def _git_checkout(command: Command) -> Risk:
    texts = command.texts
    drops = "--" in texts or "." in texts or _has(command, "f", "--force")
    return "high" if drops else "medium"


def _git_branch(command: Command) -> Risk:
    if _has(command, "D") or (_has(command, "d", "--delete") and _has(command, "f", "--force")):
        return "high"
    reads = not _operands(command) or _has(command, "larv", "--list", "--contains", "--show-current")
    return "low" if reads and not _has(command, "dmMcC", "--delete", "--move", "--copy") else "medium"


def _git_stash(command: Command) -> Risk:
    first = command.texts[:1]
    return "low" if first in (["list"], ["show"]) else "high" if first in (["drop"], ["clear"]) else "medium"


def _git_listing(command: Command) -> Risk:
    first = command.texts[:1]
    reads = first in ([], ["-v"], ["-l"], ["--list"], ["-n"], ["show"], ["get-url"], ["--get"], ["status"], ["list"])
    return "low" if reads else "medium"


def _git_history(command: Command) -> Risk:
    return "destructive" if {"expire", "delete"} & set(command.texts) or "--prune=now" in command.texts else "low"


_GIT: dict[str, _Judge] = {
    "push": _git_push, "reset": _git_reset, "clean": _git_clean, "checkout": _git_checkout,
    "restore": lambda _: "high",
    "branch": _git_branch, "stash": _git_stash, "tag": _git_listing, "remote": _git_listing, "config": _git_listing,
    "submodule": _git_listing, "reflog": _git_history, "gc": _git_history, "rebase": lambda _: "high",
    "rm": lambda _: "high", "update-ref": lambda c: "destructive" if "-d" in c.texts else "high",
    "filter-branch": lambda _: "destructive", "filter-repo": lambda _: "destructive",
}  # fmt: skip

_SQL_READS = re.compile(r"\s*(?:select|explain|show|describe|\\d|\.schema|\.tables|pragma\s+\w+\s*;?\s*$|with\b)", re.I)
_SQL_DROPS = re.compile(
    r"\b(?:drop\s+(?:table|database|schema|view|index|user|role|collection)|truncate\b|alter\s+table\b[^;]*\bdrop\b"
    r"|(?:delete\s+from|update)\s+[\w.\"`\[\]]+(?:\s+set\b(?:(?!\bwhere\b)[^;])*)?\s*(?:;|$)|dropdatabase|flushall|flushdb)"
    r"|\.drop\w*\(|\bdeletemany\(\s*\{\s*\}",
    re.I,
)


def _sql(command: Command) -> Risk:
    said = [*command.texts, command.stdin or ""]
    if any(_SQL_DROPS.search(text[:20_000]) for text in said):
        return "destructive"
    queries = [after for before, after in pairwise(command.texts) if before in {"-c", "-e", "--command", "--execute"}]
    if (
        queries
        and not command.piped
        and all(_SQL_READS.match(query) and ";" not in query.rstrip("; ") for query in queries)
    ):
        return "medium"
    return "high"


def _words(*destructive: str, reads: str = "", default: Risk = "high") -> _Judge:
    """By the words of the command: some destroy, some read."""
    patterns = [re.compile(each) for each in destructive]
    reading = frozenset(reads.split())

    def judge(command: Command) -> Risk:
        said = " ".join(command.texts)
        if any(pattern.search(said) for pattern in patterns):
            return "destructive"
        operands = _operands(command)
        return "low" if operands and operands[0] in reading else default

    return judge


def _runner(work: str, reads: str = "") -> _Judge:
    """A tool of a project: its everyday work is ``medium``, and everything else ``high``."""
    known, reading = frozenset(work.split()), frozenset(reads.split())

    def judge(command: Command) -> Risk:
        operands = _operands(command)
        if set(command.texts) & {"--version", "-v", "-V", "--help"} and len(command.texts) == 1:
            return "low"
        if operands and operands[0] in reading:
            return "low"
        return "medium" if operands and operands[0] in known else "high"

    return judge


def _unless(risk: Risk, letters: str, *long: str) -> _Judge:
    """It only reads, but for these options."""

    def judge(command: Command) -> Risk:
        return (
            risk
            if _has(command, letters, *long) or any(_doubtful(word.text) for word in command.words if not word.known)
            else "low"
        )

    return judge


def _doubtful(text: str) -> bool:
    return text.startswith(("$", "`", "{"))


def _truncate(command: Command) -> Risk:
    return highest("high", *map(_write_risk, _operands(command)))


def _copies(command: Command) -> Risk:
    operands = _operands(command)
    return highest("medium", _write_risk(operands[-1]) if operands else "medium")


def _tee(command: Command) -> Risk:
    return highest("low", *map(_write_risk, _operands(command)))


def _sed(command: Command) -> Risk:
    return "medium" if _has(command, "i", "--in-place") or not _plain_sed(command) else "low"


def _plain_sed(command: Command) -> bool:
    scripts = _operands(command)[:1]
    return (
        bool(scripts)
        and re.fullmatch(r"[0-9,$]*[pdq]|s(.)(?:(?!\1).)*\1(?:(?!\1).)*\1[gpiI0-9]*|/[^/]*/[pd]", scripts[0])
        is not None
    )


def _kill(command: Command) -> Risk:
    return "destructive" if "-1" in command.texts[1:] else "high"


def _crontab(command: Command) -> Risk:
    return "low" if command.texts == ["-l"] else "destructive" if _has(command, "r") else "high"


def _interpreter(command: Command) -> Risk:
    texts = command.texts
    if len(texts) == 1 and texts[0] in {"--version", "-V", "-v", "--help"}:
        return "low"
    if texts[:2] in (["-m", "pytest"], ["-m", "unittest"], ["-m", "ruff"], ["-m", "mypy"]):
        return "medium"
    code = " ".join([*texts, command.stdin or ""])
    return "destructive" if re.search(r"rmtree\(\s*['\"](?:/|~|\.)['\"/]|rm\s+-\w*r\w*\s+[/~*]", code) else "high"


def _shell(command: Command) -> Risk:
    return "low" if command.texts in (["--version"], ["--help"]) else "high"


_BY_NAME: dict[str, Risk] = {}
for _risk, _listed in {
    "low": "ls cat head tail wc pwd echo true false : test [ grep egrep fgrep zgrep cut tr nl comm paste column fold "
    "stat file du df basename dirname realpath readlink whoami id groups uname uptime cal which type whatis apropos "
    "diff cmp md5sum sha1sum sha256sum sha512sum cksum b2sum od hexdump strings jq seq expr tac rev expand unexpand "
    "sleep cd pushd popd dirs shift exit return break continue wait local declare export readonly typeset set unset "
    "read mapfile readarray getopts times ulimit umask jobs fg bg let command builtin ps top free lscpu lsblk nproc "
    "arch locale tput clear factor numfmt bc dc zcat bzcat xzcat more man info help getent pgrep pstree "
    "exec cloc tokei lsof nohup nice timeout time printf ",
    "medium": "mkdir touch patch gzip gunzip zip unzip bzip2 xz zstd tar split csplit mktemp install ar ranlib "
    "pytest tox nox ruff black isort mypy pyright flake8 pylint eslint prettier tsc jest vitest mocha make cmake ninja "
    "gcc g++ clang clang++ cc c++ rustc javac go-test gofmt rustfmt clang-format shellcheck pre-commit ctest awk "
    "gawk mawk printenv env dig nslookup host",
    "destructive": "mkfs wipefs shred fdisk parted sfdisk sgdisk gdisk cfdisk mkswap shutdown reboot halt poweroff "
    "blkdiscard hdparm srm vgremove lvremove pvremove cryptsetup userdel groupdel deluser delgroup dropdb dropuser",
}.items():
    _BY_NAME.update(dict.fromkeys(_listed.split(), _risk))  # type: ignore[arg-type]
_BY_NAME.update(
    {f"mkfs.{kind}": "destructive" for kind in ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "fat", "ntfs", "f2fs")}
)

_PACKAGES = "list show info search freeze check outdated ls view why audit --version -v help"
_JUDGES: dict[str, _Judge] = {
    "rm": _rm, "unlink": lambda _: "high", "rmdir": lambda _: "medium", "chmod": _ownership,
    "chown": _ownership, "chgrp": _ownership,
    "dd": _dd, "find": _find, "git": _git, "truncate": _truncate, "cp": _copies, "mv": _copies,
    "ln": _copies, "rsync": _copies,
    "tee": _tee, "sed": _sed, "kill": _kill, "crontab": _crontab, "sudo": lambda _: "high", "doas": lambda _: "high",
    "sort": _unless("medium", "o", "--output", "--compress-program"),
    "uniq": lambda c: "medium" if len(_operands(c)) > 1 else "low",
    "tree": _unless("medium", "o"), "rg": _unless("high", "", "--pre", "--hostname-bin"),
    "ag": _unless("high", "", "--pager"),
    "xxd": _unless("medium", "r"), "yq": _unless("medium", "i", "--inplace", "--in-place"),
    "less": _unless("high", "oOkK"),
    "fd": _unless("high", "xX", "--exec"), "fdfind": _unless("high", "xX", "--exec"), "base64": _unless("low", ""),
    "date": _unless("high", "s", "--set"), "hostname": lambda c: "high" if _operands(c) else "low",
    "psql": _sql, "mysql": _sql, "mariadb": _sql, "sqlite3": _sql, "sqlcmd": _sql, "mongosh": _sql,
    "mongo": _sql, "duckdb": _sql,
    "redis-cli": _words(r"(?i)\bflush(?:all|db)\b"), "clickhouse-client": _sql, "cqlsh": _sql,
    "kubectl": _words(r"\bdelete\b", r"\bdrain\b", r"\breplace\b.*--force",
                      reads="get describe logs version explain top api-resources"),
    "oc": _words(r"\bdelete\b", reads="get describe logs"),
    "helm": _words(r"\b(?:uninstall|delete)\b", reads="list status get history"),
    "terraform": _words(r"\bdestroy\b", r"-auto-approve\b", r"\bstate rm\b", r"\bapply\b.*-destroy",
                        reads="plan show validate output version fmt"),
    "tofu": _words(r"\bdestroy\b", r"-auto-approve\b", reads="plan show validate output version"),
    "pulumi": _words(r"\bdestroy\b", r"\bstack rm\b", reads="preview version"),
    "cdk": _words(r"\bdestroy\b", reads="diff ls synth"),
    "docker": _words(r"\bprune\b", r"\bvolume rm\b", r"\bdown\b.*(?:-v\b|--volumes)", r"\brm\b.*(?:-\w*v|--volumes)",
                     reads="ps images logs inspect version info stats top port history diff"),
    "podman": _words(r"\bprune\b", r"\bvolume rm\b", reads="ps images logs inspect version info"),
    "docker-compose": _words(r"\bdown\b.*(?:-v\b|--volumes)", reads="ps logs config"),
    "aws": _words(r"\bs3 (?:rb|rm\b.*--recursive)", r"\bs3 sync\b.*--delete",
                  r"\b(?:delete|terminate|destroy|remove|purge|deregister)-\w+"),
    "gcloud": _words(r"\bdelete\b", reads="info version"), "gsutil": _words(r"\brm\b.*-\w*r", r"\brb\b"),
    "az": _words(r"\bdelete\b", r"\bpurge\b"),
    "gh": _words(r"\b(?:repo|release|secret|cache|ssh-key) delete\b", r"-X\s*DELETE"),
    "heroku": _words(r"\bapps:destroy\b", r"\bpg:reset\b"), "fly": _words(r"\bdestroy\b"),
    "vercel": _words(r"\b(?:rm|remove)\b"),
    "systemctl": _words(r"\b(?:poweroff|reboot|halt|kexec)\b", reads="status list-units is-active is-enabled show cat"),
    "init": _words(r"^[06]$"), "telinit": _words(r"^[06]$"),
    "diskutil": _words(r"(?i)erase|partition|zero", reads="list info"),
    "zfs": _words(r"\bdestroy\b", r"\brollback\b", reads="list get"),
    "zpool": _words(r"\bdestroy\b", reads="list status"),
    "npm": _runner("test t run run-script start build ci", _PACKAGES),
    "pnpm": _runner("test run build lint", _PACKAGES),
    "yarn": _runner("test run build lint", _PACKAGES), "bun": _runner("test run build", _PACKAGES),
    "cargo": _runner("build test check clippy fmt run doc bench", "tree metadata search version"),
    "go": _runner("build test vet fmt run doc", "version env list"), "pip": _runner("", _PACKAGES),
    "pip3": _runner("", _PACKAGES),
    "uv": _runner("", "tree version"), "poetry": _runner("check build", "show version"),
    "mvn": _runner("test compile verify package"),
    "gradle": _runner("test build check", "tasks"), "gradlew": _runner("test build check", "tasks"),
    "dotnet": _runner("build test"),
    "brew": _runner("", "list info search"), "apt": _runner("", "list show search policy"), "apt-get": _runner(""),
    "dpkg": lambda c: "low" if _has(c, "lLsS", "--list", "--listfiles", "--status") else "high",
    "crictl": _words(r"\brm[ip]?\b", reads="ps images"), "pkill": lambda _: "high", "killall": lambda _: "high",
}  # fmt: skip
_JUDGES.update(
    dict.fromkeys(["python", "python3", "node", "perl", "ruby", "php", "deno", "lua", "Rscript"], _interpreter)
)
_JUDGES.update(dict.fromkeys(["sh", "bash", "dash", "zsh", "ksh", "ash", "fish"], _shell))
