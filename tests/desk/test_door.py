"""Who gets in: tokens, cookies, hosts and origins, for requests and for WebSockets."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .conftest import TOKEN, viewing
from .drawn import Drawn

pytestmark = pytest.mark.anyio
PAGE = {"accept": "text/html,*/*"}


async def knock(url: str, path: str = "/screen", *, host: str | None = None, **headers: str) -> int:
    """The status that a WebSocket is answered with; 101 is in."""
    given = dict(headers)
    address = url.replace("http", "ws") + path
    if host is not None:
        port = int(url.rpartition(":")[2])
        address = f"ws://{host}:{port}{path}"
        kwargs: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    else:
        kwargs = {}
    origin = given.pop("origin", None)
    try:
        async with connect(address, additional_headers=given, origin=origin, **kwargs):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def cookie_of(url: str) -> str:
    async with httpx2.AsyncClient(base_url=url, headers=PAGE) as client:
        answer = await client.get("/", params={"token": TOKEN})
        assert answer.status_code == 303
        return answer.headers["set-cookie"]


async def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    async with viewing(Drawn().open) as url, httpx2.AsyncClient(base_url=url, headers=PAGE) as client:
        answer = await client.get("/", params={"token": TOKEN, "turn": "3"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/?turn=3")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert (await client.get("/")).status_code == 200  # with the cookie
        assert (await client.get("/screenshot.png")).status_code == 200


async def test_a_person_without_a_token_is_asked_for_it_and_a_program_is_told() -> None:
    async with viewing(Drawn().open) as url, httpx2.AsyncClient(base_url=url) as client:
        asked = await client.get("/", headers=PAGE)
        assert (asked.status_code, "Paste" in asked.text or "paste" in asked.text) == (401, True)
        told = await client.get("/screenshot.png")
        assert (told.status_code, told.json()["error"]["code"]) == (401, "UNAUTHORIZED")
        assert (await client.get("/static/desk.css")).status_code == 200
        assert (await client.get("/static/view.js")).status_code == 401
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/screenshot.png", "/screen.mjpg"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer wrong"}, 401),
        ({"cookie": f"computeragent_desk={TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "host": "evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_requests_that_stay_outside(path: str, headers: dict[str, str], status: int) -> None:
    async with viewing(Drawn().open) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get(path, headers=headers)).status_code == status


async def test_a_foreign_host_buys_no_cookie() -> None:
    async with viewing(Drawn().open) as url, httpx2.AsyncClient(base_url=url, headers=PAGE) as client:
        answer = await client.get("/", params={"token": TOKEN}, headers={"host": "evil.example"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_websockets_need_what_requests_need() -> None:
    async with viewing(Drawn().open) as url:
        cookie = (await cookie_of(url)).partition(";")[0]
        bearer = f"Bearer {TOKEN}"
        assert await knock(url) == 401
        assert await knock(url, authorization="Bearer wrong") == 401
        assert await knock(url, "/screen?token=wrong") == 401
        assert await knock(url, cookie="computeragent_desk=x; " + cookie.partition("=")[0] + "=wrong") == 401
        assert await knock(url, authorization=bearer) == 101
        assert await knock(url, f"/screen?token={TOKEN}") == 101
        assert await knock(url, cookie=cookie) == 101
        assert await knock(url, cookie=cookie, origin=url) == 101


@pytest.mark.parametrize("token", [TOKEN, None])
async def test_pages_of_others_open_no_websocket_here(token: str | None) -> None:
    async with viewing(Drawn().open, token=token) as url:
        headers = {} if token is None else {"cookie": (await cookie_of(url)).partition(";")[0]}
        port = int(url.rpartition(":")[2])
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"http://localhost:{port}"):
            assert await knock(url, origin=origin, **headers) == 403, origin
        assert await knock(url, origin=url, **headers) == 101


async def test_a_foreign_host_opens_no_websocket() -> None:
    async with viewing(Drawn().open, token=None) as url:
        assert await knock(url, host="evil.example") == 403
        assert await knock(url, host="localhost") == 101


async def test_where_everybody_may_look_nobody_is_asked() -> None:
    async with viewing(Drawn().open, token=None) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/")).status_code == 200
        assert await knock(url) == 101


async def test_pages_keep_to_themselves() -> None:
    async with viewing(Drawn().open, token=None) as url, httpx2.AsyncClient(base_url=url) as client:
        headers = (await client.get("/")).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
