"""One module per generated page: `TARGET` is its path, `generate()` returns its text."""
