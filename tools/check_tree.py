"""What no single tool looks at: sizes of source files, and names of machines in any tracked file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 600  # lines of a source file
REGISTRIES = r"pypi[.]org|pythonhosted[.]org|registry[.]npmjs[.]org|registry[.]yarnpkg[.]com|deb[.]debian[.]org"
MACHINE_PATHS = (
    r"(?<![\w.$}-])(?:/root/(?:\.|\w+/)|/work/\w+|/opt/(?:wheels|pypi)|/tmp/uv[b]oot|/home/(?!me\b|user\b|agent\b)\w+/)"
)
FORBIDDEN = re.compile(rf"{REGISTRIES}|{MACHINE_PATHS}")


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
                problems.append(f"{name}:{number}: names a registry or a machine: {match.group()}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
