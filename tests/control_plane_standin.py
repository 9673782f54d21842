"""A stand-in of the control plane's wire: discovery, introspection, resolving of agents and of git credentials.

Written from the documented routes alone, so that clients can be tested without the real one. Not a part of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

KEY = "cak_" + "5ecret" * 7
SECRET = "the-secret-of-the-service"


@dataclass
class ControlPlane:
    """What it knows, who asked, and how it misbehaves."""

    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=lambda: {KEY: {}})
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)
    answer: Response | None = None
    redirect: str | None = None
    delay: float = 0.0
    names: dict[str, str] | None = None
    events: list[Any] = field(default_factory=list)

    def app(self) -> Starlette:
        api = "/agentos/api"
        return Starlette(
            routes=[
                Route(f"{api}/discovery", self._discovery),
                Route(f"{api}/keys/introspect", self._introspect, methods=["POST"]),
                Route(f"{api}/v1/agents/resolve", self._agent, methods=["POST"]),
                Route(f"{api}/v1/git-credentials/resolve", self._credential, methods=["POST"]),
                Route(f"{api}/ingest/events", self._ingest, methods=["POST"]),
            ]
        )

    def paths(self) -> list[str]:
        return [path.removeprefix("/agentos/api") for path, _, _ in self.asked]

    async def _heard(self, request: Request) -> tuple[Any, Response | None]:
        body = await request.json() if request.method == "POST" else None
        self.asked.append((request.url.path, request.headers.get("authorization"), body))
        await asyncio.sleep(self.delay)
        if self.redirect is not None:
            return body, RedirectResponse(self.redirect, 307)
        return body, self.answer

    async def _discovery(self, request: Request) -> Response:
        self.asked.append((request.url.path, request.headers.get("authorization"), None))
        base = f"{request.url.scheme}://{request.url.netloc}/agentos/api"
        return JSONResponse({"endpoints": self.names or {"ingest": f"{base}/ingest/events", "api": f"{base}/v1"}})

    async def _introspect(self, request: Request) -> Response:
        body, forced = await self._heard(request)
        if forced is not None:
            return forced
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            return JSONResponse({"error": {"code": "UNAUTHENTICATED"}}, 401)
        known = self.keys.get(body["key"])
        if known is None:
            return JSONResponse({"active": False})
        return JSONResponse(
            {"active": True, "principal": "key_1", "permissions": ["agents:run"], "roleIds": []} | known
        )

    def _allowed(self, request: Request) -> bool:
        return request.headers.get("authorization", "").removeprefix("Bearer ") in self.keys

    async def _agent(self, request: Request) -> Response:
        body, forced = await self._heard(request)
        if forced is not None:
            return forced
        if not self._allowed(request):
            return JSONResponse({"error": {"code": "UNAUTHENTICATED", "message": "who?"}}, 401)
        found = self.agents.get(body["agentId"])
        if found is None:
            return JSONResponse({"error": {"code": "NOT_FOUND", "message": "no such agent"}}, 404)
        return JSONResponse({"agentId": body["agentId"], "name": "registered", "harness": "scripted"} | found)

    async def _credential(self, request: Request) -> Response:
        body, forced = await self._heard(request)
        if forced is not None:
            return forced
        if not self._allowed(request):
            return JSONResponse({"error": {"code": "UNAUTHENTICATED", "message": "who?"}}, 401)
        host = body["repoUrl"].partition("://")[2].partition("/")[0].partition(":")[0]
        found = self.credentials.get(host)
        if found is None:
            return JSONResponse({"error": {"code": "NO_CREDENTIAL", "message": "none"}}, 404)
        whole = {"host": host, "username": "x-access-token", "credentialId": "gcr_1"} | found
        return JSONResponse(whole, headers={"cache-control": "no-store"})

    async def _ingest(self, request: Request) -> Response:
        import gzip

        from computeragent.wire.encoding import from_json

        data = await request.body()
        body = from_json(gzip.decompress(data) if request.headers.get("content-encoding") == "gzip" else data)
        self.events += body["events"]
        return JSONResponse({"ok": True, "accepted": len(body["events"])})
