"""A desktop on an X server: one of our own, made in a fraction of a second, or a display that is there already."""

from computeragent.computer.x11.computer import X11Computer

__all__ = ["X11Computer"]
