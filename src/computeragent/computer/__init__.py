"""Computers that agents act on: a desktop, a browser, a remote machine, or functions of your own."""
