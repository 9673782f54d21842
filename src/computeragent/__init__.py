"""Define an agent, run it with any engine in any sandbox, watch it, govern it and remember it.

Names are loaded on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.agent import ComputerAgent, run_task
    from computeragent.approval import tty_approval
    from computeragent.chat import ChatHandle, ChatResult
    from computeragent.chat_input import ChatInput
    from computeragent.errors import (
        ComputerAgentError,
        EngineError,
        HarnessError,
        HarnessProtocolError,
        TurnFailedError,
        UnknownEngineError,
        UnknownIdentityLoaderError,
        UnknownLoaderError,
        UnknownSessionStoreError,
        UnknownStoreError,
        UnknownSubstrateError,
    )
    from computeragent.harness import LocalHarness
    from computeragent.plugins import (
        register_engine,
        register_identity_loader,
        register_session_store,
        register_substrate,
        resolve_engine,
        resolve_identity_loader,
        resolve_session_store,
        resolve_substrate,
    )
    from computeragent.protocol_types import (
        AgentManifest,
        AgentTelemetry,
        EngineCapabilities,
        EngineContext,
        EngineDriver,
        EngineEvent,
        IdentityLoader,
        IdentitySource,
        PermissionRequest,
        PolicyDecider,
        PolicyVerdict,
        SessionRequest,
        Substrate,
        SubstrateHandle,
    )
    from computeragent.substrates import LocalSubstrate
    from computeragent.wire.events import HarnessEvent
    from computeragent.wire.requests import Attachment, PermissionDecision, StoreConfig, UserMessage
    from computeragent.wire.usage import UsageRollup

_HOMES = {
    "agent": ["ComputerAgent", "run_task"],
    "approval": ["tty_approval"],
    "chat": ["ChatHandle", "ChatResult"],
    "chat_input": ["ChatInput"],
    "errors": [
        "ComputerAgentError",
        "EngineError",
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
        "register_substrate",
        "resolve_engine",
        "resolve_identity_loader",
        "resolve_session_store",
        "resolve_substrate",
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
    "wire.events": ["HarnessEvent"],
    "wire.requests": ["Attachment", "PermissionDecision", "StoreConfig", "UserMessage"],
    "wire.usage": ["UsageRollup"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.4.0"
__all__ = [
    "AgentManifest",
    "AgentTelemetry",
    "Attachment",
    "ChatHandle",
    "ChatInput",
    "ChatResult",
    "ComputerAgent",
    "ComputerAgentError",
    "EngineCapabilities",
    "EngineContext",
    "EngineDriver",
    "EngineError",
    "EngineEvent",
    "HarnessError",
    "HarnessEvent",
    "HarnessProtocolError",
    "IdentityLoader",
    "IdentitySource",
    "LocalHarness",
    "LocalSubstrate",
    "PermissionDecision",
    "PermissionRequest",
    "PolicyDecider",
    "PolicyVerdict",
    "SessionRequest",
    "StoreConfig",
    "Substrate",
    "SubstrateHandle",
    "TurnFailedError",
    "UnknownEngineError",
    "UnknownIdentityLoaderError",
    "UnknownLoaderError",
    "UnknownSessionStoreError",
    "UnknownStoreError",
    "UnknownSubstrateError",
    "UsageRollup",
    "UserMessage",
    "__version__",
    "register_engine",
    "register_identity_loader",
    "register_session_store",
    "register_substrate",
    "resolve_engine",
    "resolve_identity_loader",
    "resolve_session_store",
    "resolve_substrate",
    "run_task",
    "tty_approval",
]


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
