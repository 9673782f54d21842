"""Policies of an OPA server, asked over HTTP or a Unix socket."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from computeragent.errors import ValidationError
from computeragent.policy.http import PolicyFaultError, PolicyService, checked_fail_mode
from computeragent.policy.types import FailMode, PolicyDecision, PolicyInput, PolicyResult, denied_by_fault
from computeragent.wire.encoding import from_json, to_json

if TYPE_CHECKING:
    import httpx2

_SHAPE = "an OPA decision is true, false, or an object with allow: true or false"


class OpaPolicyEngine:
    """Asks an OPA server whether a call may run: ``POST {url}/v1/data/{policy_path}`` with the question as ``input``.

    The decision is a boolean, or an object ``{"allow": bool, "reason"?: str, "rule"?: str, "obligations"?: [{…}]}``.
    Anything else denies: ``"false"``, ``1``, null, and a path that names no decision.

    Args:
        url: Where OPA listens, such as ``http://opa:8181``. Not needed with `socket`.
        policy_path: The decision, with dots or slashes: ``computeragent/tools/allow``.
        fail_mode: ``allow`` lets calls pass while OPA is away (not when it answers wrongly).
        timeout: Seconds for one question, connecting included.
        headers: Sent with every question, such as ``{"authorization": "Bearer …"}``. Never logged.
        client: An `httpx2.AsyncClient` to use instead of one of its own; it stays open.
        socket: The path of a Unix socket that OPA listens on.
        cache_ttl: Seconds for which answers to the same question may be remembered. Default: not at all.
        strict_builtin_errors: Has OPA fail a decision in which a built-in function fails, which denies; by itself OPA
            takes the expression for undefined, so that a ``deny`` rule would not hold.

    """

    name = "opa"

    def __init__(
        self,
        *,
        url: str | None = None,
        policy_path: str,
        fail_mode: FailMode = "deny",
        timeout: float = 2.0,
        headers: dict[str, str] | None = None,
        client: httpx2.AsyncClient | None = None,
        socket: str | None = None,
        cache_ttl: float = 0.0,
        strict_builtin_errors: bool = False,
    ) -> None:
        if url is None and socket is None:
            raise ValidationError("an OPA engine needs a url or a socket", hint="Such as url='http://127.0.0.1:8181'.")
        self.policy_path = _path(policy_path)
        self._fail_mode: FailMode = checked_fail_mode(self.name, fail_mode)
        self._service = PolicyService(
            url or "http://opa", timeout=timeout, headers=headers, client=client, socket=socket
        )
        self._cache_ttl = max(0.0, cache_ttl)
        self._route = f"/v1/data/{self.policy_path}" + ("?strict-builtin-errors=true" if strict_builtin_errors else "")

    def __repr__(self) -> str:
        return f"OpaPolicyEngine({self._service.place!r}, policy_path={self.policy_path!r})"

    @property
    def generation(self) -> int | None:
        """The window of time in which answers may be remembered; None without `cache_ttl`."""
        return int(time.monotonic() / self._cache_ttl) if self._cache_ttl else None

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002 - the name that users know
        """Judge one call. Never raises: a fault is a denial with a code."""
        try:
            body = to_json({"input": input.to_json()})
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"the policy's question cannot be expressed as JSON: {error}"
            return denied_by_fault(self.name, "POLICY_ERROR", reason)
        try:
            reply = await self._service.ask("POST", self._route, body)
            if reply.status != 200:
                raise self._service.refusal(reply.status, hint=f"is {self.policy_path} a path of OPA's data?")
            return self._decision(reply.data)
        except PolicyFaultError as fault:
            return fault.denial(self.name, self._fail_mode)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._service.aclose()

    def _decision(self, data: bytes) -> PolicyResult:
        try:
            answer: object = from_json(data)
        except (msgspec.DecodeError, RecursionError):
            raise _malformed(f"the answer of {self._service.place} is not JSON") from None
        if not isinstance(answer, dict):
            raise _malformed(f"the answer of {self._service.place} is not an object: is it an OPA server?")
        if "result" not in answer:
            raise _malformed(f"OPA has no decision at {self.policy_path}: the path names none, or it is undefined")
        return self._judged(cast("dict[str, Any]", answer)["result"])

    def _judged(self, result: object) -> PolicyResult:
        told: Mapping[str, Any] = cast("Mapping[str, Any]", result) if isinstance(result, dict) else {"allow": result}
        allow, reason, rule = told.get("allow"), told.get("reason"), told.get("rule")
        obligations: object = told.get("obligations")
        if not isinstance(allow, bool):
            raise _malformed(f"{self.policy_path} gave {_shown(allow, told)}: {_SHAPE}")
        if not isinstance(reason, str | None) or not isinstance(rule, str | None):
            raise _malformed(f"{self.policy_path} gave a reason or a rule that is no text")
        if not isinstance(obligations, list | None) or not all(
            isinstance(each, dict) for each in cast("list[object]", obligations or [])
        ):
            raise _malformed(f"{self.policy_path} gave obligations that are no list of objects")
        return PolicyResult(
            PolicyDecision.ALLOW if allow else PolicyDecision.DENY,
            reason=reason or ("" if allow else f"denied by {self.policy_path}"),
            obligations=cast("list[dict[str, Any]]", obligations or []),
            engine=self.name,
            rule=rule or self.policy_path,
        )


def _path(policy_path: str) -> str:
    """The path of a decision as a URL has it. Raises `ValidationError`."""
    steps = [step for step in policy_path.replace(".", "/").split("/") if step]
    if not steps:
        raise ValidationError("policy_path names no decision", hint="Such as 'computeragent/tools/allow'.")
    return "/".join(quote(step, safe="") for step in steps)


def _malformed(reason: str) -> PolicyFaultError:
    return PolicyFaultError("POLICY_MALFORMED", reason)


def _shown(allow: object, told: Mapping[str, Any]) -> str:
    """What came in place of a decision: its kind, not its value."""
    return "an object without allow" if "allow" not in told else f"a {type(allow).__name__} for allow"
