"""Pages that repeat what the code says are generated, and must be as the code says now.

Each module in tools/generators has `TARGET`, the page's path, and `generate()`, its text. A new page is a new module.

    tools/check_docs.py            show what is stale, exit code 1
    tools/check_docs.py --update   write the pages
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))


def stale_pages() -> dict[Path, tuple[str, str]]:
    """The pages that differ: what they are, and what they should be."""
    import generators

    found: dict[Path, tuple[str, str]] = {}
    for info in pkgutil.iter_modules(generators.__path__):
        module = importlib.import_module(f"generators.{info.name}")
        page = ROOT / module.TARGET
        now = page.read_text("utf-8") if page.is_file() else ""
        wanted = module.generate()
        if now != wanted:
            found[page] = (now, wanted)
    return found


def main(arguments: list[str]) -> int:
    update = "--update" in arguments
    stale = stale_pages()
    for page, (now, wanted) in stale.items():
        name = str(page.relative_to(ROOT))
        if update:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(wanted, "utf-8")
            print(f"wrote {name}")
        else:
            sys.stdout.writelines(
                difflib.unified_diff(now.splitlines(True), wanted.splitlines(True), name, f"{name} (generated)")
            )
    if stale and not update:
        print("error[STALE_DOCS]: generated pages are out of date\nhint: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
