"""A computer as people and other programs see it: a live view, the replay of a trajectory, tools over MCP."""
