"""A chained file of twenty rows, and another one of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.verify import Report, verify
from computeragent.telemetry.chain.writer import ChainFile

KEY = Key(b"a key that is long enough")
ROWS = 20


class Chained:
    """A file, what is written to it, and what is found in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = ChainFile(path, KEY)

    def write(self, *events: int) -> None:
        self.file.append([b'{"number":%d}' % number for number in events])

    def check(self, key: Key | None = KEY) -> Report:
        return verify(self.path, key)

    @property
    def head(self) -> Path:
        return self.path.with_name(f"{self.path.name}.head")

    @property
    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def put(self, *lines: bytes) -> None:
        self.path.write_bytes(b"".join(lines))


@pytest.fixture
def empty(tmp_path: Path) -> Chained:
    return Chained(tmp_path / "audit.jsonl")


@pytest.fixture
def chained(empty: Chained) -> Chained:
    """Twenty rows: the first is the chain's own."""
    for start in range(0, ROWS - 1, 5):
        empty.write(*range(start, min(start + 5, ROWS - 1)))
    assert empty.check().intact
    return empty
