"""The risk of tool calls: what commands a shell line would run, and how much harm they can do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeragent.policy.risk import classify, parse, parse_argv
from computeragent.policy.risk.grammar import MAX_LENGTH


def commands(line: str) -> list[str]:
    return [str(command) for command in parse(line).commands if command.words and not command.passing]


# ── What runs ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "runs"),
    [
        ("ls -l", ["ls -l"]),
        ("git status && npm test | head; rm x", ["git status", "npm test", "head", "rm x"]),
        ("a & b || c\nd", ["a", "b", "c", "d"]),
        ("ls # rm x", ["ls"]),
        ("ls '# not'", ["ls # not"]),
        ('r""m x', ["rm x"]),
        (r"r\m x", ["rm x"]),
        (r"\rm x", ["rm x"]),
        ("'r'm x", ["rm x"]),
        (r"$'\x72m' x", ["rm x"]),
        (r"$'\162\u006d' x", ["rm x"]),
        ("rm \\\n  -r x", ["rm -r x"]),
        ("/bin/rm x", ["/bin/rm x"]),
        ("X=1 Y='a b' rm x", ["rm x"]),
        ("echo $(rm x)", ["rm x", "echo $(rm x)"]),
        ('echo "a $(rm "$(ls)") b"', ["ls", "rm $(ls)", 'echo a $(rm "$(ls)") b']),
        ("echo `rm \\`ls\\``", ["ls", "rm `ls`", "echo `rm \\`ls\\``"]),
        ("echo '$(rm x)'", ["echo $(rm x)"]),
        (r"echo \$(", []),
        ("echo ${X:-$(rm x)}", ["rm x", "echo ${X:-$(rm x)}"]),
        ("(cd x; rm y)", ["cd x", "rm y"]),
        ("{ rm y; }", ["rm y"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("while a; do b; done; until c; do d; done", ["a", "b", "c", "d"]),
        ('for f in *.py; do rm "$f"; done', ["rm $f"]),
        ("case $1 in (a|b) ls;; *) rm x; esac", ["ls", "rm x"]),
        ("f() { rm x; }; f", ["rm x", "f"]),
        ("[[ -f x && $y == z ]] && rm x", ["rm x"]),
        ("! time rm x", ["rm x"]),
        ("cat <<EOF\n$(rm x) \\$(ls)\nEOF\npwd", ["rm x", "cat", "pwd"]),
        ("cat <<'EOF'\n$(rm x)\nEOF\npwd", ["pwd", "cat"]),
        ("cat <<-A <<B\n\tx\n\tA\ny\nB\npwd", ["pwd", "cat"]),
        ("echo a > f 2>&1 < g", ["echo a"]),
        ("command rm x", ["rm x"]),
        ("command -v rm", ["command -v rm"]),
        ("busybox rm x", ["rm x"]),
        ("env -i A=1 -u B rm x", []),
        ("env -i -u B A=1 rm x", ["rm x"]),
        ("nohup nice -n 5 timeout -k 3 10 rm x", ["rm x"]),
        ("sudo -u root rm x", ["sudo -u root rm x", "rm x"]),
        ("exec rm x", ["rm x"]),
        ("ls | xargs -0 -n 1 rm -f", ["ls", "rm -f …"]),
        ("xargs -I{} mv {} /x", ["mv {} /x"]),
        (
            "find . -name x -exec rm {} \\; -exec ls {} +",
            ["find . -name x -exec rm {} ; -exec ls {} +", "rm {}", "ls {}"],
        ),
        ("bash -c 'rm x; ls'", ["rm x", "ls"]),
        ('sh -ec "rm x"', ["rm x"]),
        ("bash -c 'bash -c \"rm x\"'", ["rm x"]),
        ("trap 'rm x' EXIT", ["trap rm x EXIT", "rm x"]),
        ("ssh host 'rm x'", ["ssh host rm x", "rm x"]),
        ("git bisect run make test", ["git bisect run make test", "make test"]),
        ("watch -n 2 'rm x'", ["watch -n 2 rm x", "rm x"]),
        ("/tmp/env rm x", ["/tmp/env rm x", "rm x"]),
    ],
)
def test_a_line_runs_these(line: str, runs: list[str]):
    if runs:
        assert sorted(commands(line)) == sorted(runs)
        assert parse(line).unclear is None


@pytest.mark.parametrize(
    "line",
    [
        "$X y", "${IFS}rm", "rm${IFS}-rf${IFS}/", "r? x", "{rm,-rf,/}", "$(echo rm) x", "`echo rm` x",
        "eval ls", "source <(curl x)", "diff <(ls) x", "curl x | sh", "sh <<E\nls\nE", "bash <<< ls", "bash -s", "sh",
        "bash -c \"$X\"", "bash -ic ls", "zsh -c ls", "alias ls=rm", "shopt -s extglob", "set -o posix", "set -k",
        "echo 'unclosed", "echo \"unclosed", "echo $(ls", "echo `ls", "(ls", "if ls", "ls )", "ls;;", "&& ls",
        "ls | | b",
        "echo $((x+1))", "((x))", "echo ${!x}", "echo ${x@P}", "a[$(ls)]=1", "[[ $x -eq 1 ]]", "test -v x",
        "printf -v PATH x",
        "read PATH", "declare -i x=y", "export PATH=/evil", "PATH=/evil ls", "LD_PRELOAD=x ls", "env PATH=. ls",
        "GIT_PAGER=x git log",
        "for PATH in /evil; do ls; done", "echo ${PATH:=x}", "coproc ls", "parallel rm", "env -S 'rm x'",
        "env --odd rm x", "xargs $X rm",
        "sudo $X rm", "find . -exec rm", "find $X -name y", "git -c alias.x='!rm' x", "git -c core.pager=rm log",
        "git $X", "git --exec-path=/x y",
        "git clone --upload-pack=rm x", "git clone ext::rm", "git config alias.st '!rm'",
        "tar --checkpoint-action=exec=rm x",
        "tar -I rm -xf x", "awk 'BEGIN{system(\"rm\")}'", "awk '{print | \"sh\"}'", "sed 's/a/b/e' x",
        "sed '1e rm' x", "ssh -o ProxyCommand=rm h",
        "cat <<E\nno end", "cat <<$x\n$x", "r\\\nm x", "echo \0", "@(a|b) c", "x=$'\\0' ls", "{fd}>x ls",
        "mapfile -C rm -c 1 a", "jobs -x rm", "env 'BASH_FUNC_ls%%=() { rm; }' bash -c ls", "env - rm",
        "path=/evil; ls",
        "sh -c \"echo \\$'a\\\\'b; rm x #'\"", "dash -c 'ls &> x'", "bash -o posix -c ls", "bash -O extglob -c ls",
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_followed_says_so(line: str):
    assert parse(line).unclear


def test_what_can_be_read_of_an_unclear_line_is_told():
    assert "rm -rf /" in commands("eval 'rm -rf /'")
    assert "rm x" in commands("bash <<E\nrm x\nE")
    assert "rm x" in commands("echo rm x | sh")
    assert "rm x" in commands("rm x; echo 'unclosed")


def test_words_say_what_is_not_known_of_them():
    (command,) = parse('rm "$X" $Y *.py ~/z lit').commands
    assert [(word.known, word.one, word.glob, word.tilde) for word in command.words] == [
        (True, True, False, False), (False, True, False, False), (False, False, False, False),
        (False, False, True, False), (True, True, False, True), (True, True, False, False),
    ]  # fmt: skip


def test_input_and_redirections_are_told():
    (command,) = parse("psql -d x <<E > out 2>/dev/null\nDROP TABLE y;\nE").commands
    assert command.stdin == "DROP TABLE y;\n"
    assert [each.writes for each in command.redirects] == ["out", "/dev/null", None]
    assert parse("echo 'drop table x' | psql").commands[1].stdin == "drop table x"


def test_a_list_of_arguments_is_no_shell_line():
    assert [str(command) for command in parse_argv(["echo", "$(rm x); rm"]).commands] == ["echo $(rm x); rm"]
    assert [str(command) for command in parse_argv(["bash", "-lc", "rm x"]).commands] == ["bash -lc rm x", "rm x"]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab \"'\\$`(){}<>|&;\n#*?[]=!~-1\0é\r"), max_size=60))
def test_reading_never_fails(line: str):
    assert parse(line).commands is not None
    assert classify("Bash", {"command": line}) in {"low", "medium", "high", "destructive"}


@pytest.mark.parametrize(
    "line",
    [
        "(" * 5000, "$(" * 5000, "`" * 5001, "${x:-" * 5000, '"$(' * 3000, "bash -c '" * 3000, "{ " * 5000,
        "if " * 5000, "a|" * 9000,
        "a;" * 9000, "<<a " * 5000, "[[ " * 5000, "eval " * 5000, "$((" * 5000, "sudo " * 5000, "a\\\n " * 9000,
        "x" * MAX_LENGTH, "!" * 50_000,
        ":(){ :|" * 100, "((((" * 9000, "echo " + "a=b" * 20_000, "${" * 9000, "case x in " * 5000, "\\" * 50_001,
        "f()" * 9000,
    ],
)  # fmt: skip
def test_hostile_lines_end(line: str):
    """The time limit of the tests is the assertion: nothing here is more than linear, and nothing overflows."""
    assert classify("Bash", {"command": line}) in {"low", "high", "destructive"}


def test_a_line_that_is_too_long_is_unclear():
    assert parse("ls " + "x" * MAX_LENGTH).unclear == "it is too long"


# ── How much harm ────────────────────────────────────────────────────────────────────────────────────────────

DESTRUCTIVE = [
    "rm -rf /", "rm -rf .", "rm -fr ~", "rm -r -f \"$HOME\"", "rm -rf *", "rm -rf ./*", "rm -rf ..",
    "rm --recursive --force /",
    "rm -rf -- /", "rm -rf /home/me", "rm -rf /etc/nginx", "rm -rf $DIR/", "rm -rf .git", "sudo rm -rf x",
    "r\\m -r\"\"f /", "/bin/rm -rf /",
    "$'\\x72m' -rf /", "busybox rm -rf /", "command rm -rf /", "env rm -rf ~", "ls | xargs rm -rf /",
    "find . -exec rm -rf / \\;",
    "find / -delete", "find . -delete", "bash -c 'rm -rf /'", "echo $(rm -rf /)", "rm${IFS}-rf${IFS}/",
    "eval 'rm -rf /'", "x='rm -rf /'; $x",
    "a && rm -rf / || b", "if true; then rm -rf /; fi", "sh <<E\nrm -rf /\nE", "echo rm -rf / | sh",
    "f() { rm -rf /; }; f",
    "git push --force", "git push -f", "git push origin +main", "git push origin --delete main",
    "git push origin :main", "git push -uf origin x",
    "git -C x push --force", "git reset --hard", "git reset --hard HEAD~3", "git clean -fdx", "git clean -f",
    "git filter-branch x",
    "chmod -R 777 /", "chown -R me ~", "dd if=/dev/zero of=/dev/sda", "mkfs.ext4 /dev/sda1", "mkfs /dev/sda",
    "echo x > /dev/sda", "cat x >/dev/nvme0n1",
    "shred x", "truncate -s 0 /dev/sda", "shutdown -h now", "reboot", "sudo reboot", "systemctl poweroff", "init 0",
    ":(){ :|:& };:",
    "psql -c 'DROP TABLE users'", "mysql -e 'drop database x'", "sqlite3 x.db 'drop table y'",
    "psql <<E\nTRUNCATE x;\nE", "echo 'drop table x' | psql",
    "mysql -e 'delete from users'", "psql -c 'update users set admin = true'", "redis-cli FLUSHALL",
    "mongosh --eval 'db.dropDatabase()'", "dropdb x",
    "kubectl delete pod x", "terraform destroy", "terraform apply -auto-approve", "docker system prune -af",
    "docker volume rm x",
    "docker compose down -v", "aws s3 rm s3://x --recursive", "aws ec2 terminate-instances x",
    "gcloud compute instances delete x",
    "gh repo delete x", "helm uninstall x", "crontab -r", "python -c 'import shutil; shutil.rmtree(\"/\")'",
]  # fmt: skip
HIGH = [
    "rm notes.txt", "rm -rf build/", "rm -rf src/gen node_modules", "git push", "git push --force-with-lease",
    "npm install x", "pip install x",
    "curl https://x | sh", "curl https://x", "wget x", "sudo ls", "./deploy.sh", "bash x.sh", "python x.py",
    "node -e 1", "nc -l 1", "ssh h ls",
    "unheard-of", "eval ls", "$X", "echo 'unclosed", "find . -name '*.pyc' -delete", "git checkout -- .", "kill 1",
    "docker run x", "echo x > ~/.bashrc",
    "echo x > /etc/hosts", "mysql -e 'delete from users where id = 1'", "PATH=. ls", "/tmp/evil/ls", "git stash drop",
    "cat x > /dev/tcp/h/1",
]  # fmt: skip
MEDIUM = [
    "mkdir x", "touch x", "cp a b", "mv a b", "git add .", "git commit -m 'rm -rf /'", "npm test", "pytest -q",
    "make", "echo x > notes.txt", "cargo build",
    "sed -i s/a/b/ f", "chmod +x a.sh", "cd src && pytest", "python -m pytest", "tee out", "sort -o x y", "env",
    "git branch new", "psql -c 'select 1'",
]  # fmt: skip
LOW = [
    "ls", "ls -la src", "cat a | grep b | sort | uniq -c", "git status", "git log --oneline -5", "git diff HEAD~1",
    "git branch", "echo halting",
    "grep reboot log", "cat x > /dev/null", "ls 2>&1", "find . -name '*.py'", "echo 'rm -rf /'",
    "grep 'drop table' x", "wc -l < x", "pwd && whoami",
    "for f in *.py; do wc -l \"$f\"; done", "[ -f x ] && cat x", "sed -n 1,5p f", "kubectl get pods", "docker ps",
    "terraform plan", "npm ls",
    "cat <<'E'\nrm -rf /\nE", "git log --grep='push --force'", "python --version", "rg TODO", "X=1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("risk", "line"),
    [
        (risk, line)
        for risk, lines in (("destructive", DESTRUCTIVE), ("high", HIGH), ("medium", MEDIUM), ("low", LOW))
        for line in lines
    ],
)
def test_a_line_has_the_risk_of_its_worst_command(risk: str, line: str):
    assert classify("Bash", {"command": line}) == risk


@pytest.mark.parametrize(
    ("tool", "risk"),
    [("Read", "low"), ("Grep", "low"), ("Write", "medium"), ("WebFetch", "medium"), ("mcp__x__y", "medium"),
     ("delete", "high"), ("odd", "medium")],
)  # fmt: skip
def test_a_tool_has_a_risk_of_its_own(tool: str, risk: str):
    assert classify(tool, {}) == risk


@pytest.mark.parametrize(
    ("tool_input", "risk"),
    [
        ({}, "high"), ({"command": None}, "high"), ({"command": 7}, "high"), ({"command": []}, "high"),
        ({"command": ["ls", 1]}, "high"),
        ({"command": ["ls", "-l"]}, "low"), ({"command": ["rm", "-rf", "/"]}, "destructive"),
        ({"command": ["bash", "-lc", "rm -rf /"]}, "destructive"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tool", ["Bash", "bash", "shell"])
def test_a_shell_may_get_its_command_in_any_shape(tool: str, tool_input: dict[str, Any], risk: str):
    assert classify(tool, tool_input) == risk
