"""Starts the Claude CLI with exactly the environment that was stated for it.

The SDK merges the whole environment of its own process under the one that it is given, so what must not reach
the CLI is taken out here, in the moment between the two. Run as a script; standard library only.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
KEEP = "COMPUTERAGENT_LAUNCH_KEEP"
CLI = "COMPUTERAGENT_LAUNCH_CLI"
SET_BY_SDK = ("CLAUDE_CODE_", "CLAUDE_AGENT_SDK_", "TRACEPARENT", "TRACESTATE", "PWD")


def main() -> None:
    """Replace this process by the CLI, in a process group of its own so that it can be ended as a whole."""
    keep = set(os.environ[KEEP].split(" "))
    cli = os.environ[CLI]
    unwanted = {name[1:] for name in keep if name.startswith("-")}
    env = {
        name: value
        for name, value in os.environ.items()
        if name in keep or (name.startswith(SET_BY_SDK) and name not in unwanted)
    }
    os.setsid()
    die_with_parent()
    os.execve(cli, [cli, *sys.argv[1:]], env)  # noqa: S606 - no shell is wanted


def die_with_parent() -> None:
    """On Linux, be told to end when the process that started us is gone, however it went (prctl(2))."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
