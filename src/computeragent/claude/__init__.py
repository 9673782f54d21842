"""The drop-in: upstream's surface, by identity, with `query` and `ClaudeSDKClient` as thin wrappers."""
