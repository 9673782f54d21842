"""Serving a model on every wire: the wires and their paths, what is asked for, and a small HTTP server."""
