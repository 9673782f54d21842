"""`query`: upstream's, with a tap on its stream."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any

import claude_agent_sdk

from computeragent.claude.gated import gated
from computeragent.claude.tap import Tap

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, Message, Transport


async def query(
    *,
    prompt: str | AsyncIterable[dict[str, Any]],
    options: ClaudeAgentOptions | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[Message]:
    """Ask Claude once and get its messages as they come: upstream's `query`, with the same arguments, messages and
    errors, told to the process's telemetry pipeline as well.

    Where `can_use_tool` is a `PolicyToolAuthorizer`, it decides every tool call, in every permission mode. Where the
    pipeline has nobody to tell and there is no such policy, this is upstream's stream and nothing else. Raises
    `GuardrailError` after a message that made an enforcing guard stop the run, besides what upstream raises.
    """
    tap = Tap.open(options, prompt)
    if tap is None:
        plain = _upstream()(prompt=prompt, options=gated(options), transport=transport)
        try:
            async for message in plain:
                yield message
        finally:
            await _close(plain)
        return
    watched: Any = tap.watched(prompt)
    stream: AsyncIterator[Message] | None = None
    try:
        stream = aiter(_upstream()(prompt=watched, options=gated(tap.options(), tap), transport=transport))
        with tap.span():  # upstream connects in here, and hands the span on to the CLI
            first = await anext(stream, None)
        if first is not None:
            tap.message(first)
            yield first
            async for message in stream:
                if tap.trip is not None:
                    raise tap.refusal()
                tap.message(message)
                yield message
        tap.end()
        await tap.settle()
    except Exception as error:
        tap.end(error)
        await tap.settle()
        raise
    except BaseException:  # closed or cancelled: the caller left, and waits for nothing
        tap.end(cancelled=True)
        raise
    finally:
        await _close(stream)


def _upstream() -> Any:
    """Upstream's `query`, or what other instrumentation has put in its place; but for ours, which somebody may have."""
    there = claude_agent_sdk.query
    return sys.modules["claude_agent_sdk.query"].query if there is query else there


async def _close(stream: object) -> None:
    """Close a generator now, rather than when it is found to be garbage."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
