from claude_agent_sdk._errors import *
from claude_agent_sdk._errors import MessageParseError as MessageParseError
