"""A page in Chromium as a computer: no desktop is needed."""

from computeragent.computer.browser.browser import BrowserComputer

__all__ = ["BrowserComputer"]
