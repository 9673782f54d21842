"""One family of errors: every failure has a code, a message, a hint and, where it travels, an HTTP status.

The same fault has the same code in the library, on the wire and on the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class ComputerAgentError(Exception):
    """The root of the family.

    `code` is stable and machine-readable, `hint` says what to do next, `status` is the HTTP status it maps to,
    `details` is plain data for programs. An error that tells of a fault elsewhere has that fault's own `code`.
    """

    code: str = "INTERNAL"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, hint: str | None = None, details: dict[str, Any] | list[Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def to_wire(self) -> dict[str, Any]:
        """The error on the wire: `{"error": {"code", "message", "hint"?, "details"?}}`."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return {"error": body}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.code, self.message, self.hint, self.details))


def _rebuild(
    cls: type[ComputerAgentError],
    code: str,
    message: str,
    hint: str | None,
    details: dict[str, Any] | list[Any] | None,
) -> ComputerAgentError:
    error = cls.__new__(cls)
    ComputerAgentError.__init__(error, message, hint=hint, details=details)
    if code != cls.code:
        error.code = code
    return error


HarnessError = ComputerAgentError


class ValidationError(ComputerAgentError):
    """A value has the wrong type or shape."""

    code = "VALIDATION"
    status = 400


class UnknownOptionError(ValidationError):
    """An engine was given an option that it does not have."""

    code = "UNKNOWN_OPTION"


class InvalidSessionIdError(ValidationError):
    """A session id does not match ``[A-Za-z0-9_][A-Za-z0-9._-]{0,127}``."""

    code = "INVALID_SESSION_ID"


class PolicyInvalidError(ValidationError, ValueError):
    """A policy cannot be read, parsed or validated. `details` has its ``file`` and, where known, the ``line``."""

    code = "POLICY_INVALID"


class MissingPathError(ValidationError):
    """A file route was called without a path."""

    code = "MISSING_PATH"


class TooLargeError(ComputerAgentError):
    """A request is larger than what is taken."""

    code = "TOO_LARGE"
    status = 413


class TooManySessionsError(ComputerAgentError):
    """As many sessions are under way as a server allows."""

    code = "TOO_MANY_SESSIONS"
    status = 429


class UnauthorizedError(ComputerAgentError):
    """No token, or one that nobody has."""

    code = "UNAUTHORIZED"
    status = 401


class InsufficientPermissionError(ComputerAgentError):
    """The caller is known, and may not do this."""

    code = "INSUFFICIENT_PERMISSION"
    status = 403


class ForbiddenHostError(ComputerAgentError):
    """A request names a host that is not served: a browser may have been led here."""

    code = "FORBIDDEN_HOST"
    status = 403


class HttpError(ComputerAgentError):
    """The HTTP server itself refused a request, such as a method that a route does not have."""

    code = "HTTP_EXCEPTION"
    status = 400


class _UnknownNameError(ComputerAgentError):
    status = 400
    noun: ClassVar[str] = "name"

    def __init__(self, requested: str, available: Iterable[str]) -> None:
        self.requested = requested
        self.available = sorted(available)
        close = [name for name in self.available if name.startswith(requested)] if requested else []
        close = close or difflib.get_close_matches(requested, self.available, n=1)
        listed = ", ".join(self.available) or "none"
        hint = f'Did you mean "{close[0]}"? Available: {listed}.' if close else f"Available: {listed}."
        super().__init__(
            f"{self.noun} {requested!r} is not registered", hint=hint, details={"available": self.available}
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.requested, self.available))


class UnknownEngineError(_UnknownNameError):
    """No engine of this name is registered."""

    code = "UNKNOWN_ENGINE"
    noun = "engine"


class UnknownLoaderError(_UnknownNameError):
    """No identity loader of this name is registered."""

    code = "UNKNOWN_LOADER"
    noun = "identity loader"


class UnknownStoreError(_UnknownNameError):
    """No session store of this name is registered."""

    code = "UNKNOWN_STORE"
    noun = "session store"


class UnknownSubstrateError(_UnknownNameError):
    """No substrate of this name is registered."""

    code = "UNKNOWN_SUBSTRATE"
    noun = "runtime"


class UnknownSinkError(_UnknownNameError):
    """No telemetry sink of this name is registered."""

    code = "UNKNOWN_SINK"
    noun = "sink"


class UnknownCliError(_UnknownNameError):
    """No command line agent of this name is known."""

    code = "UNKNOWN_CLI"
    noun = "command line agent"


UnknownIdentityLoaderError = UnknownLoaderError
UnknownSessionStoreError = UnknownStoreError


