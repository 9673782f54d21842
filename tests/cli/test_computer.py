"""`computeragent computer`: addresses that work, errors before anybody looks, and nothing left behind."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from computeragent.computer.reaper import MARK
from computeragent.processes import marks

from .conftest import Cli


@contextmanager
def running(cli: Cli, *args: str, end: int = signal.SIGINT) -> Iterator[tuple[list[str], str, int]]:
    """A server that is ready: what it said, its address and its process. In the end it gets the signal `end`."""
    run = cli.start("computer", *args, "--port", "0")
    assert run.stderr is not None
    said = [run.stderr.readline().decode().rstrip()]
    try:
        found = re.findall(r"http://[^\s,]+", said[0])
        assert found, said
        if "--no-auth" in args:
            said.append(run.stderr.readline().decode().rstrip())
        yield said, found[-1], run.pid
    finally:
        run.send_signal(end)
        run.communicate(timeout=30)
    assert run.returncode in {0, 130, -end}


def of(pid: int) -> list[str]:
    """The marks of a process's computers."""
    return [mark for mark in marks(MARK).values() if mark.split(".")[1] == str(pid)]


def own_token(cli: Cli) -> str:
    return (cli.state / "keys" / "computer-token").read_text().strip()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_view_opens_with_its_address_and_leaves_nothing(cli: Cli, end: int) -> None:
    with running(cli, "view", "--size", "400x300", end=end) as (said, url, pid):
        assert said[0].startswith("desktop on http://127.0.0.1:")
        with httpx2.Client(follow_redirects=True) as browser:
            page = browser.get(url, headers={"accept": "text/html"})
            assert (page.status_code, "token" in str(page.url)) == (200, False)
            assert browser.get(httpx2.URL(url).join("/screenshot.png")).content.startswith(b"\x89PNG")
        assert own_token(cli) in url
        assert of(pid)
    assert not of(pid)


def test_without_a_token_it_warns_and_stays_on_loopback(cli: Cli) -> None:
    with running(cli, "view", "--size", "400x300", "--take-over", "--no-auth") as (said, url, _):
        assert said[0].startswith("desktop, with the pointer and the keyboard on http://127.0.0.1:")
        assert said[1] == "warning: without authentication: whoever reaches this port sees this computer and uses it"
        assert httpx2.get(url).status_code == 200
    refused = cli("computer", "view", "--no-auth", "--host", "0.0.0.0")
    assert (refused.returncode, "serves everybody" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (("view", "--display", ":9876"), "display :9876"),
        (("view", "--kind", "remote"), "--url"),
        (("view", "--url", "http://127.0.0.1:1", "--size", "400x300"), "own screen"),
        (("view", "--display", ":1", "--size", "400x300"), "own size"),
        (("view", "--size", "10x10"), "10x10"),
        (("mcp", "--url", "nonsense"), "address"),
        (("replay", "nowhere"), "no folder"),
    ],
)
def test_what_cannot_be_is_an_error_before_anybody_looks(cli: Cli, args: tuple[str, ...], wrong: str) -> None:
    more = () if args[0] == "mcp" else ("--port", "0")
    done = cli("computer", *args, *more)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error[")
    assert wrong in done.stderr
    assert "Traceback" not in done.stderr


def test_a_size_that_is_none_is_a_usage_error(cli: Cli) -> None:
    done = cli("computer", "view", "--size", "large")
    assert (done.returncode, "1280x800" in done.stderr) == (2, True)


def test_replay_serves_and_exports(cli: Cli) -> None:
    turn = cli.work / "runs" / "one" / "turn_000"
    turn.mkdir(parents=True)
    (turn.parent / "metadata.json").write_text(json.dumps({"status": "completed"}))
    (turn / "0000_computer_call_result.json").write_text(json.dumps({"action": {"action": "click", "x": 1, "y": 2}}))
    with running(cli, "replay", "runs") as (_, url, _pid), httpx2.Client(follow_redirects=True) as browser:
        page = browser.get(url, headers={"accept": "text/html"})
        assert (page.status_code, page.url.path) == (200, "/run/one")
    done = cli("computer", "replay", "runs/one", "--export", "one.html")
    assert done.returncode == 0, done.stderr
    assert "click" in (cli.work / "one.html").read_text()
    assert done.stderr == f"wrote one.html: {(cli.work / 'one.html').stat().st_size} bytes\n"


def test_a_served_computer_is_viewed_from_elsewhere(cli: Cli) -> None:
    with running(cli, "serve", "--size", "400x300") as (_, there, _served):
        refused = cli("computer", "view", "--url", there, "--port", "0")
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
        cli.env["CUA_API_KEY"] = own_token(cli)
        with running(cli, "view", "--url", there) as (said, url, _viewer):
            assert said[0].startswith(f"computer at {there.rstrip(',')} on ")
            with httpx2.Client(follow_redirects=True, timeout=30) as browser:
                browser.get(url, headers={"accept": "text/html"})
                shot = browser.get(httpx2.URL(url).join("/screenshot.png"))
                assert shot.content[16:24] == (400).to_bytes(4) + (300).to_bytes(4)


def test_help_names_what_there_is(cli: Cli) -> None:
    done = cli("computer", "--help")
    assert done.returncode == 0
    assert all(f"\n    {action} " in done.stdout for action in ("view", "replay", "mcp", "serve"))
