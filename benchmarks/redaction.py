"""What redaction costs: MB/s on clean and dense text, with and without google-re2, and on hostile strings."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from computeragent.telemetry.redaction import Redactor
from computeragent.telemetry.redaction.gate import with_re2

ROUNDS = 5
MEGABYTE = 1_000_000
SECRETS = [
    "maria.lopez@example.org",
    "+44 20 7946 0958",
    "4111 1111 1111 1111",
    "219-09-9999",
    "DE89 3704 0044 0532 0130 00",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "203.0.113.77",
    "password=Tr0ub4dor&3",
]
SENTENCES = [
    "I have read the file and the failing test; the cause is that the parser drops the last segment of the path.",
    "The function returns early when its argument is empty, so the second branch is never reached.",
    "Next I will run the whole suite again and compare the output with what the documentation promises.",
    "There are three call sites, two of them in the server and one in the command line, and all need the change.",
    "It would be simpler to keep the table in one place and let both modules import it from there.",
    "The change is small: a guard before the loop, a clearer message, and a test for each of the two cases.",
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="one round")
    rounds = 1 if arguments.parse_args().quick else ROUNDS
    plain = Redactor(use_re2=False)
    linear = Redactor() if with_re2() else None
    throughput(plain, linear, rounds)
    hostile(plain, linear)
    growth(plain)


def throughput(plain: Redactor, linear: Redactor | None, rounds: int) -> None:
    print(f"{'MB/s (median)':<34}{'without re2':>12}{'with re2':>12}{'ratio':>8}   goal")
    prose = agent_text(2 * MEGABYTE)
    source = python_source(2 * MEGABYTE)
    cases = [
        ("clean agent text, 4 KB pieces", pieces(prose, 4096), "≥ 60 / ≥ 300"),
        ("clean agent text, one string", [prose], "≥ 60 / ≥ 300"),
        ("Python source, one string", [source], ""),
        ("log lines with times and ids", [log_lines(2 * MEGABYTE)], "≥ 10"),
        ("2 % personal data, 4 KB pieces", pieces(dense(prose), 4096), "≥ 20 with re2"),
        ("2 % personal data, one string", [dense(prose)], "≥ 20 with re2"),
    ]
    for name, texts, goal in cases:
        shown(name, rate(plain, texts, rounds), rate(linear, texts, rounds) if linear else 0.0, goal)
    chosen = random.Random(13)
    known = [chosen.randbytes(18).hex() for _ in range(100)]
    slow = rate(Redactor(use_re2=False, known_values=known), [prose], rounds)
    shown("clean text, 100 known secrets", slow, rate(Redactor(known_values=known), [prose], rounds) if linear else 0.0)


def shown(name: str, slow: float, fast: float, goal: str = "") -> None:
    ratio = f"{fast / slow:.1f} ×" if fast else "—"
    print(f"{name:<34}{slow:>12.1f}{fast:>12.1f}{ratio:>8}   {goal}")


def hostile(plain: Redactor, linear: Redactor | None) -> None:
    print(f"\n{'10 MB, ms':<34}{'without re2':>12}{'with re2':>12}   goal ≤ 200")
    for name, make in HOSTILE.items():
        text = make(10 * MEGABYTE)
        slow = seconds(lambda text=text: plain.redact(text)) * 1000
        fast = seconds(lambda text=text: linear.redact(text)) * 1000 if linear else 0.0
        print(f"{name:<34}{slow:>12.0f}{fast:>12.0f}")


def growth(plain: Redactor) -> None:
    print(f"\n{'time of 4 MB by time of 2 MB':<34}{'ratio':>12}   goal ≈ 2")
    for name, make in HOSTILE.items():
        small, large = make(2 * MEGABYTE), make(4 * MEGABYTE)
        ratio = seconds(lambda text=large: plain.redact(text)) / seconds(lambda text=small: plain.redact(text))
        print(f"{name:<34}{ratio:>12.2f}")


def rate(redactor: Redactor, texts: list[str], rounds: int) -> float:
    size = sum(len(text.encode()) for text in texts)
    redactor.redact(texts[0])
    taken = [seconds(lambda: [redactor.redact(text) for text in texts]) for _ in range(rounds)]
    return size / statistics.median(taken) / MEGABYTE


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def agent_text(size: int) -> str:
    chosen = random.Random(7)
    parts: list[str] = []
    total = 0
    while total < size:
        parts.append(chosen.choice(SENTENCES) + ("\n\n" if chosen.random() < 0.2 else " "))
        total += len(parts[-1])
    return "".join(parts)[:size]


def python_source(size: int) -> str:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return "".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.py")))[:size]


def log_lines(size: int) -> str:
    lines = (
        f"2026-03-{number % 28 + 1:02} 12:{number % 60:02}:07,{number % 1000:03} INFO worker[{number % 97}] "
        f"job {number:08} took {number % 977}.{number % 10} ms, request 7c1b2a3d-51f0-4a57-9f5b-{number:012x}\n"
        for number in range(size // 90)
    )
    return "".join(lines)[:size]


def dense(text: str) -> str:
    """The text with personal data in 2 % of its characters."""
    chosen = random.Random(11)
    words = text.split(" ")
    every = round(statistics.mean(map(len, SECRETS)) / 0.02 / (len(text) / len(words)))
    for place in range(every, len(words), every):
        words[place] += f" {chosen.choice(SECRETS)} "
    return " ".join(words)


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _nested_json(size: int) -> str:
    text = json.dumps({"a": "b" * (size // 8)})
    for _ in range(3):
        text = json.dumps([text])
    return (text * (size // len(text) + 1))[:size]


def _hex(size: int) -> str:
    return random.Random(1).randbytes(size // 2).hex()


def _base64url(size: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return random.Random(2).randbytes(size).translate(bytes(ord(letters[byte % 64]) for byte in range(256))).decode()


HOSTILE: dict[str, Callable[[int], str]] = {
    "hex": _hex,
    "base64url": _base64url,
    "'aaaa'": lambda size: "a" * size,
    "digits": lambda size: "1234567890" * (size // 10),
    "'@' only": lambda size: "@" * size,
    "'-' only": lambda size: "-" * size,
    "'a@'": lambda size: "a@" * (size // 2),
    "'a.'": lambda size: "a." * (size // 2),
    "'1 '": lambda size: "1 " * (size // 2),
    "'1.1.'": lambda size: "1.1." * (size // 4),
    "'://:'": lambda size: "://:" * (size // 4),
    "'password='": lambda size: "password=" * (size // 9),
    "'eyJ.'": lambda size: "eyJhbGci." * (size // 9),
    "nested quotes": lambda size: "\"'\\" * (size // 3),
    "JSON in JSON": _nested_json,
    "brackets": lambda size: "[" * size,
    "spaces": lambda size: " " * size,
    "'-----BEGIN '": lambda size: "-----BEGIN RSA PRIVATE KEY-----" * (size // 31),
}
"""Strings that make backtracking or rescanning redactors slow."""


if __name__ == "__main__":
    main()
