"""Every route fuzzed from the generated OpenAPI document: no 500, no hang."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from .conftest import TOKEN, Server, serving

pytestmark = pytest.mark.anyio
EXAMPLES = 15


def fuzzed(url: str, document: dict[str, Any], known: list[str]) -> tuple[list[Any], set[str]]:
    """What broke, and the routes that were tried."""
    broken: list[Any] = []
    tried: set[str] = set()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        tried.add(operation.label)
        fuzz(operation, url, known, broken)
    return broken, tried


def fuzz(operation: Any, url: str, known: list[str], broken: list[Any]) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}

    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def once(case: Any) -> None:
        if "session_id" in (case.path_parameters or {}):
            choice = len(str(case.body) + str(case.query)) % 3
            if choice < 2 and operation.method != "delete":
                case.path_parameters["session_id"] = known[choice]  # mostly about what exists: live, and over
        if isinstance(case.body, dict) and operation.path in {"/v1/sessions", "/v1/chat"}:
            _offline(case.body)
        response = case.call(base_url=url, headers=headers, timeout=20)
        if response.status_code >= 500:
            broken.append((operation.label, response.status_code, response.text[:300], case.body))

    once()


def _offline(body: dict[str, Any]) -> None:
    """Keep what is opened away from the network: engines by name, sources inline."""
    for name in ("engine", "harness"):
        if name in body and len(str(body)) % 2:
            body[name] = "scripted"
    source = {"type": "inline", "manifest": {"name": "fuzzed"}}
    if isinstance(body.get("identity"), dict):
        body["identity"]["source"] = source
    if "source" in body:
        body["source"] = source


async def prepared(server: Server) -> list[str]:
    """A session under way that waits for an answer, and one that is over."""
    live = await server.open([{"tool": "Bash", "input": {}}], sessionId="live")
    await server.say(live, "go")
    over = await server.open([{"text": "x"}], sessionId="over")
    await server.client.post(f"/v1/sessions/{over}/cancel")
    return [live, over]


@pytest.mark.timeout(300)
async def test_no_request_breaks_a_route(tmp_path: Path) -> None:
    async with serving(tmp_path, engines=["scripted"], max_sessions=200) as server:
        document = (await server.client.get("/v1/openapi.json")).json()
        streams = document["paths"]["/v1/sessions/{session_id}/events"].pop("get")  # it does not end: tried below
        document["paths"].pop("/v1/sessions/{session_id}/events")
        known = await prepared(server)
        broken, tried = await asyncio.to_thread(fuzzed, server.url, document, known)
        assert broken == []
        paths = set(document["paths"])
        assert {label.partition(" ")[2] for label in tried} == paths
        assert streams["parameters"]
        assert (await server.client.get("/health")).status_code == 200


ODD = ["", "0", "-1", "x", "1e9", "9" * 19, "NaN", "\u0663", "null", "[]", "0\u00a0", "1" * 5000, "%00", "a=b&c"]


async def test_no_id_breaks_a_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for session in await prepared(server):
            for odd in ODD:
                for how in ({"params": {"lastEventId": odd}}, {"headers": {"last-event-id": odd.encode()}}):
                    async with server.client.stream("GET", f"/v1/sessions/{session}/events", **how) as response:
                        assert response.status_code in {200, 400, 409}, (odd, response.status_code)


async def test_no_number_breaks_a_query(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        live, _ = await prepared(server)
        for odd in [*ODD, "9" * 400, "-" + "9" * 30, str(2**63), str(2**64)]:
            for path, name in (("", "limit"), ("", "offset"), (f"/{live}/fs/tree", "depth")):
                answer = await server.client.get(f"/v1/sessions{path}", params={name: odd})
                assert answer.status_code in {200, 400}, (name, odd, answer.text)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"a":' * 5000,
        b"[" * 100_000,
        b"\xff\xfe{}",
        b'{"message": {"role": "user", "content": "\\ud800"}}',
        b'{"message": {"role": "user", "content": [{"type": 1e999}]}}',
        b'{"message": {"role": "user", "content": ' + b"9" * 5000 + b"}}",
        b'{"decision": "allow", "input": {"a": NaN}}',
        b'{"path": "a\\u0000b", "oldString": "", "newString": "", "from": "\\udfff", "to": "/"}',
    ],
    ids=range(14),
)
async def test_no_bytes_break_a_route(tmp_path: Path, raw: bytes) -> None:
    async with serving(tmp_path) as server:
        live, _ = await prepared(server)
        for path in ("", "/messages", "/cancel", "/permission/x", "/fs/edit", "/fs/mkdir", "/fs/move", "/end-input"):
            place = f"/v1/sessions/{live}{path}" if path else "/v1/sessions"
            answer = await server.client.post(place, content=raw, headers={"content-type": "application/json"})
            assert answer.status_code < 500, (path, answer.text)
            if answer.status_code >= 400:
                assert answer.json()["error"]["code"]
            if path in {"/cancel"} and answer.status_code == 200:
                live = await server.open([{"tool": "Bash", "input": {}}])
