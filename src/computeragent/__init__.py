"""Define an agent, run it with any engine in any sandbox, watch it, govern it and remember it.

Also a drop-in for `claude_agent_sdk`: each of its names is here, the object itself. All names are loaded on first
use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from computeragent.claude.names import UPSTREAM_NAMES

OWN_NAMES = {
    "agent": ["ComputerAgent", "run_task"],
    "approval": ["tty_approval"],
    "chat": ["ChatHandle"],
    "chat_input": ["ChatInput"],
    "chat_result": ["ChatResult"],
    "claude.client": ["ClaudeSDKClient"],
    "claude.query": ["query"],
    "client.harness_client": ["HarnessClient"],
    "client.server_client": ["ComputerAgentServerClient"],
    "errors": [
        "ComputerAgentError",
        "EngineError",
        "GuardrailError",
        "HarnessError",
        "HarnessProtocolError",
        "TurnFailedError",
        "UnknownEngineError",
        "UnknownIdentityLoaderError",
        "UnknownLoaderError",
        "UnknownSessionStoreError",
        "UnknownStoreError",
        "UnknownSubstrateError",
    ],
    "harness": ["LocalHarness"],
    "plugins": [
        "register_engine",
        "register_identity_loader",
        "register_session_store",
        "register_sink",
        "register_substrate",
        "resolve_engine",
        "resolve_identity_loader",
        "resolve_session_store",
        "resolve_substrate",
    ],
    "policy.authorizer": ["PolicyToolAuthorizer"],
    "policy.types": [
        "PolicyAction",
        "PolicyDecision",
        "PolicyEngine",
        "PolicyInput",
        "PolicyPrincipal",
        "PolicyResource",
        "PolicyResult",
    ],
    "protocol_types": [
        "AgentManifest",
        "AgentTelemetry",
        "EngineCapabilities",
        "EngineContext",
        "EngineDriver",
        "EngineEvent",
        "IdentityLoader",
        "IdentitySource",
        "PermissionRequest",
        "PolicyDecider",
        "PolicyVerdict",
        "SessionRequest",
        "Substrate",
        "SubstrateHandle",
    ],
    "substrates": ["LocalSubstrate"],
    "telemetry.audit": ["AuditSink"],
    "telemetry.config": ["configure", "get_config", "get_pipeline", "shutdown"],
    "telemetry.event": ["TelemetryEvent"],
    "telemetry.middleware": ["GuardrailFilter", "PiiRedactor"],
    "telemetry.pipeline": ["Pipeline"],
    "telemetry.protocols": ["TelemetryMiddleware", "TelemetrySink"],
    "wire.events": ["HarnessEvent"],
    "wire.requests": ["Attachment", "PermissionDecision", "StoreConfig", "UserInput"],
    "wire.usage": ["UsageRollup"],
}
"""Our own names, by the module that each lives in. Everything else is `claude_agent_sdk`'s; of its names, `query` and
`ClaudeSDKClient` alone are wrappers of ours."""

_HOME_OF = {name: module for module, names in OWN_NAMES.items() for name in names}

__version__ = "0.4.0"
__all__ = sorted({*UPSTREAM_NAMES, *_HOME_OF, "__version__", "upstream_version"})  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is not None:
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value
    if name.startswith("__") or find_spec(f"{__name__}.{name}") is not None:
        # Also how `from computeragent import plugins` asks first: a module of ours must not cost upstream's import.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Looked up each time: a newer upstream may have more names, and other tools patch some of them.
    upstream = import_module("claude_agent_sdk")
    try:
        return getattr(upstream, "__version__" if name == "upstream_version" else name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
