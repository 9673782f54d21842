from claude_agent_sdk.types import *
