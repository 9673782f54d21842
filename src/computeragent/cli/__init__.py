"""The `computeragent` command."""
