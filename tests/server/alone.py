"""A machine of its own for one command line: no network but loopback, where every port is free.

Run as ``python alone.py FOLDER COMMAND`` in a network namespace. There, `computeragent serve --no-auth` is on its own
port; github.com is a Git server, and api.anthropic.com the model simulator behind TLS, as a company's proxy would be.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parents[1]))

from computeragent.testing.models import ModelSimulator, parse_script
from identity.conftest import GitServer, _handler, git

MODEL = "api.anthropic.com"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the model's host that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, MODEL)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(MODEL)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    places = folder / "model.pem", folder / "model.key"
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    places[0].write_bytes(made.public_bytes(pem))
    places[1].write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    return places


async def proxy(model_port: int, context: ssl.SSLContext) -> int:
    """An HTTPS proxy for which every host is the model; its port."""

    async def passed(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
            if not asked.startswith(f"CONNECT {MODEL}:443 ".encode()):
                writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(context)
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", model_port)
            await asyncio.gather(passed(reader, to_writer), passed(to_reader, writer))
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    asyncio.get_running_loop().create_task(server.serve_forever())
    return server.sockets[0].getsockname()[1]


def git_host(folder: Path) -> int:
    """A Git server that has the repository of the command line; its port."""
    origin = folder / "origin"
    origin.mkdir()
    (origin / "agent.yaml").write_text('name: general-agent\nversion: "4.2.0"\n')
    (origin / "SOUL.md").write_text("You answer.\n")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        git(*words, cwd=origin)
    git("clone", "-q", "--bare", str(origin), str(folder / "served" / "public" / "general-agent.git"), cwd=folder)
    state = GitServer(folder / "served")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    return httpd.server_port


async def main(folder: Path, command: str) -> None:
    """Start everything, run the command line in a shell, and print what it wrote and what the model was asked."""
    pem, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    gitconfig = folder / "gitconfig"
    host = f"http://127.0.0.1:{git_host(folder)}/public/"
    gitconfig.write_text(f'[url "{host}"]\n\tinsteadOf = https://github.com/open-gitagent/\n')
    async with ModelSimulator(parse_script("- match: PING\n  reply: PING\n")) as model:
        port = await proxy(int(model.url.rpartition(":")[2]), context)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "COMPUTERAGENT_HOME": str(folder / "home"),
            "GIT_CONFIG_GLOBAL": str(gitconfig),
            "HTTPS_PROXY": f"http://127.0.0.1:{port}",
            "NODE_EXTRA_CA_CERTS": str(pem),
            "CLAUDE_CONFIG_DIR": str(folder / "claude"),
        }
        command_line = [sys.executable, "-m", "computeragent", "serve", "--no-auth"]
        log = (folder / "server.log").open("wb")
        server = subprocess.Popen(command_line, env=env, stdout=log, stderr=log)
        try:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", 7700)) == 0:
                        break
                assert server.poll() is None, (folder / "server.log").read_text()
                await asyncio.sleep(0.05)
            curl = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=subprocess.PIPE)
            said, _ = await asyncio.wait_for(curl.communicate(), 45)
        finally:
            server.terminate()
            server.wait(20)
        calls = [{"key": call.headers.get("x-api-key"), "path": call.path} for call in model.calls]
        print(json.dumps({"code": curl.returncode, "said": said.decode(), "calls": calls}))
        print((folder / "server.log").read_text(), file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
