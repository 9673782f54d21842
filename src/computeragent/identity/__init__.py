"""Who is the agent: fetch a source (`sources`), then read its definition (`gap`, `passthrough`)."""
