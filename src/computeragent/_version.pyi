from claude_agent_sdk._version import __version__ as __version__
