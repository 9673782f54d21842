"""Define an agent, run it with any engine in any sandbox, watch it, govern it and remember it."""
