"""The surface of `claude-agent-sdk` as text: names, signatures, fields. And what another version of it changes.

    tools/upstream_surface.py              show how the newest version differs from the one we were made with
    tools/upstream_surface.py 0.2.190      the same of a version
    tools/upstream_surface.py --print      print the surface of the installed one

The exit code is 1 where the surfaces differ.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "claude-agent-sdk"
MODULES = ("claude_agent_sdk", "claude_agent_sdk.types", "claude_agent_sdk._errors")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "claude-agent-sdk.txt"


def surface() -> str:
    """The installed surface, a line for each name, field and method."""
    lines: list[str] = []
    for name in MODULES:
        module = importlib.import_module(name)
        lines.append(f"# {name}")
        public = getattr(module, "__all__", None) or [key for key in vars(module) if not key.startswith("_")]
        for key in sorted(public):
            value = getattr(module, key)
            if key == "__version__" or inspect.ismodule(value):
                continue
            if not (getattr(value, "__module__", None) or "claude_agent_sdk").startswith("claude_agent_sdk"):
                continue
            lines += described(key, value)
        lines.append("")
    return "\n".join(lines)


def described(name: str, value: object) -> Iterator[str]:
    """One name: a function with its signature, a class with its fields and methods, anything else by its kind."""
    if inspect.isclass(value):
        yield f"class {name}"
        if dataclasses.is_dataclass(value):
            yield from (f"  {field.name}" for field in dataclasses.fields(value))
        elif "__annotations__" in vars(value):
            yield from (f"  {field}" for field in value.__annotations__)
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("_") or method == "__init__":
                yield f"  {method}{parameters(function)}"
    elif callable(value) and inspect.isfunction(value):
        yield f"{name}{parameters(value)}"
    else:
        yield f"{name}"


def parameters(function: object) -> str:
    """Names, kinds and defaults; annotations are left out, since their spelling differs between Pythons."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def of_version(wanted: str | None) -> tuple[str, str]:
    """The version and surface of another release, installed beside nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = f"{PACKAGE}=={wanted}" if wanted else PACKAGE
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--upgrade", "--target", folder, requirement], check=True)
        env = {**os.environ, "PYTHONPATH": folder}
        shown = [sys.executable, "-c", "import claude_agent_sdk; print(claude_agent_sdk.__version__)"]
        version = subprocess.run(shown, check=True, env=env, capture_output=True, text=True).stdout.strip()
        listing = [sys.executable, __file__, "--print"]
        return version, subprocess.run(listing, check=True, env=env, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> int:
    if "--print" in arguments:
        sys.stdout.write(surface())
        return 0
    version, theirs = of_version(arguments[0] if arguments else None)
    ours = PAGE.read_text("utf-8")
    changes = list(
        difflib.unified_diff(ours.splitlines(True), theirs.splitlines(True), "made with", f"{PACKAGE} {version}", n=1)
    )
    sys.stdout.writelines(changes)
    print(f"{PACKAGE} {version}: {'the same surface' if not changes else 'differs, see above'}", file=sys.stderr)
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
