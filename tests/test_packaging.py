"""What is published: metadata, extras, the lock, and an installation of each extra on its own (`make soak`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CORE_NOW = ["gap", "gitagent", "remote", "sqlite"]
MODULES = {
    "acp": ["acp"],
    "agentos": ["cryptography", "duckdb", "starlette"],
    "browser": ["playwright"],
    "bwrap": ["pyseccomp", "uvicorn"],
    "cedar": ["cedarpy"],
    "clickhouse": ["clickhouse_connect"],
    "computer": ["mss", "PIL"],
    "deepagents": ["deepagents", "langchain_anthropic", "langchain_openai"],
    "docker": ["docker", "uvicorn"],
    "e2b": ["e2b", "uvicorn"],
    "gateway": ["aiohttp", "starlette"],
    "mongo": ["pymongo"],
    "otel": ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"],
    "p2p": ["aiortc", "websockets"],
    "pii": ["re2"],
    "postgres": ["asyncpg"],
    "redis": ["redis"],
    "s3": ["boto3"],
    "server": ["starlette", "uvicorn", "jinja2"],
    "swe": ["inspect_ai"],
} | {name: [] for name in CORE_NOW}


def test_every_documented_extra_exists():
    assert set(EXTRAS) == {*MODULES, "all"}


def test_extras_that_became_core_are_empty_and_still_there():
    assert [name for name, needs in EXTRAS.items() if not needs] == ["remote", "gap", "gitagent", "sqlite"]


def test_all_is_everything():
    named = {extra for line in EXTRAS["all"] for extra in Requirement(line).extras}
    assert named == set(EXTRAS) - {"all", *CORE_NOW}


def test_the_lock_holds_a_version_that_fits_every_requirement():
    pins = dict(
        re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    )
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    wanted = [*PROJECT["dependencies"], *(line for lines in [*EXTRAS.values(), *groups.values()] for line in lines)]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            continue
        assert requirement.specifier.contains(pins[name]), f"{requirement} is locked to {pins[name]}: make lock"


@pytest.mark.parametrize("lock", ["requirements.lock", "tools/uv.lock"])
def test_a_lock_has_a_hash_for_every_package_and_names_no_host(lock):
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    for block in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in block, block


def test_upstream_is_pinned_below_its_next_minor_version():
    (upstream,) = [line for line in PROJECT["dependencies"] if line.startswith("claude-agent-sdk")]
    assert upstream == "claude-agent-sdk>=0.2.143,<0.3"


def test_the_changelog_names_the_upstream_version_that_is_tested():
    (locked,) = re.findall(r"^claude-agent-sdk==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert f"Tested with `claude-agent-sdk` {locked}." in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built as `make build` does."""
    if not (ROOT / ".git").exists():
        pytest.skip("built from a checkout only")
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("*.whl"))


def test_the_wheel_is_typed_and_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "computeragent/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"computeragent"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def install(target: Path, *requirements: str) -> Path:
    uv = shutil.which("uv") or str(ROOT / ".venv-uv" / "bin" / "uv")
    if not Path(uv).is_file():
        pytest.skip("uv is not here; tools/bootstrap installs it")
    env = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", **os.environ}
    subprocess.run([uv, "venv", "-q", "--no-project", "--python", sys.executable, str(target)], check=True, env=env)
    python = target / "bin" / "python"
    constraints = ["--constraints", str(ROOT / "requirements.lock")]
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(python), *constraints, *requirements], check=True, env=env
    )
    return python


@pytest.mark.soak
@pytest.mark.parametrize("extra", sorted(MODULES))
def test_each_extra_installs_alone_and_imports(extra, wheel, tmp_path):
    python = install(tmp_path / "venv", f"computer-agent-py[{extra}] @ {wheel.as_uri()}")
    code = "\n".join(
        f"import {module}" for module in ["computeragent", "computeragent.protocol_types", *MODULES[extra]]
    )
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)
    subprocess.run([python.with_name("computeragent"), "version"], check=True, cwd=tmp_path)
