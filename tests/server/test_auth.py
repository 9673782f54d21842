"""Who may call: every route of the harness server with every kind of credential, and introspection's own rules."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from computeragent.errors import InsufficientPermissionError, ValidationError
from computeragent.server import introspect, introspection
from computeragent.server.app import routes
from computeragent.server.auth import basic, bearer
from computeragent.server.endpoint import Endpoint
from computeragent.server.introspection import any_of
from computeragent.server.sessions import Sessions
from control_plane_standin import KEY, SECRET, ControlPlane
from loopback import loopback

from .conftest import TOKEN, Server, serving

pytestmark = pytest.mark.anyio
OTHER, REVOKED, POOR, BORED = "cak_other", "cak_revoked", "cak_poor", "cak_bored"


@pytest.fixture
async def plane() -> AsyncIterator[tuple[ControlPlane, str]]:
    made = ControlPlane()
    made.keys |= {
        TOKEN: {"principal": "user-1", "permissions": ["*"]},
        OTHER: {"principal": "user-2"},
        REVOKED: {"active": False},
        POOR: {"principal": "user-3", "permissions": ["agents:read"]},
        BORED: {"principal": "user-4", "permissions": "agents:run"},
    }
    async with loopback(made.app()) as url:
        yield made, f"{url}/agentos/api/keys/introspect"


def all_endpoints() -> list[Endpoint]:
    sessions: Any = Sessions.__new__(Sessions)
    return routes(sessions, ["scripted"])


CREDENTIALS = {
    "none": (None, 401),
    "wrong": ("Bearer cak_wrong", 401),
    "not a bearer": ("Basic eDp5", 401),
    "empty": ("Bearer", 401),
    "revoked": (f"Bearer {REVOKED}", 401),
    "without permission": (f"Bearer {POOR}", 403),
    "with permissions that are no list": (f"Bearer {BORED}", 403),
    "of somebody else": (f"Bearer {OTHER}", None),
    "right": (f"Bearer {TOKEN}", None),
}


async def test_every_route_with_every_credential(plane: tuple[ControlPlane, str], tmp_path: Path) -> None:
    _, url = plane
    async with serving(tmp_path, auth=introspect(url, SECRET)) as server:
        session = await server.open(sessionId="mine")
        for endpoint in sorted(all_endpoints(), key=lambda each: each.method == "DELETE"):
            before = (await server.client.get(f"/v1/sessions/{session}")).json()
            others = [name for name in CREDENTIALS if name != "right"]
            answers = await asyncio.gather(*(ask(server, endpoint, session, CREDENTIALS[name][0]) for name in others))
            now = (await server.client.get(f"/v1/sessions/{session}")).json()
            assert now == before, endpoint.path  # whoever may not has changed nothing
            answers.append(await ask(server, endpoint, session, CREDENTIALS["right"][0]))
            for name, (status, code) in zip([*others, "right"], answers, strict=True):
                place = f"{endpoint.method} {endpoint.path} with a token that is {name}: {status} {code}"
                refused = CREDENTIALS[name][1]
                if endpoint.public:
                    assert status == 200, place
                elif refused is not None:
                    told = "UNAUTHORIZED" if refused == 401 else "INSUFFICIENT_PERMISSION"
                    assert (status, code) == (refused, told), place
                elif name == "right" or "{session_id}" not in endpoint.path:
                    assert status not in {401, 403}, place
                else:  # somebody else's session does not exist; a body that is wrong may be told first
                    assert status in {404, 400}, place


async def test_when_nobody_can_be_asked_nobody_comes_in(tmp_path: Path) -> None:
    async with serving(tmp_path, auth=introspect("http://127.0.0.1:1/introspect", SECRET)) as server:
        for endpoint in all_endpoints():
            status, code = await ask(server, endpoint, "mine", f"Bearer {TOKEN}")
            assert (status, code) == ((200, None) if endpoint.public else (401, "UNAUTHORIZED")), endpoint.path


async def ask(server: Server, endpoint: Endpoint, session: str, header: str | None) -> tuple[int, str | None]:
    path = endpoint.path.replace("{session_id}", session).replace("{call_id:path}", "call_1")
    if path == "/v1/sessions/mine" and endpoint.method == "DELETE" and header == f"Bearer {TOKEN}":
        path = path.replace("mine", "another")
    nobody = server.client
    headers = {"authorization": header or ""}
    async with nobody.stream(endpoint.method, path, headers=headers, content=b"{}") as answer:
        if answer.headers["content-type"] != "application/json":
            return answer.status_code, None
        told = await answer.aread()
    body = httpx2.Response(200, content=told).json()
    return answer.status_code, body["error"]["code"] if "error" in body else None


# ── Introspection ──


async def test_one_question_serves_all_who_come_with_a_token_for_a_while(
    plane: tuple[ControlPlane, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = plane
    made.delay = 0.05
    check = introspect(url, SECRET)
    found = await asyncio.gather(*(check(KEY) for _ in range(20)))
    assert {principal.id for principal in found if principal} == {"key_1"}
    assert made.asked == [("/agentos/api/keys/introspect", f"Bearer {SECRET}", {"key": KEY})]
    made.keys.pop(KEY)
    assert await check(KEY) is not None  # remembered
    now = time.monotonic()
    monkeypatch.setattr(introspection, "monotonic", lambda: now + introspection.ACTIVE_FOR + 1)
    assert await check(KEY) is None
    made.keys[KEY] = {}
    assert await check(KEY) is None  # a refusal is remembered as well, but not for as long
    monkeypatch.setattr(
        introspection, "monotonic", lambda: now + introspection.ACTIVE_FOR + introspection.REFUSED_FOR + 2
    )
    assert await check(KEY) is not None
    assert len(made.asked) == 3


async def test_a_key_is_not_trusted_beyond_its_end(
    plane: tuple[ControlPlane, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = plane
    check = introspect(url, SECRET)
    made.keys[KEY] = {"exp": time.time() + 10}
    assert await check(KEY) is not None
    now = time.monotonic()
    monkeypatch.setattr(introspection, "monotonic", lambda: now + 11)
    made.keys[KEY] = {"exp": time.time() - 1}
    assert await check(KEY) is None
    assert len(made.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"active": True, "principal": "x", "permissions": ["*"]}, 500),
        JSONResponse({"active": True, "principal": "x", "permissions": ["*"]}, 201),
        JSONResponse({"active": "true", "principal": "x", "permissions": ["*"]}),
        JSONResponse({"active": True, "principal": {"id": "x"}, "permissions": ["*"]}),
        JSONResponse({"active": True, "principal": "", "permissions": ["*"]}),
        JSONResponse({"active": True, "permissions": ["*"]}),
        JSONResponse(["active"]),
        PlainTextResponse("active"),
        PlainTextResponse("[" * 100_000),
    ],
)
async def test_anything_but_a_plain_yes_is_a_no(plane: tuple[ControlPlane, str], answer: Any) -> None:
    made, url = plane
    made.answer = answer
    check = introspect(url, SECRET)
    assert await check(KEY) is None
    made.answer = None
    assert await check(KEY) is None  # for a moment
    assert len(made.asked) == 1


async def test_a_service_that_does_not_answer_is_not_waited_for(
    plane: tuple[ControlPlane, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = plane
    made.delay = 30
    monkeypatch.setattr(introspection, "TIMEOUT", 0.1)
    async with asyncio.timeout(10):
        assert await introspect(url, SECRET)(KEY) is None


async def test_no_token_leaves_for_another_host_or_for_the_log(
    plane: tuple[ControlPlane, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = plane
    elsewhere = ControlPlane()
    caplog.set_level(logging.DEBUG)
    async with loopback(elsewhere.app()) as other:
        made.redirect = f"{other}/agentos/api/keys/introspect"
        assert await introspect(url, SECRET)(KEY) is None
    assert elsewhere.asked == []
    check = introspect(url, "wrong-secret")
    assert await check(KEY) is None
    logged = caplog.text + str(capsys.readouterr()) + repr(check)
    assert "introspection_failed" in logged
    for secret in (KEY, SECRET, "wrong-secret"):
        assert secret not in logged


async def test_so_many_tokens_are_remembered_and_no_more(
    plane: tuple[ControlPlane, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, url = plane
    monkeypatch.setattr(introspection, "REMEMBERED", 2)
    check = introspect(url, SECRET)
    for token in (KEY, "b", KEY, "c", KEY, "b"):  # b is used last before c comes, and goes
        await check(token)
    assert [body["key"] for _, _, body in made.asked] == [KEY, "b", "c", "b"]
    await check("x" * 5000)
    await check("")
    assert len(made.asked) == 4


async def test_missing_permission_is_an_error_of_its_own(plane: tuple[ControlPlane, str]) -> None:
    made, url = plane
    made.keys[KEY] = {"permissions": ["agents:read"]}
    check = introspect(url, SECRET)
    for _ in range(2):
        with pytest.raises(InsufficientPermissionError, match="agents:run"):
            await check(KEY)
    assert len(made.asked) == 1
    assert await introspect(url, SECRET, permission="agents:read")(KEY) is not None


async def test_two_ways_in(plane: tuple[ControlPlane, str]) -> None:
    from computeragent.server import bearer

    _, url = plane
    check = any_of(bearer(["local"]), introspect(url, SECRET))
    local, known = await check("local"), await check(KEY)
    assert local is not None
    assert known is not None
    assert local.id.startswith("token-")
    assert known.id == "key_1"
    assert await check("nobody") is None


@pytest.mark.parametrize("auth", [None, basic("me", "pw")])
async def test_pages_of_other_hosts_get_nothing_by_what_a_browser_sends_itself(auth: Any, tmp_path: Path) -> None:
    async with serving(tmp_path, auth=auth) as server:
        body = server.body([{"text": "x"}], messages=[{"role": "user", "content": "x"}])
        known = {} if auth is None else {"authorization": f"Basic {base64.b64encode(b'me:pw').decode()}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=known, timeout=30) as browser:
            for origin in (
                "http://evil.example",
                "null",
                "",
                "https://127.0.0.1.evil.example",
                "http://evil.example:80",
            ):
                answer = await browser.post("/v1/sessions", json=body, headers={"origin": origin})
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN_HOST"), origin
            assert (await browser.get("/v1/sessions")).json() == {"sessions": []}
            for origin in (server.url, "http://localhost:3000", "http://[::1]"):
                assert (await browser.post("/v1/sessions", json=body, headers={"origin": origin})).status_code == 201


async def test_whoever_has_a_token_may_be_any_page(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.client.get("/v1/sessions", headers={"origin": "https://app.example"})).status_code == 200


@pytest.mark.parametrize("token", ["pässword", "two\nlines"])
def test_a_token_that_nobody_could_send_is_refused(token: str) -> None:
    with pytest.raises(ValidationError):
        bearer([token])


@pytest.mark.parametrize(
    ("url", "secret"), [("ftp://x", "s"), ("nowhere", "s"), ("http://x", ""), ("http://x", "a\nb")]
)
def test_a_wrong_setting_is_told_at_once(url: str, secret: str) -> None:
    with pytest.raises(ValidationError):
        introspect(url, secret)
