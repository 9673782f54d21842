"""The wire: frozen structs of everything that crosses a process boundary; no behaviour, no I/O."""
