"""A registry of npm on loopback with small packages, for the real npm client. It counts what it is asked."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TRUE = Path("/bin/true")
ARM64 = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + (183).to_bytes(2, "little") + bytes(100)


def packed(
    files: dict[str, bytes], name: str = "", version: str = "", *, odd: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    """A package as npm packs one; `odd` are further members, as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        described = json.dumps({"name": name, "version": version}).encode()
        for path, content in {"package.json": described, **files}.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        for info in odd:
            tar.addfile(info)
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@dataclass
class Registry:
    """`add` packages; `asked` counts requests by path."""

    url: str = ""
    packages: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    lying: bool = False

    def add(self, name: str, version: str, files: dict[str, bytes] | None = None, **more) -> bytes:
        content = packed(files or {}, name, version, **more)
        self.packages.setdefault(name, {})[version] = content
        self.tags.setdefault(name, {})["latest"] = version
        return content

    def add_opencode(self, *versions: str, program: bytes | None = None) -> None:
        """OpenCode, whose program does nothing, well."""
        for version in versions:
            self.add("opencode-ai", version)
            content = TRUE.read_bytes() if program is None else program
            self.add("opencode-linux-x64-baseline", version, {"bin/opencode": content})

    @property
    def tarballs(self) -> int:
        return sum(count for path, count in self.asked.items() if path.endswith(".tgz"))

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked[path] += 1
        name, _, file = urllib.parse.unquote(path).lstrip("/").partition("/-/")
        if name not in self.packages:
            return 404, b'{"error": "not found"}'
        if file:
            return 200, self.packages[name][file.removesuffix(".tgz")]
        versions = {version: self._version(name, version) for version in self.packages[name]}
        return 200, json.dumps({"name": name, "dist-tags": self.tags[name], "versions": versions}).encode()

    def _version(self, name: str, version: str) -> dict[str, object]:
        content = self.packages[name][version] + (b"?" if self.lying else b"")
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        dist = {"tarball": f"{self.url}/{name}/-/{version}.tgz", "integrity": f"sha512-{digest}"}
        return {"name": name, "version": version, "dist": dist}


@contextmanager
def running_registry() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
