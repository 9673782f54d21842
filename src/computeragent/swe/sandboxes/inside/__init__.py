"""Programs that run in a sandbox. They are started by their paths, with the standard library alone."""
