"""The harness server's event streams beside a plain `StreamingResponse` of the same events, and beside sse-starlette.

Each server is a process of its own (`stream_servers.py`); this one is the clients: raw sockets that count. Rounds of
the servers alternate; what is printed are medians, and ratios of medians.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_servers import EVENTS_FILE, GROUP, TOKEN, WORDS

NAMES = {
    "memory": "harness, memory log",
    "sqlite": "harness, sqlite log",
    "plain": "plain Starlette",
    "sse": "sse-starlette",
}
OURS = ("memory", "sqlite")
_STAMP = re.compile(rb"~(\d+)~")
_FROM = "?lastEventId=1"  # where the turn begins: in memory, what was before a long turn is not kept
_INLINE = {"type": "inline", "manifest": {"name": "streams", "version": "1"}}


@dataclass(frozen=True)
class Server:
    """A server under test."""

    kind: str
    port: int
    pid: int

    def post(self, path: str, body: Any, method: str = "POST") -> Any:
        """Its answer to a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, json.dumps(body), {"authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return json.loads(said)

    def open(self, engine: str, **options: Any) -> str:
        """A session that waits for a message; its path."""
        identity = {"loader": "passthrough", "source": _INLINE}
        body = {"engine": engine, "identity": identity, "options": options, "streamingInput": True}
        return f"/v1/sessions/{self.post('/v1/sessions', body)['sessionId']}"

    def resident(self) -> float:
        """Its resident memory in kB."""
        return next(float(line.split()[1]) for line in _status(self.pid) if line.startswith("VmRSS:"))


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text("ascii").splitlines()


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[Server]:
    """A server, from its start to its end."""
    program = [sys.executable, str(Path(__file__).parent / "stream_servers.py"), kind, str(folder)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Server(kind, int(process.stdout.readline()), process.pid)
    finally:
        if process.poll() is not None:
            print(f"{NAMES[kind]} ended by itself: {process.returncode}", file=sys.stderr)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ── Raw sockets ──


def subscribe(port: int, path: str) -> socket.socket:
    """A connection that has asked for a stream."""
    connection = socket.create_connection(("127.0.0.1", port))
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    connection.sendall(request.encode())
    return connection


def begun(connection: socket.socket, until: bytes = b"\r\n\r\n") -> bytes:
    """What a stream has sent when `until` has come."""
    connection.settimeout(60)
    head = b""
    while until not in head:
        part = connection.recv(65536)
        if not part:
            raise RuntimeError(f"the stream ended: {head[:300]!r}")
        head += part
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the stream was refused: {head[:300]!r}")
    return head


def drained(connections: Sequence[socket.socket], got: Callable[[int, bytes], None]) -> None:
    """Read all streams to their ends; each piece is given to `got` with the number of its stream."""
    with selectors.DefaultSelector() as ready:
        for number, connection in enumerate(connections):
            connection.setblocking(False)
            ready.register(connection, selectors.EVENT_READ, number)
        while ready.get_map():
            found = ready.select(60)
            if not found:
                raise RuntimeError("the streams stand still")
            for key, _ in found:
                data = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                if data:
                    got(key.data, data)
                else:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]


def delivered(connections: Sequence[socket.socket], each: int) -> float:
    """When the last of the streams had its `each` texts. A text has one ``~``, which nothing else has."""
    counts = [0] * len(connections)
    last = 0.0

    def got(number: int, data: bytes) -> None:
        nonlocal last
        new = data.count(b"~")
        if new:
            counts[number] += new
            last = time.perf_counter()

    drained(connections, got)
    if set(counts) != {each}:
        raise RuntimeError(f"{each} texts were sent, {min(counts)} to {max(counts)} came")
    return last


# ── What is measured ──


def run_of(server: Server, count: int, *, grouped: bool) -> str:
    """A session that will say `count` texts when it is spoken to; its path."""
    group: list[Any] = [{"text": "~{message}"}] * GROUP
    if grouped:
        group = [*group, {"delay": 0}]
    return server.open("scripted", script=[[*group * (count // GROUP), {"text": "the result"}]])


def told(server: Server, path: str) -> None:
    """Speak to a session, and end its input."""
    server.post(f"{path}/messages", {"message": {"role": "user", "content": WORDS}})
    server.post(f"{path}/end-input", {})


def finished(server: Server, count: int) -> str:
    """A run that is over; its path."""
    path = run_of(server, count, grouped=False)
    told(server, path)
    while server.post(path, None, "GET")["status"] == "running":
        time.sleep(0.05)
    return path


def write_events(server: Server, folder: Path, count: int) -> int:
    """Keep the events of a finished run for the other servers; the bytes of its frames."""
    connection = subscribe(server.port, f"{finished(server, count)}/events{_FROM}")
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    frames = reply.read().split(b"\n\n")
    events: list[Any] = []
    for frame in frames:
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if not line.startswith(b":") and line)
        if b"~" in fields.get(b"data", b""):
            events.append([fields[b"event"].decode(), int(fields[b"id"]), fields[b"data"].decode()])
    assert len(events) == count
    (folder / EVENTS_FILE).write_text(json.dumps(events))
    return sum(map(len, frames)) // len(frames)


def whole(server: Server, subscribers: int, count: int, path: str) -> float:
    """Events per second, all subscribers together, of a run that is over."""
    where = f"{path}/events{_FROM}" if server.kind in OURS else f"/whole?count={count}"
    began = time.perf_counter()
    connections = [subscribe(server.port, where) for _ in range(subscribers)]
    return subscribers * count / (delivered(connections, count) - began)


def live(server: Server, subscribers: int, count: int) -> float:
    """Events per second, all subscribers together, of a run that goes as fast as it can."""
    ours = server.kind in OURS
    path = run_of(server, count, grouped=True) if ours else ""
    connections = [subscribe(server.port, f"{path}/events" if ours else "/live") for _ in range(subscribers)]
    for connection in connections:
        begun(connection)
    began = time.perf_counter()
    if ours:
        told(server, path)
    else:
        server.post("/go", {"count": count})
    took = delivered(connections, count) - began
    if ours:
        server.post(path, None, "DELETE")
    return subscribers * count / took


def latency(server: Server, subscribers: int, rate: float, seconds: float) -> list[float]:
    """Milliseconds from where events are made to where they are read, for each event of each subscriber."""
    ours, count = server.kind in OURS, int(rate * seconds)
    path = server.open("ticker", rate=rate, count=count) if ours else ""
    connections = [subscribe(server.port, f"{path}/events" if ours else "/live") for _ in range(subscribers)]
    for connection in connections:
        begun(connection)
    if ours:
        told(server, path)
    else:
        server.post("/go", {"rate": rate, "count": count})
    found: list[float] = []
    rest = [b""] * subscribers

    def got(number: int, data: bytes) -> None:
        now = time.monotonic_ns()
        data = rest[number] + data
        end = 0
        for match in _STAMP.finditer(data):
            found.append((now - int(match[1])) / 1e6)
            end = match.end()
        rest[number] = data[max(end, len(data) - 64) :]

    drained(connections, got)
    if len(found) != subscribers * count:
        raise RuntimeError(f"{subscribers * count} events were sent, {len(found)} came")
    if ours:
        server.post(path, None, "DELETE")
    return found


def idle(server: Server, streams: int, wait: float) -> float:
    """Kilobytes of the server's memory for each of many streams on which nothing happens."""
    where = f"{server.open('scripted')}/events" if server.kind in OURS else "/idle"

    def opened(count: int) -> list[socket.socket]:
        connections = [subscribe(server.port, where) for _ in range(count)]
        for connection in connections:
            begun(connection, b"\n\n")
        return connections

    first = opened(50)  # what a first stream costs once
    time.sleep(0.5)
    before = server.resident()
    connections = opened(streams)
    time.sleep(wait)
    grown = server.resident() - before
    for connection in (*first, *connections):
        connection.close()
    return grown / streams


def crowd(server: Server, sessions: int) -> dict[str, float]:
    """Sessions that all run at once: opened, read, spoken to, ended and deleted. Seconds of each part, and kB."""
    turn = [*([{"text": "~{message}"}] * 5), {"delay": 1.0}] * 4 + [{"text": "the result"}]
    marks = [time.perf_counter()]
    paths = [server.open("scripted", script=[turn]) for _ in range(sessions)]
    connections = [subscribe(server.port, f"{path}/events") for path in paths]
    for connection in connections:
        begun(connection)
    marks.append(time.perf_counter())
    full = server.resident()
    for path in paths:
        told(server, path)
    last = delivered(connections, 20)
    states = [server.post(path, None, "GET")["status"] for path in paths]
    if states != ["completed"] * sessions:
        raise RuntimeError(f"runs ended as {set(states)}")
    after = server.resident()
    for path in paths:
        server.post(path, None, "DELETE")
    time.sleep(1.0)
    took = {"open": marks[1] - marks[0], "run": last - marks[1]}
    return took | {"full": full, "after": after, "left": server.resident()}


# ── Tables ──


def fan_out(folder: Path, kinds: Sequence[str], *, rounds: int, scale: float, bytes_each: int) -> None:
    """Events per second of finished runs and of runs under way."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(kind, folder)) for kind in kinds]
        for subscribers, events in ((1, 4_000), (10, 2_000), (100, 400)):
            count = int(events * scale) // GROUP * GROUP
            paths = {server.kind: finished(server, count) if server.kind in OURS else "" for server in servers}
            cases: dict[str, Callable[[Server], float]] = {
                "a finished run": lambda server: whole(server, subscribers, count, paths[server.kind]),  # noqa: B023
                "a run under way": lambda server: live(server, subscribers, count),  # noqa: B023
            }
            for case, measure in cases.items():
                rates: dict[str, list[float]] = {kind: [] for kind in kinds}
                for number in range(rounds + 1):
                    for server in servers:
                        rate = measure(server)
                        if number:  # the first round warms up
                            rates[server.kind].append(rate)
                print(f"{case}, {subscribers} subscribers × {count} events of {bytes_each} bytes, events/s")
                _ratios(rates)


def _ratios(rates: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(found) for kind, found in rates.items()}
    for kind, found in rates.items():
        line = f"  {NAMES[kind]:22}{medians[kind]:12,.0f}   ({min(found):,.0f} to {max(found):,.0f})"
        if kind in OURS:
            goals = {"plain": "1.0", "sse": "2"}
            line += "".join(
                f"   {medians[kind] / medians[other]:5.2f}× {NAMES[other]} (goal {goals[other]}×)"
                for other in goals
                if other in medians
            )
        print(line, flush=True)


def latencies(folder: Path, kinds: Sequence[str], *, rounds: int, rate: float, seconds: float) -> None:
    """Milliseconds from the making of an event to its reading."""
    print(f"latency at {rate:g} events/s, ms (median of {rounds} rounds)")
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(kind, folder)) for kind in kinds]
        for subscribers in (1, 10, 100):
            found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
            for number in range(rounds + 1):
                for server in servers:
                    times = sorted(latency(server, subscribers, rate, seconds))
                    if number:
                        found[server.kind].append((times[len(times) // 2], times[len(times) * 99 // 100]))
            for kind, each in found.items():
                p50, p99 = (statistics.median(one[place] for one in each) for place in (0, 1))
                print(f"  {subscribers:4} subscribers  {NAMES[kind]:22} p50 {p50:7.2f}   p99 {p99:7.2f}", flush=True)


def idle_memory(folder: Path, kinds: Sequence[str], *, rounds: int, streams: int, wait: float) -> None:
    """What a stream costs on which nothing happens."""
    print(f"{streams} idle streams, kB of the server's memory each, after {wait:g} s (goal: 8 kB above the plain one)")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            with serving(kind, folder) as server:
                found[kind].append(idle(server, streams, wait))
    base = statistics.median(found["plain"])
    for kind, each in found.items():
        median = statistics.median(each)
        print(f"  {NAMES[kind]:22}{median:7.1f}   {median - base:+7.1f} kB", flush=True)


def crowds(folder: Path, kinds: Sequence[str], *, rounds: int, sessions: int) -> None:
    """Many sessions at once, again and again: all finish, and memory stays where it was."""
    print(f"{sessions} concurrent scripted sessions, read by {sessions} clients; resident memory in MB")
    for kind in kinds:
        with serving(kind, folder) as server:
            crowd(server, 20)
            print(f"  {NAMES[kind]}: {server.resident() / 1024:.1f} before")
            for number in range(rounds):
                took = crowd(server, sessions)
                print(
                    f"    round {number + 1}: all finished; opened and read in {took['open']:.1f} s, ran in"
                    f" {took['run']:.1f} s; {took['full'] / 1024:.1f} when all were open,"
                    f" {took['after'] / 1024:.1f} when all were done, {took['left'] / 1024:.1f} when deleted",
                    flush=True,
                )


PARTS = ("fan-out", "latency", "idle", "sessions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, events and streams")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    given = parser.parse_args()
    quick = given.quick
    parts = [given.only] if given.only else list(PARTS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = ["memory", "sqlite", "plain"]
    try:
        import sse_starlette  # noqa: F401

        kinds.append("sse")
    except ImportError:
        print("sse-starlette is not here: pip install sse-starlette")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving("memory", folder) as server:
            bytes_each = write_events(server, folder, 4_000)
        if "fan-out" in parts:
            fan_out(folder, kinds, rounds=2 if quick else 7, scale=0.25 if quick else 1.0, bytes_each=bytes_each)
        if "latency" in parts:
            latencies(folder, kinds, rounds=1 if quick else 3, rate=100, seconds=1 if quick else 5)
        if "idle" in parts:
            streams, wait = (300, 1.0) if quick else (1_000, 20.0)  # long enough for a heartbeat
            idle_memory(folder, kinds, rounds=1 if quick else 3, streams=streams, wait=wait)
        if "sessions" in parts:
            crowds(folder, OURS, rounds=3, sessions=100 if quick else 1_000)


if __name__ == "__main__":
    main()
