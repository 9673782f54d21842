"""The hosts that a call reaches: those of its URLs, and of the network programs of a shell line."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, cast

from computeragent.policy.risk import Command, Word
from computeragent.policy.rules.arguments import named_texts

URL_ARGUMENTS = ("url", "urls", "uri", "href", "endpoint", "base_url")
"""The arguments of any tool that are URLs."""

_URL_WORDS = frozenset("url urls uri uris href hrefs endpoint endpoints host hosts hostname".split())  # noqa: SIM905
_LINK_WORDS = frozenset("link links proxy website site address".split())  # noqa: SIM905
"""Last words of names that say the same in any other spelling, at any depth; of links only where they have a scheme."""

_DISPUTED = frozenset("ßς\u200c\u200d")
"""Characters that some readers of names keep and others replace."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?\.?")
_BARE = re.compile(r"([A-Za-z0-9_.-]+)(?::[0-9]+)?(?:[/?#].*)?", re.DOTALL)
_ODD = re.compile(r"[\x00-\x20\\\x7f]")
_PORT = re.compile(r":[0-9]*$")
_NUMBER = re.compile(r"[0-9a-fx.]+")
_REMOTE = re.compile(r"(?:[\w.-]+@)?([\w.-]+):(?!//).*", re.DOTALL)

_FETCHERS = frozenset({"curl", "wget", "http", "https", "xh", "aria2c"})
_CURL_VALUES = frozenset("HdXuAebcFTmworCtyYzEUPQ")
_LONG_VALUES = frozenset(
    [
        "--header",
        "--data",
        "--data-raw",
        "--data-binary",
        "--data-urlencode",
        "--request",
        "--user",
        "--user-agent",
        "--referer",
        "--cookie",
        "--cookie-jar",
        "--form",
        "--max-time",
        "--connect-timeout",
        "--output",
        "--retry",
        "--retry-delay",
        "--write-out",
        "--cacert",
        "--output-document",
        "--post-data",
        "--method",
        "--body-data",
        "--timeout",
        "--tries",
        "--directory-prefix",
        "--json",
    ]
)
_REDIRECTING = re.compile(
    r"-\w*[xK]|--(?:proxy|preproxy|socks|config|resolve|connect-to|unix|abstract|interface|dns|input-file|url|execute)"
)
_DIALERS = frozenset(
    {"ssh", "sftp", "telnet", "nc", "ncat", "netcat", "ping", "dig", "nslookup", "host", "whois", "ftp", "mosh"}
)
_COPIERS = frozenset({"scp", "rsync"})
_GIT_NETWORK = frozenset({"clone", "fetch", "pull", "push", "ls-remote", "remote", "submodule"})

Host = str | None
"""A host in plain form: small letters, no dot at the end, addresses as numbers. None is one that cannot be told."""


def tool_hosts(tool_input: Mapping[str, Any]) -> list[Host]:
    """The hosts that the URLs of a call name."""
    found: list[Host] = []
    texts: dict[str, None] = {}
    for argument in URL_ARGUMENTS:
        value = tool_input.get(argument)
        if value is None:
            continue
        for each in cast("list[Any]", value) if isinstance(value, list) else [value]:
            if isinstance(each, str):
                texts[each] = None
            else:
                found.append(None)
    for name, text in named_texts(tool_input):
        if text and (name in _URL_WORDS or (name in _LINK_WORDS and "://" in text)):
            texts[text] = None
    return found + [url_host(text) for text in texts]


def url_host(url: str) -> Host:
    """The host of a URL, with or without a scheme. None where readers of URLs may disagree."""
    if _ODD.search(url) or len(url) > 8192:
        return None
    found = _URL.match(url)
    if found is None:
        bare = _BARE.fullmatch(url)
        return None if bare is None else plain_host(bare[1])
    host = found[1].rpartition("@")[2]
    if host.startswith("["):
        return plain_address(host[1:].partition("]")[0])
    return plain_host(_PORT.sub("", host))


def plain_host(name: str) -> Host:
    """A host's name or address in plain form."""
    if not name.isascii():
        if _DISPUTED & set(name):
            return None
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return None
    if _NAME.fullmatch(name) is None:
        return None
    name = name.lower().rstrip(".")
    if _NUMBER.fullmatch(name) is not None and name.rpartition(".")[2][:1].isdigit():
        try:
            return socket.inet_ntoa(socket.inet_aton(name))
        except OSError:
            return name
    return name


def plain_address(text: str) -> Host:
    """An IPv6 address in its shortest form; one that stands for an IPv4 address as that."""
    try:
        address = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def command_hosts(command: Command) -> list[Host]:
    """The hosts that a command names; one that cannot be told for a network program that does not say."""
    if command.unclear is not None and not command.words:
        return [None]
    found: list[Host] = [None] if command.unclear is not None else []
    found.extend(_written(command))
    name = command.program
    if name in _FETCHERS:
        found.extend(_fetched(command.words[1:]))
    elif name in _DIALERS:
        found.extend(_dialled(command.words[1:]))
    elif name in _COPIERS or (name == "git" and _GIT_NETWORK & set(command.texts)):
        found.extend(_copied(command.words[1:]))
    else:
        return list(dict.fromkeys(found))
    return list(dict.fromkeys(found)) or [None]


def _written(command: Command) -> Iterator[Host]:
    for redirect in command.redirects:
        text = redirect.target.text
        if text.startswith(("/dev/tcp/", "/dev/udp/")):
            yield plain_host(text.split("/")[3]) if redirect.target.known else None
    for word in command.words:
        for found in re.finditer(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*", word.text[:8192]):
            yield url_host(found[0]) if word.known else None


def _fetched(words: tuple[Word, ...]) -> Iterator[Host]:
    takes_value = False
    for word in words:
        text = word.text
        if takes_value:
            takes_value = False
        elif not word.known or _REDIRECTING.match(text):
            yield None
        elif text.startswith("--"):
            takes_value = text in _LONG_VALUES
            if not takes_value and "=" not in text and re.search(r"-(?:file|cert|key|token|name|data|path)\b", text):
                yield None
        elif text.startswith("-") and len(text) > 1:
            takes_value = text[-1] in _CURL_VALUES and not any(letter in _CURL_VALUES for letter in text[1:-1])
        elif set("{}[]") & set(text):
            yield None  # curl makes several URLs of it
        elif "://" not in text:
            yield url_host(text)


def _dialled(words: tuple[Word, ...]) -> Iterator[Host]:
    for word in words:
        if not word.known:
            yield None
        elif not word.text.startswith(("-", "+")):
            yield plain_host(word.text.rpartition("@")[2])
            return


def _copied(words: tuple[Word, ...]) -> Iterator[Host]:
    for word in words:
        if not word.known and not word.glob:
            yield None
        elif (found := _REMOTE.fullmatch(word.text)) is not None and not word.text.startswith(("-", "/", ".")):
            yield plain_host(found[1])
