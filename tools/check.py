"""Run every check of the house side by side and print one line for each; a failed one shows its output.

tools/check.py            all of them
tools/check.py docs tree  these
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CHECKS = {
    "types": [f"{BIN}/pyright"],
    "lint": [f"{BIN}/ruff", "check", "--quiet", "."],
    "format": [f"{BIN}/ruff", "format", "--check", "--quiet", "."],
    "floors": [f"{BIN}/lint-imports", "--no-cache"],
    "docs": [sys.executable, "tools/check_docs.py"],
    "api": [sys.executable, "tools/api_contract.py"],
    "tree": [sys.executable, "tools/check_tree.py"],
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def run(name: str) -> tuple[bool, str, float]:
    started = time.monotonic()
    result = subprocess.run(
        CHECKS[name],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode == 0, result.stdout, time.monotonic() - started


def environment() -> dict[str, str]:
    """Ours, and the machine's certificates for node, which fetches pyright once and does not look for them."""
    env = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if CERTIFICATES.is_file():
        env.setdefault("NODE_EXTRA_CA_CERTS", str(CERTIFICATES))
    return env


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"error[USAGE]: no check {unknown[0]!r}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    chosen = names or list(CHECKS)
    failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for name, (passed, output, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
            print(f"{'ok  ' if passed else 'FAIL'} {name:7} {seconds:5.1f} s", flush=True)
            if not passed:
                failed += 1
                print(output.rstrip() or "(no output)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
