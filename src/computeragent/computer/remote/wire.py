"""The wire of a computer-server: commands over its WebSocket (``/ws``) or one by one over HTTP (``/cmd``)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from computeragent.errors import ComputerActionError, ComputerError, ComputerUnsupportedError, ValidationError
from computeragent.logs import UNTOLD
from computeragent.wire.encoding import from_json, to_json

if TYPE_CHECKING:
    import httpx2
    from websockets.asyncio.client import ClientConnection

MAX_ANSWER = 96 * 1024 * 1024
_SHORT = 300
_DATA = b"data:"


class Wire(Protocol):
    """A way to ask a computer-server."""

    async def ask(self, command: str, params: Mapping[str, Any], *, timeout: float, again: bool) -> dict[str, Any]:
        """Ask, and take the answer as it is; once more over a new connection if it broke and `again`."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


def base_of(url: str) -> str:
    """The address of a server, however its routes were spelled. Raises `ValidationError`."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValidationError("the address of the computer-server is none", hint="Such as http://10.0.0.5:8000.")
    path = parts.path.rstrip("/")
    for route in ("/ws", "/cmd", "/status"):
        path = path.removesuffix(route)
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def check_key(*parts: str | None) -> None:
    """Raise `ValidationError` for a key or name that no header can carry."""
    if not all(part is None or (part.isascii() and part.isprintable()) for part in parts):
        raise ValidationError("a key or name has characters that cannot be sent", hint="Use letters, digits and marks.")


def checked(answer: Mapping[str, Any], command: str) -> dict[str, Any]:
    """An answer that says that it was done. Raises what went wrong there."""
    if answer.get("success") is True:
        return dict(answer)
    told = str(answer.get("error") or "it does not say why")[:_SHORT]
    code, hint = answer.get("code"), answer.get("hint")
    message = f"{command}: {told}"
    if code == ComputerUnsupportedError.code or "nknown command" in told:
        raise ComputerUnsupportedError(f"the computer cannot do that: {message}", hint=_text(hint))
    if code in {None, ComputerActionError.code, ValidationError.code}:
        raise ComputerActionError(told if code else message, hint=_text(hint))
    raise ComputerError(message, hint=_text(hint))


def _text(value: object) -> str | None:
    return value[:_SHORT] if isinstance(value, str) else None


def decoded(data: bytes | str) -> dict[str, Any]:
    """An answer. Raises `ComputerError` for what is none."""
    try:
        value: Any = from_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ComputerError("the computer-server answered what is no answer", hint="Is it a cua computer-server?")
    return cast("dict[str, Any]", value)


def wrong_key(base: str) -> ComputerError:
    """The server does not let us in."""
    return ComputerError(
        f"the computer-server at {urlsplit(base).netloc} refused the key", hint="Mend `api_key` (and `name`)."
    )


def unreachable(base: str, error: Exception) -> ComputerError:
    """Nobody answers there."""
    why = str(error).strip() or type(error).__name__
    return ComputerError(
        f"no computer-server answers at {urlsplit(base).netloc}: {why[:_SHORT]}",
        hint="Is it running, and is that its address?",
    )


class CommandWire:
    """``POST /cmd``: one request for each command."""

    def __init__(self, base: str, api_key: str | None, name: str | None) -> None:
        import httpx2

        self._base = base
        headers = {"X-API-Key": api_key, "X-Container-Name": name}
        self._http = httpx2.AsyncClient(headers={key: value for key, value in headers.items() if value})

    async def ask(self, command: str, params: Mapping[str, Any], *, timeout: float, again: bool) -> dict[str, Any]:
        """Ask. Raises `ComputerError` when the server is gone, slow, or makes no sense."""
        import httpx2

        body = to_json({"command": command, "params": dict(params)})
        for last in (not again, True):
            try:
                async with asyncio.timeout(timeout):
                    return await self._post(body, timeout)
            except (TimeoutError, httpx2.TimeoutException):
                raise slow(command, timeout) from None
            except httpx2.HTTPError as error:
                if last:
                    raise unreachable(self._base, error) from error
        raise AssertionError

    async def status(self, timeout: float) -> dict[str, Any]:
        """What ``/status`` says of the server; nothing where it does not say. Raises `ComputerError`."""
        import httpx2

        try:
            async with asyncio.timeout(timeout):
                response = await self._http.get(f"{self._base}/status", timeout=timeout)
                told: Any = from_json(response.content) if response.status_code == 200 else {}
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(self._base, error) from error
        return cast("dict[str, Any]", told) if isinstance(told, dict) else {}

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _post(self, body: bytes, timeout: float) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        async with self._http.stream(
            "POST", f"{self._base}/cmd", content=body, headers=headers, timeout=timeout
        ) as response:
            if response.status_code in {401, 403}:
                raise wrong_key(self._base)
            data = await _limited(response)
            if response.status_code != 200:
                raise ComputerError(f"the computer-server answered with status {response.status_code}")
        line = next((line for line in data.splitlines() if line.startswith(_DATA)), None)
        return decoded(line[len(_DATA) :] if line is not None else data)


async def _limited(response: httpx2.Response) -> bytes:
    parts, size = list[bytes](), 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise ComputerError("the computer-server's answer is too large", hint=f"At most {MAX_ANSWER} bytes.")
        parts.append(part)
    return b"".join(parts)


def slow(command: str, timeout: float) -> ComputerError:
    """The server has not answered in time."""
    return ComputerError(f"the computer-server did not answer {command!r} within {timeout:g} seconds")


class NoSocketError(Exception):
    """The server has no WebSocket, or none can be used here; ``/cmd`` is left."""


class SocketWire:
    """``/ws``: one connection, on which one command is answered before the next is asked. Connects again by itself."""

    def __init__(self, base: str, api_key: str | None, name: str | None) -> None:
        self._base, self._api_key, self._name = base, api_key, name
        self._socket: ClientConnection | None = None
        self._turn = asyncio.Lock()

    async def connect(self, timeout: float) -> None:
        """Connect, unless it is. Raises `ComputerError`, and `NoSocketError` where there is no WebSocket."""
        if self._socket is not None:
            return
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import InvalidHandshake, WebSocketException
        except ImportError:
            raise NoSocketError from None
        headers = {"X-API-Key": self._api_key, "X-Container-Name": self._name}
        try:
            self._socket = await connect(
                f"ws{self._base.removeprefix('http')}/ws",
                additional_headers={key: value for key, value in headers.items() if value},
                open_timeout=timeout,
                max_size=MAX_ANSWER,
                compression=None,  # pictures are compressed already
                close_timeout=1,
                logger=UNTOLD,
            )
        except InvalidHandshake:  # whatever the reason is, `/cmd` tells it better
            raise NoSocketError from None
        except (OSError, TimeoutError, WebSocketException) as error:
            raise unreachable(self._base, error) from error
        try:
            if self._api_key:
                await self._authenticate(timeout)
        except BaseException:
            await self.aclose()
            raise

    async def ask(self, command: str, params: Mapping[str, Any], *, timeout: float, again: bool) -> dict[str, Any]:
        """Ask. What was asked on a connection that broke is asked again only if that does no harm."""
        from websockets.exceptions import WebSocketException

        async with self._turn:
            for last in (not again, True):
                try:
                    await self.connect(timeout)
                except NoSocketError:
                    raise ComputerError(f"the computer-server at {urlsplit(self._base).netloc} has changed") from None
                try:
                    async with asyncio.timeout(timeout):
                        return await self._exchange(command, params)
                except TimeoutError:
                    await self.aclose()  # its answer would be taken for the next one's
                    raise slow(command, timeout) from None
                except (WebSocketException, OSError) as error:
                    await self.aclose()
                    if last:
                        raise ComputerError(
                            f"the connection to the computer-server broke during {command!r}",
                            hint="Whether it was done is not known: look before you do it again.",
                        ) from error
                except BaseException:
                    await self.aclose()
                    raise
        raise AssertionError

    async def aclose(self) -> None:
        """Close the connection."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with suppress(Exception):
                await asyncio.shield(asyncio.ensure_future(socket.close()))

    async def _authenticate(self, timeout: float) -> None:
        from websockets.exceptions import WebSocketException

        params = {"api_key": self._api_key, "container_name": self._name}
        try:
            async with asyncio.timeout(timeout):
                answer = await self._exchange("authenticate", params)
        except TimeoutError:
            raise slow("authenticate", timeout) from None
        except (WebSocketException, OSError):
            raise wrong_key(self._base) from None
        if answer.get("success") is not True and "nknown command" not in str(answer.get("error")):
            raise wrong_key(self._base)  # a server that knows no keys says that it knows no such command

    async def _exchange(self, command: str, params: Mapping[str, Any]) -> dict[str, Any]:
        assert self._socket is not None
        await self._socket.send(to_json({"command": command, "params": dict(params)}).decode())
        return decoded(await self._socket.recv())
