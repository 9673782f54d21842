"""Peers: programs and browsers that talk to each other over WebRTC, after a PeerJS broker has introduced them."""

from __future__ import annotations

from computeragent.p2p.broker import BrokerOptions, create_broker, open_broker
from computeragent.p2p.connection import Connection
from computeragent.p2p.options import PeerOptions
from computeragent.p2p.peer import Peer
from computeragent.p2p.serving import serve

__all__ = ["BrokerOptions", "Connection", "Peer", "PeerOptions", "create_broker", "open_broker", "serve"]