class HarnessProtocolError(ComputerAgentError):
    """The other side of a wire broke the harness protocol."""

    code = "PROTOCOL"
    status = 502


class ProtocolVersionError(HarnessProtocolError):
    """Client and server speak different versions of the protocol."""

    code = "PROTOCOL_VERSION"
    status = 400


class ControlPlaneError(ComputerAgentError):
    """The control plane is not configured, cannot be reached, or answers what makes no sense."""

    code = "CONTROL_PLANE"
    status = 502


class UnknownAgentError(ComputerAgentError):
    """No agent of this id is registered, as far as this key may see."""

    code = "UNKNOWN_AGENT"
    status = 404


class NotRemotableError(ComputerAgentError):
    """A live Python object was given where only data can travel."""

    code = "NOT_REMOTABLE"
    status = 400


class MissingExtraError(ComputerAgentError):
    """A feature needs an optional dependency that is not installed."""

    code = "MISSING_EXTRA"
    status = 501


class SubstrateError(ComputerAgentError):
    """A sandbox could not be started, or ended by itself."""

    code = "SUBSTRATE_FAILED"
    status = 503


class UnsupportedRuntimeError(ComputerAgentError):
    """The caller's event loop is not one that this feature runs on."""

    code = "UNSUPPORTED_RUNTIME"
    status = 501


class NotFoundError(ComputerAgentError):
    """A session, file or engine does not exist."""

    code = "NOT_FOUND"
    status = 404


class ConflictError(ComputerAgentError):
    """What was asked for does not go with how things stand now."""

    code = "CONFLICT"
    status = 409


class SessionEndedError(ComputerAgentError):
    """The run is over; it takes no more messages."""

    code = "SESSION_ENDED"
    status = 409


class SessionLiveError(ComputerAgentError):
    """The session is running elsewhere, or already here."""

    code = "SESSION_LIVE"
    status = 409


class EventsGoneError(ComputerAgentError):
    """The stream was asked to resume from an event that is no longer kept. `earliest` is the oldest id kept."""

    code = "EVENTS_GONE"
    status = 410

    def __init__(self, after: int, earliest: int) -> None:
        self.after = after
        self.earliest = earliest
        super().__init__(
            f"events after {after} are no longer kept; the earliest kept event is {earliest}",
            hint=f"Resume after {earliest - 1}, the oldest place that is still kept.",
            details={"earliest": earliest},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.after, self.earliest))


class EventIdAheadError(ComputerAgentError):
    """The stream was asked to resume from an event that does not exist yet."""

    code = "EVENT_ID_AHEAD"
    status = 409


class UnknownCallError(ComputerAgentError):
    """A permission answer names a call that is not pending: unknown, answered already, or too late."""

    code = "UNKNOWN_CALL_ID"
    status = 400


class PathEscapeError(ComputerAgentError):
    """A path leaves the directory that it is confined to."""

    code = "PATH_ESCAPE"
    status = 400


class WorkspaceError(ComputerAgentError):
    """A file operation in the workspace cannot be done as asked."""

    code = "WORKSPACE"
    status = 400


class IdentityError(ComputerAgentError):
    """The agent's definition cannot be read: a missing or invalid agent.yaml, a bad inline manifest."""

    code = "IDENTITY_INVALID"
    status = 400


class SourceError(ComputerAgentError):
    """The agent's source cannot be fetched: unreachable host, bad ref, missing directory."""

    code = "SOURCE_UNAVAILABLE"
    status = 502


class StoreError(ComputerAgentError):
    """A session store failed, or is not one."""

    code = "STORE_FAILED"


class EventLogError(ComputerAgentError):
    """The event log cannot be written: the disk is full, or another process owns the session."""

    code = "EVENT_LOG_FAILED"


class AuditFileError(ComputerAgentError):
    """The audit file cannot be written: it is signed with another key, or another process holds it."""

    code = "AUDIT_FILE"


class EventLogUnavailableError(EventLogError):
    """The server that keeps the event log cannot be reached, or does not take what it is told."""

    code = "EVENT_LOG_UNAVAILABLE"
    status = 503


class ReplicaError(ComputerAgentError):
    """The server that runs a session cannot be reached from the one that was asked."""

    code = "REPLICA_UNREACHABLE"
    status = 503


class EngineError(ComputerAgentError):
    """The engine failed; the run ended with an error. `result` holds what the turn had brought until then."""

    code = "ENGINE_FAILED"
    status = 502
    result: Any = None


