"""The corpus: values that must be found, texts in which nothing may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from computeragent.telemetry.redaction import Redactor

FOLDER = Path(__file__).parent / "corpus"
POSITIVES = [json.loads(line) for line in (FOLDER / "positives.jsonl").read_text("utf-8").splitlines()]
NEGATIVES = [json.loads(line) for line in (FOLDER / "negatives.txt").read_text("utf-8").splitlines()]


@pytest.fixture(params=["tables", "re2"], scope="session")
def use_re2(request):
    """Both gates: the byte tables, and google-re2 where it is installed."""
    if request.param == "re2":
        pytest.importorskip("re2")
    return request.param == "re2"


@pytest.fixture(scope="session")
def redactor(use_re2):
    return Redactor(use_re2=use_re2)


@pytest.fixture(scope="session")
def positives():
    return POSITIVES


@pytest.fixture(scope="session")
def negatives():
    return NEGATIVES
