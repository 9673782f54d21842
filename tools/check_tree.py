"""What no single tool looks at: sizes of source files, and names of machines in any tracked file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 600  # lines of a source file
PACKAGE_INDEX = r"https?://[^\s\"')>]+/(?:simple|packages/[0-9a-f]{2})/"
HOME_FOLDER = r"(?<![\w.$}-])/(?:root|Users/\w+|home/(?!me\b|user\b|agent\b)\w+)/"
FORBIDDEN = re.compile(f"{PACKAGE_INDEX}|{HOME_FOLDER}")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def main() -> int:
    problems: list[str] = []
    for path in tracked():
        name = path.relative_to(ROOT)
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        if name.parts[0] == "src" and name.suffix == ".py" and len(lines) > LONGEST:
            problems.append(f"{name}: {len(lines)} lines, more than {LONGEST}; a file is one noun")
        for number, line in enumerate(lines, start=1):
            match = FORBIDDEN.search(line)
            if match:
                problems.append(f"{name}:{number}: names a package index or a machine: {match.group()}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
