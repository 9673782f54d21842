"""Which computer a request gets, by every row of the table; what may not be asked for; that it opens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from computeragent.computer.asking import IGNORED, OPTIONS, REFUSED
from computeragent.computer.custom import CustomComputer
from computeragent.computer.kinds import TABLE, ComputerSpec, open_computer, spec_of
from computeragent.computer.types import Computer
from computeragent.errors import ComputerUnsupportedError, UnknownOptionError, ValidationError

PIXEL = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1" + bytes(16)
THERE = {"api_host": "10.0.0.5", "api_port": 9000}


def outcome(asked: dict[str, Any]) -> ComputerSpec | ComputerUnsupportedError:
    try:
        return spec_of(asked, allow_host=True)
    except ComputerUnsupportedError as error:
        return error


@pytest.mark.parametrize("os_type", ["linux", "windows", "macos"])
@pytest.mark.parametrize("provider_type", ["cloud", "local", "docker", "lume", "host", "browser", "remote", None])
@pytest.mark.parametrize("more", [{}, {"name": "box"}, {"name": "box", "api_key": "k"}, THERE], ids=str)
def test_every_combination_of_the_seed_gets_a_computer_or_a_remedy(
    os_type: str, provider_type: str | None, more: dict[str, Any]
) -> None:
    spec = outcome({"os_type": os_type, "provider_type": provider_type, **more})
    if isinstance(spec, ComputerUnsupportedError):
        assert "api_host" in str(spec.hint)
        assert more is not THERE
        return
    is_here = provider_type == "browser" or (os_type == "linux" and provider_type == "local")
    is_here = is_here or (os_type == "linux" and provider_type is None and more is not THERE)
    assert (spec.kind != "remote") == is_here
    if more is THERE and not is_here:
        assert spec.url == "http://10.0.0.5:9000"


def test_the_container_of_the_cloud_comes_from_the_request_or_its_env() -> None:
    env = {"CUA_CONTAINER_NAME": "m-linux-1", "CUA_API_KEY": "sk-hunter2"}
    spec = spec_of({"os_type": "linux", "provider_type": "cloud"}, env)
    assert spec.kind == "remote"
    assert spec.url is not None
    assert "m-linux-1" in spec.url
    assert (spec.name, spec.api_key) == ("m-linux-1", "sk-hunter2")
    assert "hunter2" not in repr(spec)
    assert spec_of({"provider_type": "cloud", "name": "b", "api_key": "k"}, env).name == "b"
    for name in ("evil.example/x", "a b", "x:1", "-a"):
        with pytest.raises(ValidationError):
            spec_of({"provider_type": "cloud", "name": name, "api_key": "k"})


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (1280, 800)),
        ({"display": "1024x768"}, (1024, 768)),
        ({"display": {"width": 800, "height": 600}}, (800, 600)),
        ({"width": 640, "height": 480}, (640, 480)),
        ({"kind": "browser", "display": "1024x768"}, (1024, 768)),
    ],
)
def test_sizes(asked: dict[str, Any], size: tuple[int, int]) -> None:
    spec = spec_of(asked)
    assert (spec.width, spec.height) == size
    assert spec.display is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"display": "big"},
        {"display": "10x10"},
        {"width": 99999, "height": 800},
        {"width": "wide"},
        {"kind": "browser", "headless": False},
        {"url": "ftp://x"},
        {"page": "file:///etc/passwd"},
        {"kind": "x11", "page": "--renderer-cmd-prefix=/tmp/x"},
        {"kind": "x11", "page": "http://[::1"},
        {"url": "http://user:pw@10.0.0.5"},
        {"url": "http://10.0.0.5:99999"},
        {**THERE, "timeout": -1},
        {**THERE, "timeout": 1e9},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as told:
        spec_of(wrong, allow_host=True)
    assert "pw" not in str(told.value)


def test_options_that_nobody_knows_are_refused_and_cua_s_have_a_word() -> None:
    with pytest.raises(UnknownOptionError) as told:
        spec_of({"provider": "x"})
    assert "provider_type" in str(told.value.hint)
    for name in REFUSED:
        with pytest.raises(ComputerUnsupportedError) as refused:
            spec_of({name: "x"})
        assert refused.value.hint == REFUSED[name]
    assert spec_of({**dict.fromkeys(IGNORED, "x"), "backend": "native"}) == ComputerSpec()
    with pytest.raises(ComputerUnsupportedError, match="provider_type 'dokcer'") as close:
        spec_of({"provider_type": "dokcer"})
    assert "'docker'" in str(close.value.hint)
    with pytest.raises(ComputerUnsupportedError, match="os_type 'amiga'"):
        spec_of({"os_type": "amiga"})


HERE = [
    {"display": ":0"},
    {"kind": "browser", "display": ":0"},
    {"provider_type": "host"},
    {"use_host_computer_server": True},
    *({"url": f"http://{host}:8000"} for host in ("127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "0.0.0.0")),
    *(
        {"api_host": host}
        for host in ("127.1.2.3", "127.1", "0x7f.1", "2130706433", "::ffff:127.0.0.1", "169.254.169.254", "a.localhost")
    ),
    ComputerSpec(display=":0"),
    ComputerSpec(kind="remote", url="http://127.0.0.1:8000"),
]


@pytest.mark.parametrize("asked", HERE, ids=range(len(HERE)))
def test_this_machine_s_own_desktop_is_driven_only_where_that_is_allowed(asked: Any) -> None:
    with pytest.raises(ComputerUnsupportedError, match="of this machine may not be used"):
        spec_of(asked)
    assert spec_of(asked, allow_host=True)


def test_remote_hosts_may_be_listed() -> None:
    assert spec_of(THERE, remote_hosts=["10.0.0.5"]).url == "http://10.0.0.5:9000"
    assert spec_of({"provider_type": "host"}, remote_hosts=["127.0.0.1"]).kind == "remote"
    for hosts in ([], ["10.0.0.6"]):
        with pytest.raises(ComputerUnsupportedError, match=r"10\.0\.0\.5"):
            spec_of(THERE, allow_host=True, remote_hosts=hosts)


def test_a_spec_is_data() -> None:
    spec = ComputerSpec(kind="browser", width=800, height=600, page="https://example.com")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ComputerSpec) == spec
    assert hash(spec) == hash(msgspec.convert(msgspec.to_builtins(spec), ComputerSpec))
    assert spec_of(msgspec.to_builtins(spec)) == spec


def test_every_row_and_option_has_its_words() -> None:
    assert all(row.served for row in TABLE)
    assert all(OPTIONS.values())


@pytest.mark.anyio
async def test_opening_functions_computers_and_nonsense() -> None:
    custom = await open_computer({"screenshot": lambda: PIXEL})
    assert isinstance(custom, CustomComputer)
    assert await open_computer(custom) is custom
    with pytest.raises(ValidationError):
        await open_computer(3)  # type: ignore[arg-type]
    with pytest.raises(ComputerUnsupportedError):
        await open_computer({"display": ":0"})


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["browser", "x11"])
async def test_a_computer_opens_with_its_page(kind: str) -> None:
    page = "data:text/html,<title>the page</title>"
    computer: Any = await open_computer({"kind": kind, "display": "800x600", "page": page})
    try:
        assert isinstance(computer, Computer)
        assert computer.kind == kind
        assert computer.dimensions == (800, 600)
        if kind == "browser":
            assert await computer.current_url() == page
        else:
            import asyncio

            async with asyncio.timeout(20):
                while not any("the page" in window.title for window in await computer.windows()):
                    await asyncio.sleep(0.1)
    finally:
        await computer.close()
