"""WebRTC connections of aiortc that are reachable from no further than asked for, and that notice a dead peer.

aiortc has settings for neither. What it lacks is put on the one connection that needs it, never on the library: other
users of aiortc in this process see nothing of it.
"""

from __future__ import annotations

import importlib
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

from computeragent.errors import MissingExtraError, PeerError, ValidationError
from computeragent.p2p.options import Exposure, PeerOptions

_RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes; the system may give less
_OTHER_MEDIA = ("m=audio", "m=video")


def load(name: str) -> Any:
    """A module of the `[p2p]` extra. Raises `MissingExtraError` without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"peer-to-peer connections need the [p2p] extra: {error}", hint="pip install 'computer-agent-py[p2p]'"
        ) from error


def new_connection(options: PeerOptions) -> Any:
    """An `RTCPeerConnection` with the ICE servers of the options, and with none of its own choice."""
    aiortc = load("aiortc")
    try:
        servers = [_server(aiortc, given) for given in options.ice_servers]
        return aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=servers))
    except (TypeError, ValueError) as error:
        raise ValidationError(f"an ICE server is not valid: {error}", hint="Give stun: or turn: URLs.") from error


def _server(aiortc: Any, given: str | Mapping[str, Any]) -> Any:
    return aiortc.RTCIceServer(urls=given) if isinstance(given, str) else aiortc.RTCIceServer(**given)


def restrict(connection: Any, exposure: Exposure) -> None:
    """Let a connection that has its data transport listen on no other addresses; call it before the description is set.

    It listens on the loopback address, too, which ICE leaves out: a machine without a network has no other.
    """
    ice = _ice(connection)
    gather = ice.get_component_candidates

    async def within(component: int, addresses: list[str], timeout: int = 5) -> list[Any]:
        chosen = ["127.0.0.1", *(address for address in addresses if _is_within(address, exposure))]
        candidates = await gather(component=component, addresses=chosen, timeout=timeout)
        for protocol in ice._protocols:  # noqa: SLF001 - aioice gives nobody its sockets
            sock = protocol.transport.get_extra_info("socket")
            if sock is not None:  # a buffer that overflows costs a second of waiting
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        return candidates

    ice.get_component_candidates = within


def _is_within(address: str, exposure: Exposure) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if found.is_loopback or exposure == "loopback":
        return False  # the one loopback address is there already
    return exposure == "all" or found.is_private


def description(given: Any, kind: str, exposure: Exposure) -> Any:
    """A session description that a peer sent, without the candidates that are out of reach. Raises `PeerError`."""
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    text = fields.get("sdp")
    if not isinstance(text, str) or fields.get("type") != kind:
        raise PeerError(f"a peer sent a malformed {kind}")
    lines = text.splitlines()
    if any(line.startswith(_OTHER_MEDIA) for line in lines):
        raise PeerError(f"the {kind} of a peer asks for audio or video; there is data only")
    kept = [
        line
        for line in lines
        if not line.startswith("a=candidate:") or is_in_reach(line.removeprefix("a=candidate:"), exposure)
    ]
    return load("aiortc").RTCSessionDescription(sdp="\r\n".join(kept) + "\r\n", type=kind)


def candidate(given: Any, exposure: Exposure) -> Any:
    """A candidate that a peer sent, or None for one that is out of reach. Raises `PeerError`."""
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    text = fields.get("candidate")
    if not isinstance(text, str):
        raise PeerError("a peer sent a malformed candidate")
    line = text.removeprefix("candidate:")
    if not line or not is_in_reach(line, exposure):
        return None
    try:
        found = load("aiortc.sdp").candidate_from_sdp(line)
    except (AssertionError, ValueError, IndexError) as error:
        raise PeerError("a peer sent a malformed candidate") from error
    found.sdpMid, found.sdpMLineIndex = fields.get("sdpMid"), fields.get("sdpMLineIndex")
    return None if found.sdpMid is None and found.sdpMLineIndex is None else found


def is_in_reach(line: str, exposure: Exposure) -> bool:
    """Whether a candidate's address is one to talk to.

    Names are left out: browsers that hide their address behind one are recognised when they call (RFC 8445, 7.3.1.3),
    and to resolve it would send multicast into every network. Addresses beyond the exposure are left out, too.
    """
    words = line.split()
    try:
        address = ipaddress.ip_address(words[4])
    except (IndexError, ValueError):
        return False
    if exposure == "loopback":
        return address.is_loopback or str(address) in set(_own_addresses())
    return exposure == "all" or address.is_private


def _own_addresses() -> Iterable[str]:
    for adapter in load("ifaddr").get_adapters():
        for ip in adapter.ips:
            yield ip.ip if isinstance(ip.ip, str) else ip.ip[0]


class Pulse:
    """Whether the other side is alive: by anything that it sends, and by its answer to a STUN request.

    Every WebRTC stack answers those. ICE itself asks, too, and takes half a minute to believe it.
    """

    def __init__(self, connection: Any) -> None:
        self._ice = _ice(connection)
        self._heard = time.monotonic()
        received = self._ice.data_received

        def hear(data: bytes, component: int) -> None:
            self._heard = time.monotonic()
            received(data, component)

        self._ice.data_received = hear  # confirmations of what was sent come here, too

    def silence(self) -> float:
        """Seconds since it was last heard."""
        return time.monotonic() - self._heard

    async def ask(self) -> bool:
        """Ask for a sign of life, twice, and wait a second and a half for it; whether it came."""
        stun = load("aioice.stun")
        for pair in list(self._ice._nominated.values()):  # noqa: SLF001 - aioice tells it to nobody
            request = self._ice.build_request(pair, nominate=False)
            key = self._ice.remote_password.encode()
            try:
                await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=1)
            except (stun.TransactionError, OSError):
                continue
            self._heard = time.monotonic()
            return True
        return False


def _ice(connection: Any) -> Any:
    return connection.sctp.transport.transport.iceGatherer._connection  # noqa: SLF001 - aiortc keeps it there


def is_sending(connection: Any) -> bool:
    """Whether the other side has yet to confirm something."""
    sctp = connection.sctp
    return bool(sctp._outbound_queue or sctp._sent_queue)  # noqa: SLF001 - aiortc tells it to nobody
