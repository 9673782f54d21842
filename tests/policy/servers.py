"""Policy services for tests, on loopback and in a thread of their own, so that any event loop can ask them.

`OpaServer` has OPA's routes and answers, over a Rego evaluator: rego-cpp here, OPA's own code in the soak tests.
`SrsService` is an honest stand-in of an SRS service and of AgentOS's routes to it: it was written from the documented
wire alone, and really evaluates what it is sent, Cedar with cedarpy and Rego with rego-cpp.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import cedarpy
import uvicorn
from regopy import Interpreter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

UNDEFINED = object()
Behave = Callable[[socket.socket], None]


class Rego(Protocol):
    def decide(self, steps: list[str], given: Any) -> Any: ...


class RegoCpp:
    """Rego as Microsoft's rego-cpp evaluates it."""

    def __init__(self, *sources: str) -> None:
        self.sources = sources

    def decide(self, steps: list[str], given: Any) -> Any:
        interpreter = Interpreter()
        for number, source in enumerate(self.sources):
            interpreter.add_module(f"module{number}", source)
        interpreter.set_input(given)
        answer = str(interpreter.query(".".join(["data", *steps])))
        return UNDEFINED if answer == "undefined" else json.loads(answer)["expressions"][0]


class OpaServer:
    """OPA's Data API."""

    def __init__(self, rego: Rego) -> None:
        self.rego = rego
        self.asked: list[Any] = []
        self.headers: list[Mapping[str, str]] = []
        self.clients: set[Any] = set()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/data/{path:path}", self._data, methods=["POST"])])

    async def _data(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        self.clients.add(request.client and request.client.port)
        try:
            result = self.rego.decide(request.path_params["path"].split("/"), body["input"])
        except Exception as error:
            return JSONResponse({"code": "internal_error", "message": str(error)}, 500)
        return JSONResponse({} if result is UNDEFINED else {"result": result})


@dataclass
class SrsService:
    """Policies by id, bindings by agent, and who asked. `down` makes every route fail with that status."""

    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    bindings: dict[str, str | None] = field(default_factory=dict)
    key: str = "srs-key"
    token: str = "cak_token"
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    down: int | None = None
    answer: Any = None

    def app(self) -> Starlette:
        def routes(base: str) -> list[Route]:
            return [
                Route(f"{base}/rai/policies/{{id}}", self._policy),
                Route(f"{base}/guardrails/evaluate-tool-call", self._evaluate, methods=["POST"]),
            ]

        agentos = "/agentos/api/ingest"
        bound = Route(f"{agentos}/policy-config/{{agent}}", self._bound)
        found = Route("/agentos/api/discovery", self._discovery)
        return Starlette(routes=[*routes("/v1"), *routes(agentos), bound, found])

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]

    async def _heard(self, request: Request) -> tuple[Any, Response | None]:
        body = await request.json() if request.method == "POST" else None
        self.asked.append((request.method, request.url.path, body))
        if self.down is not None:
            return body, JSONResponse({"error": "down"}, self.down)
        direct = request.url.path.startswith("/v1/")
        given = request.headers.get("x-api-key" if direct else "authorization")
        if given != (self.key if direct else f"Bearer {self.token}"):
            return body, JSONResponse({"error": "who?"}, 401)
        return body, None

    async def _discovery(self, request: Request) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}/agentos/api"
        return JSONResponse({"endpoints": {"ingest": f"{base}/ingest/events"}})

    async def _bound(self, request: Request) -> Response:
        _, refused = await self._heard(request)
        agent = request.path_params["agent"]
        if refused is None and agent not in self.bindings:
            return JSONResponse({"error": "no such agent"}, 404)
        return refused or JSONResponse({"policy": {"policyId": self.bindings[agent]}})

    async def _policy(self, request: Request) -> Response:
        _, refused = await self._heard(request)
        policy = self.policies.get(request.path_params["id"])
        if refused is None and policy is None:
            return JSONResponse({"error": "no such policy"}, 404)
        return refused or JSONResponse({"_id": request.path_params["id"], "name": "p"} | (policy or {}))

    async def _evaluate(self, request: Request) -> Response:
        body, refused = await self._heard(request)
        if refused is not None:
            return refused
        return JSONResponse(self.answer if self.answer is not None else evaluate(body))


def evaluate(call: dict[str, Any]) -> dict[str, Any]:
    """What SRS says of a call, by the sections that it is sent: each must let it pass."""
    denied = _cedar(call) or _opa(call)
    return {"allowed": False, "denied_by": denied[0], "reason": denied[1]} if denied else {"allowed": True}


def _cedar(call: dict[str, Any]) -> tuple[str, str] | None:
    section = call.get("cedar_guardrail") or {}
    if not section.get("enabled"):
        return None
    text = "\n".join(each["policy_text"] for each in section["policies"] if each.get("enabled", True))
    request = {
        "principal": {"type": "User", "id": call["principal_id"]},
        "action": {"type": "Action", "id": call["tool_name"]},
        "resource": {"type": "Agent", "id": call["bundle_name"]},
        "context": {"command": str(call["tool_args"].get("command", ""))},
    }
    answer = cedarpy.is_authorized(request, text, [])
    return None if answer.allowed else ("cedar", f"cedar said {answer.decision.value}")


def _opa(call: dict[str, Any]) -> tuple[str, str] | None:
    section = call.get("opa_guardrail") or {}
    if not section.get("enabled") or section.get("mode") == "audit":
        return None
    given = {
        "request": {"tool_name": call["tool_name"], "arguments": call["tool_args"]},
        "metadata": {key: call.get(key) for key in ("principal_id", "bundle_id", "bundle_name")},
    }
    for policy in section["managed_policies"]:
        result = RegoCpp(policy["rego_content"]).decide(["guardrail", "allow"], given)
        if result is not True:
            return "opa", f"opa policy {policy['policy_id']} said no"
    return None


@contextmanager
def serving(app: Any, uds: str | None = None) -> Generator[str]:
    """Serve an ASGI application while the block runs; its URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, uds=uds, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.005)
    try:
        yield "http://opa" if uds else f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def misbehaving(behave: Behave) -> Generator[str]:
    """A server that does as it is told with each connection, on a thread for each; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            behave(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        thread.join(30)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answering(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Behave:
    """Answers every request of a connection with the same bytes."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}", *headers]
    answer = "\r\n".join([*head, "", ""]).encode() + body

    def behave(connection: socket.socket) -> None:
        while asked(connection):
            connection.sendall(answer)
            if length is not None:
                connection.shutdown(socket.SHUT_RDWR)

    return behave


def asked(connection: socket.socket) -> bytes:
    """One whole request; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
