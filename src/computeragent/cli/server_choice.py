"""Which server a command means, and with which key. A key is never printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from computeragent.agent_input import is_http_url
from computeragent.client import HarnessClient
from computeragent.discovery import agent_key
from computeragent.errors import ValidationError
from computeragent.placement import own_token_of
from computeragent.settings import setting


def server_url(args: argparse.Namespace) -> str | None:
    """The server that is meant; None for this machine. Raises `ValidationError` for what is no address."""
    url = setting("harness_url", args.harness_url)
    if not url:
        return None
    if not is_http_url(url):
        raise ValidationError(
            f"{place_of(url)!r} is not the address of a server", hint="Such as http://127.0.0.1:7700."
        )
    return url


def token_of(args: argparse.Namespace) -> str | None:
    """The key that the command line gives. Raises `ValidationError` for a file that has none."""
    if args.harness_token and args.harness_token_file:
        raise ValidationError("two keys are given", hint="Give --harness-token or --harness-token-file.")
    if not args.harness_token_file:
        return args.harness_token or None
    hint = "It has one line, the key."
    try:
        token = Path(args.harness_token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValidationError(f"the key in {args.harness_token_file} cannot be read: {reason}", hint=hint) from error
    if not token or not token.isprintable():
        raise ValidationError(f"there is no key in {args.harness_token_file}", hint=hint)
    return token


def place_of(url: str) -> str:
    """An address as it may be shown: without user and password."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url.rpartition("@")[2]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def harness_client(url: str, args: argparse.Namespace) -> HarnessClient:
    """A client of the harness server there."""
    return HarnessClient(base_url=url, token=token_of(args) or agent_key() or own_token_of(url, "protocol"))
