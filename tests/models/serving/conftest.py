import asyncio

import pytest


@pytest.fixture
def exchange():
    """Send raw bytes to a server and read until it closes, or for a moment."""

    async def send(port: int, data: bytes, wait: float = 2.0) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        got = bytearray()
        try:
            async with asyncio.timeout(wait):
                while piece := await reader.read(65536):
                    got += piece
        except TimeoutError:
            pass
        finally:
            writer.close()
        return bytes(got)

    return send