class TurnFailedError(EngineError):
    """A turn failed (the model's API, a turn limit); the session goes on. `result` holds what there was of it."""

    code = "TURN_FAILED"


class EngineUnavailableError(EngineError):
    """The engine cannot start: its program is missing, or the provider key is."""

    code = "ENGINE_UNAVAILABLE"
    status = 503


class GuardrailError(ComputerAgentError):
    """A guard stopped the run: it cost more than its ceiling, or said what must not be said."""

    code = "GUARDRAIL"
    status = 403


class NotDeliveredError(ComputerAgentError):
    """Telemetry could not be delivered in time; it stays in the spool."""

    code = "NOT_DELIVERED"
    status = 504


class ComputerError(ComputerAgentError):
    """A computer that an agent acts on cannot be used: it did not start, has gone, or did not answer."""

    code = "COMPUTER_UNAVAILABLE"
    status = 503


class ComputerUnsupportedError(ComputerError):
    """This kind of computer cannot do that, or no kind here is what was asked for."""

    code = "COMPUTER_UNSUPPORTED"
    status = 501


class ComputerBusyError(ComputerError):
    """All computers are leased, and none came free in time."""

    code = "COMPUTER_BUSY"


class ComputerActionError(ComputerAgentError):
    """An action that cannot be done as it was asked for; a model is told, and may mend it."""

    code = "COMPUTER_ACTION"
    status = 400


class ModelCallError(ComputerAgentError):
    """A model could not be called, refused the request or broke off. `details` has ``kind``, ``status``, ``type``."""

    code = "MODEL_CALL"
    status = 502


class UnknownModelError(ComputerAgentError):
    """No provider serves a model of this name, or the key for it is missing."""

    code = "UNKNOWN_MODEL"
    status = 400


class PeerError(ComputerAgentError):
    """A WebRTC peer, or the broker that introduces peers, cannot be reached, left, or broke its protocol."""

    code = "PEER"
    status = 502


class PeerUnavailableError(PeerError):
    """No peer of this id is there, or it does not let this one in."""

    code = "PEER_UNAVAILABLE"
    status = 404


class PeerIdTakenError(PeerError):
    """Another peer has this id at the broker."""

    code = "PEER_ID_TAKEN"
    status = 409


class PeerMessageError(PeerError):
    """A message between peers cannot be read, cannot be written, or is too large."""

    code = "PEER_MESSAGE"
    status = 400


class UnknownPriceError(ComputerAgentError):
    """A run has a budget, but nobody knows what its model costs."""

    code = "UNKNOWN_PRICE"
    status = 400


class ArtifactError(ComputerAgentError):
    """A program of an agent cannot be had: the package client is missing, or failed."""

    code = "ARTIFACT"
    status = 502


class ArtifactUnavailableError(ArtifactError):
    """The registry cannot be reached, or must not be (offline), and the program is not in the cache."""

    code = "ARTIFACT_UNAVAILABLE"
    status = 503


class ArtifactCorruptError(ArtifactError):
    """What was fetched or cached is not what was published; it was removed."""

    code = "ARTIFACT_CORRUPT"


class UnknownVersionError(ArtifactError):
    """The registry has no such version."""

    code = "UNKNOWN_VERSION"
    status = 404


class PlatformError(ArtifactError):
    """A program is not made for this platform, or nobody knows the platform."""

    code = "PLATFORM"
    status = 501


class CliFailedError(ComputerAgentError, RuntimeError):
    """A command line agent did not do its work: it failed, did not start, or never asked the model."""

    code = "CLI_FAILED"
    status = 502


class ScriptError(ComputerAgentError):
    """A script of the scripted engine or of the model simulator is wrong."""

    code = "SCRIPT_INVALID"
    status = 400


def told(
    code: str, message: str, hint: str | None = None, details: Any = None, *, default: type[ComputerAgentError]
) -> ComputerAgentError:
    """An error that another process told, as the class of its code here, or as `default` with that code."""
    cls = next((each for each in error_classes() if each.code == code), default)
    error = cls.__new__(cls)
    ComputerAgentError.__init__(error, message, hint=hint, details=details)
    error.code = code
    return error


def error_classes() -> list[type[ComputerAgentError]]:
    """Every class of the family with a code of its own, for the generated table in the docs."""
    found: dict[str, type[ComputerAgentError]] = {}
    pending = [ComputerAgentError]
    while pending:
        cls = pending.pop()
        if "code" in cls.__dict__:
            found.setdefault(cls.code, cls)
        pending.extend(cls.__subclasses__())
    return [found[code] for code in sorted(found)]
