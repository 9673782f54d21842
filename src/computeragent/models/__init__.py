"""Models that can be called: a provider over HTTP, a script, a person."""
