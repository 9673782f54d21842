"""A computer elsewhere, behind a cua computer-server."""

from computeragent.computer.remote.remote import RemoteComputer

__all__ = ["RemoteComputer"]
